"""The comparison of runs for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.core.choosing.points import UNPRUNED
from edgeprune.core.metric import Metric, parse_metric
from edgeprune.core.releasing.gate import INCONCLUSIVE
from edgeprune.core.text import render_columns, wrap_line

COLUMNS = 80
LONGEST_NAME = 14
"""Longer names are told below the table, and stand in it as a letter."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

VERDICTS = {INCONCLUSIVE: "unclear", UNPRUNED: "-"}
"""Shorter words for a narrow column."""

Row = Mapping[str, Any]


def render_table(document: Mapping[str, Any]) -> str:
    """The table of a comparison: by latency, each front by itself, what is beaten and what is on no front marked."""
    labels = shorten_names([row["name"] for row in document["rows"]])
    parts = [_render_front(document, number, labels) for number in range(len(document["fronts"]))]
    loose = [row for row in document["rows"] if row["front"] is None]
    if loose:
        parts.append(_render_loose(loose, labels))
    legend = [f"{label}  {name}" for name, label in labels.items() if label != name]
    notes = [f"note: {note}" for note in document["notes"]]
    conditions = [_wrap(document["conditions"])] if document["conditions"] else []
    lines = [*legend, *conditions, *(_wrap(note) for note in notes), _wrap(describe_choice(document["choice"]))]
    return "\n\n".join([*parts, "\n".join(lines)])


def shorten_names(names: Sequence[str]) -> dict[str, str]:
    """What stands for each name in a table: itself, or a letter where one of them is long."""
    if all(len(name) <= LONGEST_NAME for name in names):
        return {name: name for name in names}
    return {name: LETTERS[index] if index < len(LETTERS) else f"R{index}" for index, name in enumerate(names)}


def describe_choice(choice: Mapping[str, Any]) -> str:
    """The run to choose, in a sentence."""
    return f"choose {choice['name']}: {choice['reason']}" if choice["name"] else f"no choice: {choice['reason']}"


def _render_front(document: Mapping[str, Any], number: int, labels: Mapping[str, str]) -> str:
    front = document["fronts"][number]
    metric = parse_metric(front["metric"])
    rows = [row for row in document["rows"] if row["front"] == number]
    head = ("run", "p50 ms", "95 % interval", "x", shorten(metric), "verdict", "front")
    cells = [(labels[row["name"]], *_cells(row, metric), describe_place(row, document, labels)) for row in rows]
    quality = f"{metric.name}, {metric.better} is better; x: times as fast as the unpruned fp32 net"
    table, costs = render_columns([head, *cells]), _render_costs(rows, labels)
    return "\n".join([_wrap(f"{front['setting']}; {quality}"), "", table, "", costs])


def shorten(metric: Metric) -> str:
    """A metric as the head of a narrow column."""
    return metric.unit or metric.name[:8]


def _render_costs(rows: Sequence[Row], labels: Mapping[str, str]) -> str:
    """What the shipped files cost beside the median."""
    head = ("run", "file", "kB", "p95 ms", "load ms", "first ms", "MiB", "mJ")
    return render_columns([head, *((labels[row["name"]], *_cost_cells(row)) for row in rows)])


def _cost_cells(row: Row) -> tuple[str, ...]:
    file = str(row["artifact"] or "-").rpartition("/")[2]
    size = "-" if row["file_bytes"] is None else f"{row['file_bytes'] / 1000:.1f}"
    names = ("latency_p95_ms", "init_ms", "first_ms", "peak_memory_mib", "energy_mj")
    return (file, size, *("-" if row[name] is None else f"{row[name]:.3g}" for name in names))


def _cells(row: Row, metric: Metric) -> tuple[str, ...]:
    low, high = row["latency_p50_low_ms"], row["latency_p50_high_ms"]
    return (
        f"{row['latency_p50_ms']:.4g}",
        f"{low:.4g}-{high:.4g}",
        "-" if row["speedup"] is None else f"{row['speedup']:.2f}",
        show_quality(row["quality"], metric),
        VERDICTS.get(row["verdict"], str(row["verdict"])),
    )


def show_quality(quality: float | None, metric: Metric) -> str:
    """A figure of quality without its unit."""
    if quality is None:
        return "-"
    return f"{quality:.2f}" if metric.unit == "%" else f"{quality:.4g}"


def describe_place(row: Row, document: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Where a run stands: on the front, beaten by another, or on none, and why."""
    if row["exclusion"]:
        return str(row["exclusion"])
    if row["beaten_by"]:
        return f"< {labels[row['beaten_by']]}"
    return "front" if row["name"] != document["choice"]["name"] else "front, choose"


def _render_loose(rows: Sequence[Row], labels: Mapping[str, str]) -> str:
    """Runs of which nothing was measured."""
    cells = []
    for row in rows:
        latency = "-" if row["latency_p50_ms"] is None else f"{row['latency_p50_ms']:.4g}"
        cells.append((labels[row["name"]], latency, row["verdict"], row["exclusion"]))
    return render_columns([("run", "p50 ms", "verdict", "front"), *cells])


def _wrap(text: str) -> str:
    return wrap_line(text, COLUMNS, "")
