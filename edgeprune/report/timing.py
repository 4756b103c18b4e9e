"""Latency over time and its distribution, of the unpruned file and of what ships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import numpy as np

from edgeprune.core.cost import say_cost, show_cost
from edgeprune.core.measuring.measurement import Measurement
from edgeprune.report.charts import (
    ACCENT,
    AFTER,
    BEFORE,
    SOFT,
    Chart,
    colour_by,
    number_axis,
    render_chart,
    round_rows,
    tooltip,
)
from edgeprune.report.layout import paragraph
from edgeprune.report.tables import Cell, Column, Table, render_table
from edgeprune.report.words import BEFORE_AFTER, say_interval

ARITHMETIC = "fixed arithmetic"
SERIES = {"before": BEFORE, "after": AFTER, ARITHMETIC: ACCENT}
BINS = 90
LEAST_SPAN, SHOWN_SHARE = 3.0, 97.0
"""The least reach of the axis of deviations to each side, in percent; of windows, the share that has to lie on it."""
OWN_CORES, OTHERS = "its own", "others had its cores"
PERCENTILES = {
    "min_ms": "fastest",
    "p50_ms": "median (p50)",
    "p90_ms": "p90",
    "p95_ms": "p95",
    "p99_ms": "p99",
    "mad_ms": "spread (MAD)",
}

Pair = Mapping[str, Measurement]
"""Measurements by "before" and "after"."""
Rows = list[dict[str, Any]]


def render_timing(pair: Pair, latencies: Mapping[str, Mapping[str, Any]]) -> str:
    """Charts of both files' latency; `latencies` are the summaries as report.json has them, by "before" and "after"."""
    over_time = draw_over_time(pair, latencies)
    first = paragraph("How latency moved over time is not known: this runtime gives samples without their times.")
    return (render_chart(over_time) if over_time else first) + render_chart(draw_distribution(pair, latencies))


def render_counts(pair: Pair) -> str:
    """What an emulator counted of both files, an input a row: exact, so that there is no interval."""
    columns = (Column("input"), *(Column(name) for name in pair))
    counts = [measurement.samples_ms for measurement in pair.values()]
    rows: list[Sequence[str | Cell]] = [
        (str(number), *(Cell(show_cost(count), count) for count in row))
        for number, row in enumerate(zip(*counts, strict=False), 1)
    ]
    text = "Each input is random. The same input gives the same count, to the instruction."
    return paragraph(text) + render_table(Table(columns, rows, sorts=False))


def draw_over_time(pair: Pair, latencies: Mapping[str, Mapping[str, Any]]) -> Chart | None:
    """Each window's median as its deviation from the file's own, so that what moves both is seen as one."""
    start_s = min((window.at_s for row in pair.values() for window in row.windows), default=0.0)
    rows = [row for name in pair for row in _list_windows(name, pair[name], latencies[name], start_s)]
    if not rows:
        return None
    arithmetic = _list_arithmetic(pair, start_s)
    reach = _find_reach(rows)
    beyond = sum(abs(row["deviation"]) > reach for row in rows)
    beyond_text = f"; {beyond} of {len(rows)} windows lie beyond it" if beyond else ""
    spec = {"layer": [*_interval_layers(pair, latencies), *_window_layers(rows, arithmetic, reach)]}
    moved = "; ".join(f"{name} {_say_movement([row for row in rows if row['file'] == name])}" for name in pair)
    return Chart(
        spec,
        f"Latency over time, in percent of each file's own median: {moved}.",
        _tabulate_processes(pair, start_s),
        f"Each mark is a window of runs; the bands are the intervals of the medians ({_say_medians(latencies)}). What "
        f"moves both files at once is the board: heat, clocks, neighbours. The axis ends at {reach:.3g} % to each side"
        f"{beyond_text}. Last third of the time against the first: {moved}.",
    )


def _list_windows(name: str, measurement: Measurement, latency: Mapping[str, Any], start_s: float) -> Rows:
    return [
        {
            "file": name,
            "process": window.process,
            "at_s": window.at_s - start_s,
            "ms": window.p50_ms,
            "deviation": 100 * (window.p50_ms / latency["p50_ms"] - 1),
            "cores": OTHERS if window.is_disturbed else OWN_CORES,
        }
        for window in measurement.windows
    ]


def _list_arithmetic(pair: Pair, start_s: float) -> Rows:
    """The fixed loop of arithmetic in each process, where each process took one and its times are known."""
    measurement = next(iter(pair.values()))
    times, starts = measurement.conditions.arithmetic_us, _find_starts(pair)
    if len(times) < 2 or len(times) != len(starts):
        return []
    middle = float(np.median(times))
    return [
        {
            "file": ARITHMETIC,
            "process": process,
            "at_s": starts[process] - start_s,
            "deviation": 100 * (us / middle - 1),
        }
        for process, us in zip(sorted(starts), times, strict=True)
    ]


def _find_starts(pair: Pair) -> dict[int, float]:
    """When each process timed its first window, in s of the board's clock."""
    starts = dict[int, float]()
    for measurement in pair.values():
        for window in measurement.windows:
            starts[window.process] = min(window.at_s, starts.get(window.process, window.at_s))
    return starts


def _find_reach(rows: Rows) -> float:
    """How far the axis goes to each side, in percent: what a few windows do far off hides what the others do."""
    return max(LEAST_SPAN, 1.2 * float(np.percentile([abs(row["deviation"]) for row in rows], SHOWN_SHARE)))


def _say_movement(rows: Rows) -> str:
    """The last third of the time against the first, in percent."""
    rows = sorted(rows, key=lambda row: row["at_s"])
    third = max(1, len(rows) // 3)
    first, last = (float(np.median([row["ms"] for row in part])) for part in (rows[:third], rows[-third:]))
    return f"{100 * (last / first - 1):+.2g} %"


def _say_medians(latencies: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"{name} {say_cost(row['p50_ms'])}, {say_interval(row)}" for name, row in latencies.items())


def _interval_layers(pair: Pair, latencies: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = [
        {
            "file": name,
            **{end: 100 * (latencies[name][f"median_{end}_ms"] / latencies[name]["p50_ms"] - 1)},
            "high": high,
        }
        for name in pair
        for end, high in [("low", 100 * (latencies[name]["median_high_ms"] / latencies[name]["p50_ms"] - 1))]
    ]
    band = {
        "data": {"values": round_rows(rows)},
        "mark": {"type": "rect", "opacity": 0.15},
        "encoding": {
            "y": number_axis("low", "latency against the median, %"),
            "y2": {"field": "high"},
            "color": colour_by("file", SERIES),
        },
    }
    return [band, {"data": {"values": [{}]}, "mark": {"type": "rule"}, "encoding": {"y": {"datum": 0}}}]


def _window_layers(rows: Rows, arithmetic: Rows, reach: float) -> list[dict[str, Any]]:
    axes = {
        "x": number_axis("at_s", "s since the first window") | {"scale": {"nice": False, "padding": 8}},
        "y": {
            **number_axis("deviation", "latency against the median, %"),
            "scale": {"domain": [-reach, reach], "nice": False},
        },
        "color": colour_by("file", SERIES) | {"legend": {"symbolOpacity": 1}},
    }
    shapes = {"domain": [OWN_CORES, OTHERS], "range": ["circle", "cross"]}
    shape = {"shape": {"field": "cores", "type": "nominal", "scale": shapes, "legend": None}}
    told = tooltip(file="file", process="process", at_s="s", ms="median ms", deviation="%", cores="cores")
    windows = {
        "params": [{"name": "shown", "select": {"type": "point", "fields": ["file"]}, "bind": "legend"}],
        "data": {"values": round_rows(rows)},
        "mark": {"type": "point", "clip": True, "size": 28},
        "encoding": {
            **axes,
            **shape,
            "tooltip": told,
            "opacity": {"condition": {"param": "shown", "value": 0.9}, "value": 0.08},
        },
    }
    line = {
        "data": {"values": round_rows(arithmetic)},
        "mark": {"type": "line", "point": True, "clip": True},
        "encoding": {**axes, "tooltip": tooltip(file="what", process="process", deviation="%")},
    }
    return [windows, *([line] if arithmetic else [])]


def _tabulate_processes(pair: Pair, start_s: float) -> Table:
    """A row for each process: when it began, and each file's median, with how long it waited for a core."""
    starts = _find_starts(pair)
    columns = [Column("process"), Column("at, s")]
    for name in pair:
        columns += [Column(f"{name}, ms"), Column(f"{name}, waited for a core")]
    rows = []
    for process in sorted(starts):
        cells: list[str | Cell] = [str(process), f"{starts[process] - start_s:.1f}"]
        for measurement in pair.values():
            cells += _process_cells(measurement, process)
        rows.append(cells)
    return Table(columns, rows)


def _process_cells(measurement: Measurement, process: int) -> list[str | Cell]:
    windows = [window for window in measurement.windows if window.process == process]
    if not windows:
        return ["-", "-"]
    median_ms = float(np.median([window.p50_ms for window in windows]))
    waits = [window.waited_share for window in windows if window.waited_share is not None]
    waited = Cell(f"{np.mean(waits):.1%}", float(np.mean(waits))) if waits else "not known"
    return [Cell(f"{median_ms:.4g}", median_ms), waited]


def draw_distribution(pair: Pair, latencies: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Histograms of the samples of both files on one axis; what lies far beyond the medians is counted in words."""
    of_means = any(measurement.runs_per_sample > 1 for measurement in pair.values())
    one = "an inference, each sample the mean of several" if of_means else "one inference"
    samples = {name: np.asarray(measurement.samples_ms) for name, measurement in pair.items()}
    low = min(float(values.min()) for values in samples.values())
    high = max(min(1.2 * (row["p95_ms"] or inf), 2.0 * row["p50_ms"]) for row in latencies.values())
    edges = np.linspace(low, max(high, low * (1 + 1e-6), low + 1e-9), BINS + 1)
    rows = [row for name, values in samples.items() for row in _list_bins(name, values, edges)]
    medians = [{"file": name, **latencies[name]} for name in pair]
    beyond = "; ".join(
        f"{name}: {len(values):,} samples, {int((values > edges[-1]).sum()):,} above {edges[-1]:.3g} ms, "
        f"slowest {values.max():.3g} ms"
        for name, values in samples.items()
    )
    bars = {
        "data": {"values": round_rows(rows)},
        "mark": {"type": "bar", "opacity": 0.6, "binSpacing": 0},
        "encoding": {
            "x": number_axis("from_ms", f"ms of {one}", bin="binned", axis={"tickCount": 8}),
            "x2": {"field": "to_ms"},
            "y": number_axis("share", "share of its samples", zero=True, stack=None, axis={"format": "%"}),
            "color": colour_by("file", {name: SERIES[name] for name in BEFORE_AFTER}),
            "tooltip": tooltip(file="file", from_ms="from ms", to_ms="to ms", share="share"),
        },
    }
    rule = {
        "data": {"values": round_rows(medians)},
        "mark": {"type": "rule", "strokeDash": [4, 3], "color": SOFT},
        "encoding": {"x": {"field": "p50_ms", "type": "quantitative"}},
    }
    return Chart(
        {"height": 200, "layer": [bars, rule]},
        f"Distribution of the latency of {one}; medians: {_say_medians(latencies)}. {beyond}.",
        _tabulate_percentiles(latencies),
        f"Every sample; dashed: the medians. {beyond}.",
    )


def _list_bins(name: str, values: np.ndarray, edges: np.ndarray) -> Rows:
    counts, _ = np.histogram(values, edges)
    return [
        {"file": name, "from_ms": float(start), "to_ms": float(end), "share": float(count / len(values))}
        for start, end, count in zip(edges, edges[1:], counts, strict=False)
        if count
    ]


def _tabulate_percentiles(latencies: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = (Column("", text=True), *(Column(f"{name}, ms") for name in latencies))
    rows: list[Sequence[str | Cell]] = [
        (title, *("-" if row.get(name) is None else f"{row[name]:.4g}" for row in latencies.values()))
        for name, title in PERCENTILES.items()
    ]
    rows.insert(2, ("95 % interval of the median", *(say_interval(row) for row in latencies.values())))
    return Table(columns, rows, sorts=False)
