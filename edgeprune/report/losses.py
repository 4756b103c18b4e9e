"""What the net lost where the average does not show it: classes, single errors, noise and corruption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.core.metric import parse_metric
from edgeprune.report.charts import (
    AFTER,
    BAD,
    BEFORE,
    ROW_PX,
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
from edgeprune.report.words import say_plainly

MOST_CELLS = 30
"""Classes of a confusion that is drawn; of more the table names the worst."""
MAKE = "`edgeprune explain --run DIR`, then `edgeprune report --run DIR`, adds it"

Document = Mapping[str, Any]


def render_losses(explanation: Document | None) -> str:
    """Classes or errors, and robustness, as far as the run's explanation has them."""
    document = explanation or {}
    missing = document.get("missing") or {}
    parts = []
    if document.get("outputs"):
        outputs = document["outputs"]
        text = f"Outputs of {outputs['before']} and {outputs['after']} by {outputs['runtime']} on {outputs['machine']}."
        parts.append(paragraph(f"{text} {outputs['note']}".strip(), "soft"))
    if document.get("classes"):
        parts.append(_render_classes(document["classes"]))
    elif document.get("errors"):
        parts.append(render_chart(_draw_errors(document["errors"])))
    else:
        parts.append(paragraph(f"By class or input nothing is known: {missing.get('classes') or MAKE}."))
    if document.get("robustness"):
        parts += ["<h3>Under noise and corruption</h3>", render_chart(_draw_robustness(document["robustness"]))]
    else:
        parts.append(paragraph(f"Under noise and corruption nothing is known: {missing.get('robustness') or MAKE}."))
    return "".join(parts)


def _render_classes(classes: Document) -> str:
    parts = ["<h3>By class</h3>", render_chart(_draw_classes(classes))]
    lost = [
        f"class {row['label']} {row['points']:+.1f} points (by chance alone as much in {row['chance']:.2g} of cases)"
        for row in classes.get("lost_most") or ()
    ]
    parts.append(paragraph(f"Lost most: {', '.join(lost)}." if lost else "No class lost anything."))
    if classes.get("confusion_after") and len(classes["labels"]) <= MOST_CELLS:
        parts += ["<h3>Confusion after pruning</h3>", render_chart(_draw_confusion(classes))]
    elif classes.get("confused_more"):
        rows = [
            f"{row['target']} taken for {row['answer']}: {row['before']} to {row['after']}"
            for row in classes["confused_more"]
        ]
        parts.append(paragraph(f"Confused more often: {'; '.join(map(str, rows))}."))
    return "".join(parts)


def _draw_classes(classes: Document) -> Chart:
    rows = [
        {"label": str(label), "before": 100 * before / count, "after": 100 * after / count, "inputs": count}
        for label, before, after, count in zip(
            classes["labels"], classes["correct_before"], classes["correct_after"], classes["count"], strict=True
        )
        if count
    ]
    return draw_pairs(rows, "class", "right answers, %", f"Right answers by class over {classes['inputs']} inputs")


def _draw_errors(errors: Document) -> Chart:
    rows = [
        {"label": f"{row['share']:.0%} of inputs", "before": row["before"], "after": row["after"]}
        for row in errors["quantiles"]
    ]
    unit = f", {errors['unit']}" if errors.get("unit") else ""
    title = f"Error that so many inputs stay below, of {errors['inputs']} inputs"
    return draw_pairs(rows, "share", f"error of one input{unit}", title)


def _draw_robustness(robustness: Document) -> Chart:
    metric = parse_metric(robustness["metric"])
    rows = [
        {
            "label": row["corruption"] if row["corruption"] == "none" else f"{row['corruption']} {row['severity']}",
            "before": row["before"],
            "after": row["after"],
        }
        for row in robustness["rows"]
        if row["before"] is not None and row["after"] is not None
    ]
    better = f"{metric.label}, {metric.better} is better"
    return draw_pairs(rows, "corruption and severity", better, f"{metric.name} over {robustness['inputs']} inputs")


def draw_pairs(rows: Sequence[Mapping[str, Any]], name: str, axis: str, title: str) -> Chart:
    """Two marks a row, before and after, with a line between them; rows have `label`, `before` and `after`."""
    long = [
        {"label": row["label"], "file": side, "value": float(row[side]), "place": place}
        for place, row in enumerate(rows)
        for side in ("before", "after")
    ]
    order = {"field": "place", "op": "min"}
    y = {"field": "label", "type": "nominal", "sort": order, "title": None}
    spec = {
        "height": ROW_PX * len(rows) + 10,
        "data": {"values": round_rows(long)},
        "layer": [
            {
                "mark": {"type": "line", "color": SOFT},
                "encoding": {
                    "y": y,
                    "x": number_axis("value", axis, lines=True),
                    "detail": {"field": "label", "type": "nominal"},
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {
                    "y": y,
                    "x": number_axis("value", axis, lines=True),
                    "color": colour_by("file", {"before": BEFORE, "after": AFTER}),
                    "tooltip": tooltip(label=name, file="file", value=axis),
                },
            },
        ],
    }
    cells = [
        (row["label"], *(Cell(f"{row[side]:.4g}", float(row[side])) for side in ("before", "after"))) for row in rows
    ]
    alt = f"{title}: " + "; ".join(f"{row['label']} {row['before']:.4g} to {row['after']:.4g}" for row in rows[:12])
    rest = f"; and {len(rows) - 12} more" if len(rows) > 12 else ""
    return Chart(
        spec, f"{alt}{rest}.", Table((Column(name, text=True), Column("before"), Column("after")), cells), f"{title}."
    )


def _draw_confusion(classes: Document) -> Chart:
    """How many more or fewer inputs of each class get each answer."""
    labels = [str(label) for label in classes["labels"]]
    before, after = classes["confusion_before"], classes["confusion_after"]
    rows = [
        {
            "target": target,
            "answer": answer,
            "more": after[row][column] - before[row][column],
            "after": after[row][column],
        }
        for row, target in enumerate(labels)
        for column, answer in enumerate(labels)
    ]
    changed = [row for row in rows if row["more"]]
    for row in rows:
        is_better = (row["more"] > 0) == (row["target"] == row["answer"])
        row["kind"] = "the same" if not row["more"] else "better" if is_better else "worse"
    place = {"type": "nominal", "sort": labels}
    spec = {
        "height": ROW_PX * len(labels) + 10,
        "data": {"values": rows},
        "encoding": {
            "y": {**place, "field": "target", "title": "class"},
            "x": {**place, "field": "answer", "title": "answer", "axis": {"labelAngle": 0}},
            "tooltip": tooltip(target="class", answer="answer", after="inputs after", more="more than before"),
        },
        "layer": [
            {
                "mark": {"type": "rect", "stroke": "var(--line)", "opacity": 0.75},
                "encoding": {
                    "color": colour_by("kind", {"the same": "transparent", "better": AFTER, "worse": BAD}),
                },
            },
            {
                "transform": [{"filter": "datum.after > 0"}],
                "mark": {"type": "text", "fontSize": 11},
                "encoding": {"text": {"field": "after"}},
            },
        ],
    }
    words = "; ".join(f"{row['target']} answered {row['answer']}: {row['more']:+d}" for row in changed[:12])
    columns = (Column("class"), Column("answer"), Column("inputs after"), Column("more than before"))
    cells = [
        (row["target"], row["answer"], say_plainly(row["after"]), f"{row['more']:+d}")
        for row in rows
        if row["after"] or row["more"]
    ]
    return Chart(
        spec,
        f"Answers by class after pruning; changed: {words or 'none'}.",
        Table(columns, cells),
        "Numbers: inputs of the class (row) that get the answer (column) after pruning; coloured where it changed.",
    )
