"""What could have been chosen: the predicted front of loss against latency, with measured points, and every file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.core.cost import INSTRUCTIONS, cost_name, find_cost_unit, median_cost, say_cost, show_cost, title_cost
from edgeprune.core.metric import Metric
from edgeprune.core.summary import describe_choice
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
from edgeprune.report.tables import Cell, Column, Table

CURVE, PLANNED, TRIED, SHIPS = (
    "best at other budgets, predicted",
    "planned, predicted",
    "cut net, measured",
    "ships, measured",
)
MARKS = {
    CURVE: (SOFT, "circle"),
    PLANNED: (ACCENT, "diamond"),
    TRIED: (BEFORE, "square"),
    SHIPS: (AFTER, "triangle-up"),
}
LOSS = "predicted rise of the loss"

Rows = list[dict[str, Any]]


def render_front(report: Mapping[str, Any], front: Mapping[str, Any] | None, metric: Metric) -> str:
    """The predicted front, where the run has drawn one, and the measured files."""
    if front is None:
        first = paragraph("This run has no front of other budgets.")
    else:
        first = "<h3>By prediction</h3>" + render_chart(draw_front(report, front))
    files = draw_files(report["artifacts"], metric)
    return f"{first}<h3>Every file, measured</h3>" + (
        render_chart(files) if files else paragraph(f"No file has both {cost_name()} and a quality.")
    )


def draw_front(report: Mapping[str, Any], front: Mapping[str, Any]) -> Chart:
    """Loss rise over latency: the predicted front, the plan on it, and what was measured of the nets it led to."""
    rows = _list_points(report, front)
    colours = {name: colour for name, (colour, _) in MARKS.items()}
    shapes = {"domain": list(MARKS), "range": [shape for _, shape in MARKS.values()]}
    axes = {
        "x": number_axis("cost", title_cost(), zero=True),
        "y": {**number_axis("loss", LOSS), "scale": {"type": "sqrt", "zero": True}},
    }
    line = {
        "data": {"values": round_rows([row for row in rows if row["what"] == CURVE])},
        "mark": {"type": "line", "color": SOFT},
        "encoding": axes,
    }
    spans = {
        "data": {"values": round_rows([row for row in rows if row["low"] is not None])},
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": {
            **axes,
            "x": number_axis("low", title_cost(), zero=True),
            "x2": {"field": "high"},
            "color": colour_by("what", colours),
        },
    }
    told = tooltip(what="what", cost=find_cost_unit(), loss="rise of the loss", detail="of it")
    colour = colour_by("what", colours) | {"legend": {"columns": {"expr": "width < 480 ? 1 : 2"}}}
    marks = {**axes, "color": colour, "shape": {"field": "what", "type": "nominal", "scale": shapes}, "tooltip": told}
    points = [
        {
            "data": {"values": round_rows([row for row in rows if (row["what"] == PLANNED) == is_planned])},
            "mark": {"type": "point", "strokeWidth": 2, "opacity": 1, "size": area_px},
            "encoding": marks,
        }
        for is_planned, area_px in ((False, 70), (True, 320))
    ]
    cells = [
        (row["what"], Cell(show_cost(row["cost"]), row["cost"]), Cell(f"{row['loss']:.4f}", row["loss"]), row["detail"])
        for row in rows
    ]
    columns = (
        Column("point", text=True),
        Column(find_cost_unit()),
        Column("rise of the loss"),
        Column("of it", text=True),
    )
    chosen = front["chosen"]
    measured = "; ".join(f"{row['what']} {say_cost(row['cost'])}" for row in rows if row["what"] in (TRIED, SHIPS))
    return Chart(
        {"layer": [line, spans, *points]},
        f"Front of {len(front['front'])} budgets, {front['origin']}. Planned: {say_cost(chosen['latency_ms'])} at a "
        f"loss rise of {chosen['loss_increase']:.4f}. {measured or 'Nothing was measured'}.",
        Table(columns, cells),
        f"The line: the least rise of the calibration loss before fine-tuning that any widths reach at that cost, "
        f"{front['origin']}. The rise of the loss is predicted everywhere; {title_cost()} measured where it says so.",
    )


def _say_files() -> str:
    if find_cost_unit() == INSTRUCTIONS:
        return "Every file as it was counted in QEMU, with the range over inputs; the one that ships was counted again."
    return (
        "Every file as it was measured in turns with all others, with the interval of its median; the one that ships "
        "was measured once more for the verdict."
    )


def _list_points(report: Mapping[str, Any], front: Mapping[str, Any]) -> Rows:
    """Points by what they are; `low` and `high` in ms are the interval of what was measured with one."""
    chosen, loss = front["chosen"], report["plan"]["loss_increase"]
    rows = [_make_point(CURVE, row["latency_ms"], row["loss_increase"]) for row in front["front"]]
    rows.sort(key=lambda row: float(row["cost"]))
    rows.append(_make_point(PLANNED, chosen["latency_ms"], chosen["loss_increase"], front["origin"]))
    for attempt in report["predicted"]["tries"]:
        height = attempt.get("loss_increase")
        text = f"untrained, predicted {say_cost(attempt['predicted_ms'])}"
        rows.append(_make_point(TRIED, attempt["measured_ms"], loss if height is None else height, text))
    result = report["result"]
    latency = result["latency"]
    span = find_span(latency)
    doubt = ", NOT VALID" if result["problems"] else ""
    rows.append(_make_point(SHIPS, latency["p50_ms"], loss, f"{result['artifact']}{doubt}", span))
    return rows


def find_span(latency: Mapping[str, Any]) -> tuple[float, float]:
    """The interval of a median; of instructions the range over inputs."""
    names = ("min_ms", "max_ms") if find_cost_unit() == INSTRUCTIONS else ("median_low_ms", "median_high_ms")
    return latency[names[0]], latency[names[1]]


def _make_point(
    what: str, cost: float, loss: float, detail: str = "", span: tuple[float | None, float | None] = (None, None)
) -> dict[str, Any]:
    return {"what": what, "cost": cost, "loss": loss, "detail": detail, "low": span[0], "high": span[1]}


def _list_files(artifacts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "file": row["path"].removeprefix("artifacts/"),
            "role": row["role"],
            "format": row["format"],
            "cost": row["latency"]["p50_ms"],
            **dict(zip(("low", "high"), find_span(row["latency"]), strict=True)),
            "quality": row["quality"],
            "choice": describe_choice(row) or "measured",
        }
        for row in artifacts
        if row.get("latency") and row.get("quality") is not None
    ]


def draw_files(artifacts: Sequence[Mapping[str, Any]], metric: Metric) -> Chart | None:
    """Quality over measured latency, a mark for each file that has both."""
    rows = _list_files(artifacts)
    if not rows:
        return None
    roles = {"original": BEFORE, "pruned": AFTER}
    better = f"{metric.label}, {metric.better} is better"
    colour = colour_by("role", roles)
    y = number_axis("quality", better)
    spans = {
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": {
            "x": number_axis("low", title_cost(), zero=True),
            "x2": {"field": "high"},
            "y": y,
            "color": colour,
        },
    }
    told = tooltip(file="file", cost=median_cost(), quality=metric.name, choice="it is")
    points = {
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 0.9},
        "encoding": {
            "x": number_axis("cost", title_cost(), zero=True),
            "y": y,
            "color": colour,
            "shape": {"field": "format", "type": "nominal"},
            "tooltip": told,
        },
    }
    ordered = sorted(rows, key=lambda row: float(row["cost"]))
    return Chart(
        {"data": {"values": round_rows(rows)}, "layer": [spans, points]},
        f"{metric.label} over the median {cost_name()} of {len(rows)} files: "
        + "; ".join(f"{row['file']} {say_cost(row['cost'])}, {metric.describe(row['quality'])}" for row in ordered)
        + ".",
        Table(
            (Column("file", text=True), Column(median_cost()), Column(metric.name), Column("it is", text=True)),
            [
                (
                    row["file"],
                    Cell(show_cost(row["cost"]), row["cost"]),
                    Cell(metric.describe(row["quality"]), row["quality"]),
                    row["choice"],
                )
                for row in ordered
            ],
        ),
        _say_files(),
    )
