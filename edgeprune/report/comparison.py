"""The comparison of runs as a page: the table first, then each setting's front of measured points, and conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.core.choosing.points import UNPRUNED
from edgeprune.core.metric import HIGHER, Metric, parse_metric
from edgeprune.report.charts import ACCENT, AFTER, SOFT, Chart, colour_by, number_axis, render_chart, tooltip
from edgeprune.report.layout import KeyFigure, Page, Section, paragraph, render_page
from edgeprune.report.tables import Cell, Column, Table, render_table

ON_FRONT, BEATEN, EXCLUDED = "on the front", "beaten", "excluded"
COLOURS = {ON_FRONT: AFTER, BEATEN: SOFT, EXCLUDED: ACCENT}
LONGEST_LABEL = 18
"""Of a point of the chart, in letters."""
LABELS: tuple[tuple[str, int], ...] = (("left", 9), ("right", -9))
"""On which side of its point a label begins, and how far from it in px."""
RISES = (-9, 14)
"""How far below its point a label stands in px, by turns, so that neighbours do not run into each other."""
COLUMNS = (
    Column("run", text=True),
    Column("p50 ms"),
    Column("95 % interval"),
    Column("speed-up"),
    Column("its interval"),
    Column("quality"),
    Column("verdict", text=True),
    Column("front", text=True),
    Column("equal in latency", text=True),
)
COSTS = {
    "file_bytes": "kB",
    "latency_p95_ms": "p95 ms",
    "init_ms": "load ms",
    "first_ms": "first ms",
    "peak_memory_mib": "peak MiB",
    "energy_mj": "mJ",
    "parameters": "parameters",
    "macs": "MACs",
}
"""Heads of the second table, by the figure of a row."""

Row = Mapping[str, Any]


def render_comparison_page(document: Mapping[str, Any]) -> str:
    """HTML of a comparison's document (docs/sweep.md)."""
    choice = document["choice"]
    sections = [section for number in range(len(document["fronts"])) for section in _front_sections(document, number)]
    loose = [row for row in document["rows"] if row["front"] is None]
    if loose:
        sections.append(Section("Without measurements", _loose_table(loose)))
    return render_page(
        Page(
            title=document["title"],
            lead=_describe_lead(document),
            headline=f"choose {choice['name']}" if choice["name"] else "no choice",
            outcome="pass" if choice["name"] else "inconclusive",
            reasons=(choice["reason"], *(f"{name}: {reason}" for name, reason in document["without_run"].items())),
            figures=_key_figures(document),
            sections=(*sections, Section("Conditions and notes", _describe_notes(document))),
        )
    )


def _describe_lead(document: Mapping[str, Any]) -> str:
    how = "measured in turns, in one session" if document["interleaved"] else "each measured in a session of its own"
    return f"{len([row for row in document['rows'] if row['verdict'] != UNPRUNED])} runs, {how}"


def _key_figures(document: Mapping[str, Any]) -> tuple[KeyFigure, ...]:
    row = next((row for row in document["rows"] if row["name"] == document["choice"]["name"]), None)
    if row is None:
        return ()
    metric = parse_metric(document["fronts"][row["front"]]["metric"])
    low, high = row["latency_p50_low_ms"], row["latency_p50_high_ms"]
    original = metric.describe(row["original_quality"])
    return (
        KeyFigure(
            "speed-up",
            f"{row['speedup']:.2f}",
            f"95 % interval {row['speedup_low']:.2f} to {row['speedup_high']:.2f}, over the unpruned fp32 net",
        ),
        KeyFigure(metric.name, metric.describe(row["quality"]), f"unpruned {original}"),
        KeyFigure("latency p50", f"{row['latency_p50_ms']:.4g} ms", f"95 % interval {low:.4g} to {high:.4g} ms"),
    )


def _front_sections(document: Mapping[str, Any], number: int) -> tuple[Section, ...]:
    """The table, the front and the costs of one setting."""
    front = document["fronts"][number]
    rows = [row for row in document["rows"] if row["front"] == number]
    metric, which = parse_metric(front["metric"]), f" {number + 1}" if len(document["fronts"]) > 1 else ""
    setting = paragraph(f"{front['setting']}; {metric.better} is better", "soft")
    return (
        Section(f"Runs{which}", setting + render_table(_runs_table(rows, metric, document["choice"]["name"]))),
        Section(f"Front{which}", render_chart(_front_chart(rows, metric))),
        Section(f"Costs{which}", render_table(_costs_table(rows))),
    )


def _runs_table(rows: Sequence[Row], metric: Metric, chosen: str | None) -> Table:
    marked = frozenset(place for place, row in enumerate(rows) if row["name"] == chosen)
    shown = len(COLUMNS) - (not any(row["equal_latency"] for row in rows))
    return Table(COLUMNS[:shown], [_run_cells(row, metric, chosen)[:shown] for row in rows], marked=marked)


def _run_cells(row: Row, metric: Metric, chosen: str | None) -> tuple[str | Cell, ...]:
    place = row["exclusion"] or (f"beaten by {row['beaten_by']}" if row["beaten_by"] else "on it")
    return (
        row["name"],
        _number(row["latency_p50_ms"], ".4g"),
        f"{row['latency_p50_low_ms']:.4g} to {row['latency_p50_high_ms']:.4g}",
        _number(row["speedup"], ".2f"),
        "-" if row["speedup"] is None else f"{row['speedup_low']:.2f} to {row['speedup_high']:.2f}",
        Cell(_describe_quality(row, metric), row["quality"]),
        Cell(row["verdict"], kind=row["verdict"] if row["verdict"] in ("pass", "fail", "inconclusive") else ""),
        f"{place}, chosen" if row["name"] == chosen else place,
        ", ".join(row["equal_latency"]) or "-",
    )


def _describe_quality(row: Row, metric: Metric) -> str:
    if row["quality"] is None or row["quality_low"] == row["quality_high"]:
        return metric.describe(row["quality"])
    return f"{metric.describe(row['quality'])} ({row['quality_low']:.4g} to {row['quality_high']:.4g})"


def _number(value: float | None, pattern: str) -> Cell:
    return Cell("-" if value is None else format(value, pattern), value)


def _costs_table(rows: Sequence[Row]) -> Table:
    columns = (Column("run", text=True), Column("file", text=True), *map(Column, COSTS.values()))
    return Table(
        columns,
        [(row["name"], _describe_file(row), *(_cost_cell(name, row) for name in COSTS)) for row in rows],
    )


def _describe_file(row: Row) -> str:
    """The role, the precision and the format of a run's file, which its name is made of."""
    return str(row["artifact"] or "-").rpartition("/")[2].replace(".", " ")


def _cost_cell(name: str, row: Row) -> Cell:
    value = row[name]
    if value is None:
        return Cell(str(row["power"] or "-") if name == "energy_mj" else "-")
    if name == "file_bytes":
        return Cell(f"{value / 1000:.1f}", value)
    return Cell(f"{value:,}" if isinstance(value, int) else f"{value:.4g}", value)


def _loose_table(rows: Sequence[Row]) -> str:
    columns = (Column("run", text=True), Column("p50 ms"), Column("verdict", text=True), Column("front", text=True))
    cells = [(row["name"], _number(row["latency_p50_ms"], ".4g"), row["verdict"], row["exclusion"]) for row in rows]
    return render_table(Table(columns, cells))


def _front_chart(rows: Sequence[Row], metric: Metric) -> Chart:
    """Quality over latency: a mark for each run with its intervals, and the line of those that no other beats."""
    points = [_point(row) for row in rows if row["quality"] is not None]
    best = [point for point in points if point["state"] == ON_FRONT]
    upward = {} if metric.better == HIGHER else {"reverse": True}
    latency = number_axis(
        "latency_ms",
        "latency p50, ms",
        scale={"zero": False, "padding": 24},
        axis={"tickCount": 6, "labelOverlap": True},
    )
    quality = number_axis("quality", metric.label, scale={"zero": False, "padding": 16, **upward})
    told = tooltip(name="run", latency_ms="p50 ms", speedup="speed-up", quality=metric.label, state="front")
    state = colour_by("state", COLOURS)
    place = {"x": latency, "y": quality}
    line = {
        "data": {"values": best},
        "mark": {"type": "line", "interpolate": "step-after", "strokeDash": [4, 3], "stroke": AFTER},
        "encoding": place,
    }
    layers = [
        *([line] if best else []),
        {"mark": "rule", "encoding": {**place, "x": {**latency, "field": "low_ms"}, "x2": {"field": "high_ms"}}},
        {"mark": "rule", "encoding": {**place, "y": {**quality, "field": "low"}, "y2": {"field": "high"}}},
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {**place, "color": state, "tooltip": told},
        },
        *_label_layers(points, place),
    ]
    names = ", ".join(f"{point['name']} at {point['latency_ms']:.4g} ms" for point in best) or "no run"
    table = Table(
        (Column("run", text=True), Column("p50 ms"), Column(metric.label), Column("front", text=True)),
        [
            (str(point["name"]), f"{point['latency_ms']:.4g}", f"{point['quality']:.4g}", str(point["state"]))
            for point in points
        ],
    )
    return Chart(
        {"data": {"values": points}, "layer": layers, "height": 320},
        f"{metric.label} over latency, measured; on the front: {names}",
        table,
        "All points are measured; bars are 95 % intervals. Further left is faster, further up is better. Bars that "
        "overlap do not tell points apart. Excluded: not valid, or failed its gates; the table says which.",
    )


def _point(row: Row) -> dict[str, Any]:
    name = row["name"]
    return {
        "name": name,
        "label": name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…",
        "latency_ms": row["latency_p50_ms"],
        "low_ms": row["latency_p50_low_ms"],
        "high_ms": row["latency_p50_high_ms"],
        "quality": row["quality"],
        "low": row["quality_low"],
        "high": row["quality_high"],
        "speedup": row["speedup"],
        "state": EXCLUDED if row["exclusion"] else BEATEN if row["beaten_by"] else ON_FRONT,
    }


def _label_layers(points: Sequence[Row], place: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Names beside their points, towards the middle of the picture, above and below by turns."""
    if not points:
        return []
    ordered = sorted(points, key=lambda point: float(point["latency_ms"]))
    middle = (ordered[0]["latency_ms"] + ordered[-1]["latency_ms"]) / 2
    halves = [[point for point in ordered if (point["latency_ms"] <= middle) == is_left] for is_left in (True, False)]
    return [
        {
            "data": {"values": half[first :: len(RISES)]},
            "mark": {"type": "text", "align": align, "dx": shift, "dy": rise},
            "encoding": {**place, "text": {"field": "label"}},
        }
        for half, (align, shift) in zip(halves, LABELS, strict=True)
        for first, rise in enumerate(RISES)
        if half[first:]
    ]


def _describe_notes(document: Mapping[str, Any]) -> str:
    texts = [document["conditions"], *document["notes"]]
    return "".join(paragraph(text) for text in texts if text) or paragraph("none")
