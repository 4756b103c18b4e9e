"""What was cut, and what it bought: layers before and after, groups with their reasons, from MACs to milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.core.cost import INSTRUCTIONS, MS, find_cost_unit, per_cost, say_cost, show_cost
from edgeprune.core.planning.plan import BRANCH
from edgeprune.core.summary import describe_width
from edgeprune.report.charts import (
    ACCENT,
    AFTER,
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
from edgeprune.report.tables import Cell, Column, Table, render_table
from edgeprune.report.words import count_of, say_change

UNITS = {MS: "milliseconds", INSTRUCTIONS: INSTRUCTIONS}
LEVEL, SAVED, LOST = "in all", "saved", "lost"
STEP_COLOURS = {LEVEL: SOFT, SAVED: AFTER, LOST: ACCENT}
GONE = "gone"

Rows = Sequence[Mapping[str, Any]]


def describe_cut(report: Mapping[str, Any]) -> str:
    """What was cut, in a sentence with the counts before and after."""
    groups = report["plan"]["groups"]
    before, after = report["baseline"], report["result"]
    counts = ", ".join(
        f"{name} {say_change(before[field], after[field])}"
        for field, name in (
            ("macs", "multiply-accumulates"),
            ("parameters", "parameters"),
            ("file_bytes", "file bytes"),
        )
    )
    return f"{'Cut: ' + _count_cut(groups) if _cut_groups(groups) else 'Nothing was cut'}; {counts}."


def _count_cut(groups: Rows) -> str:
    """How many channels, and how many branches with all that is in them."""
    branches = [row for row in groups if row["kind"] == BRANCH]
    channels = [row for row in groups if row["kind"] != BRANCH and not row.get("gone_with")]
    lost, narrower = sum(row["size"] - len(row["keep"]) for row in channels), _cut_groups(channels)
    text = f"{lost} of {count_of(sum(row['size'] for row in channels), 'channel')}"
    parts = [f"{text}, in {len(narrower)} of {count_of(len(channels), 'group')}"] if lost else []
    gone = sum(not row["keep"] for row in branches)
    parts += [f"{gone} of {count_of(len(branches), 'residual branch', 'residual branches')}"] if gone else []
    return " and ".join(parts)


def _cut_groups(groups: Rows) -> list[Mapping[str, Any]]:
    return [row for row in groups if row.get("gone_with") or len(row["keep"]) < row["size"]]


def render_cuts(report: Mapping[str, Any], explanation: Mapping[str, Any] | None) -> str:
    """The layers where the plan was explained, the way from MACs to ms, the groups and why each has its width."""
    plan = (explanation or {}).get("plan") or {}
    waterfall = (explanation or {}).get("waterfall")
    missing = (explanation or {}).get("missing") or {}
    parts = [paragraph(describe_cut(report))]
    if plan.get("layers"):
        parts += ["<h3>Layer by layer</h3>", render_chart(draw_layers(plan["layers"], plan["origin"]))]
    else:
        parts.append(
            paragraph(f"Layers one by one are not known: {missing.get('plan', 'the plan was not explained')}.")
        )
    if waterfall:
        parts += [
            f"<h3>From multiply-accumulates to {UNITS[find_cost_unit()]}</h3>",
            render_chart(draw_waterfall(waterfall)),
        ]
    parts += ["<h3>Groups of channels, and why</h3>", render_table(_tabulate_groups(report["plan"]["groups"], plan))]
    warnings = (explanation or {}).get("warnings") or []
    parts += [paragraph(f"Warning: {row['text']}", "warn") for row in warnings]
    return "".join(parts)


def draw_layers(layers: Rows, origin: str) -> Chart:
    """What each layer costs before and after; widths and bytes in the table and under the pointer."""
    rows = [
        {
            "layer": row["layer"],
            "file": side,
            "cost": row[f"ms_{side}"],
            "shape": row[f"shape_{side}"],
            "bytes": row[f"weight_bytes_{side}"],
        }
        for row in layers
        for side in ("before", "after")
    ]
    spec = {
        "height": ROW_PX * len(layers) + 10,
        "data": {"values": round_rows(rows)},
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": "layer", "type": "nominal", "sort": None, "title": None},
            "yOffset": {"field": "file", "type": "nominal", "sort": ["before", "after"]},
            "x": number_axis("cost", f"{find_cost_unit()} in the net, predicted", zero=True, lines=True),
            "color": colour_by("file", {"before": BEFORE, "after": AFTER}),
            "tooltip": tooltip(
                layer="layer", file="file", shape="it is", cost=find_cost_unit(), bytes="bytes of weights"
            ),
        },
    }
    most = sorted(layers, key=lambda row: float(row["ms_after"] - row["ms_before"]))[:3]
    saved = "; ".join(f"{row['layer']} {say_cost(row['ms_before'])} to {say_cost(row['ms_after'])}" for row in most)
    return Chart(
        spec,
        f"{UNITS[find_cost_unit()].capitalize()} of {len(layers)} layers before and after. Most was saved by: {saved}.",
        _tabulate_layers(layers),
        f"What each layer takes within the net, from {origin} layers and the correction by whole nets; joins between "
        "layers are left out. A prediction: what was measured is the whole file.",
    )


def _tabulate_layers(layers: Rows) -> Table:
    columns = (
        Column("layer", text=True),
        Column("before", text=True),
        Column("after", text=True),
        Column(f"{find_cost_unit()} before"),
        Column(f"{find_cost_unit()} after"),
        Column("bytes before"),
        Column("bytes after"),
    )
    rows = [
        (
            row["layer"],
            row["shape_before"],
            row["shape_after"] if row["shape_after"] != row["shape_before"] else "the same",
            *(Cell(show_cost(row[name]), row[name]) for name in ("ms_before", "ms_after")),
            *(Cell(f"{row[name]:,}", row[name]) for name in ("weight_bytes_before", "weight_bytes_after")),
        )
        for row in layers
    ]
    cut = frozenset(place for place, row in enumerate(layers) if row["shape_before"] != row["shape_after"])
    return Table(columns, rows, marked=cut)


def draw_waterfall(waterfall: Mapping[str, Any]) -> Chart:
    """From the unpruned file's ms to the shipped file's, a bar for each step."""
    rows = [_make_step(step) for step in waterfall["steps"]]
    spec = {
        "height": ROW_PX * len(rows) + 10,
        "data": {"values": round_rows(rows)},
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": "step", "type": "nominal", "sort": None, "title": None},
            "x": number_axis("start", find_cost_unit(), zero=True, lines=True),
            "x2": {"field": "end"},
            "color": colour_by("kind", STEP_COLOURS),
            "tooltip": tooltip(step="step", cost=find_cost_unit(), origin="from", text="it is"),
        },
    }
    first, last = waterfall["steps"][0], waterfall["steps"][-1]
    lost = [row for row in rows if row["kind"] == LOST]
    lost_text = "; ".join(f"{row['step']} {say_cost(row['cost'])}" for row in lost) or "nothing"
    doubt = "" if waterfall.get("valid", True) else " A run behind it was not valid."
    table = Table(
        (
            Column("step", text=True),
            Column(find_cost_unit()),
            Column(f"level, {find_cost_unit()}"),
            Column("from", text=True),
            Column("it is", text=True),
        ),
        [
            (
                row["step"],
                show_cost(row["cost"], ".4g" if row["kind"] == LEVEL else "+.4g"),
                show_cost(step["after_ms"]),
                row["origin"],
                row["text"],
            )
            for row, step in zip(rows, waterfall["steps"], strict=True)
        ],
        sorts=False,
    )
    return Chart(
        spec,
        f"From {say_cost(first['ms'])} unpruned to {say_cost(last['ms'])} shipped. Lost on the way: {lost_text}.",
        table,
        f"{waterfall['basis']}. A step that was lost is what did not shrink with the multiply-accumulates; single "
        f"steps between the measured levels are predictions, less certain than their sum.{doubt}",
    )


def _make_step(step: Mapping[str, Any]) -> dict[str, Any]:
    is_level = step["kind"] == "level"
    return {
        "step": step["name"].replace("_", " "),
        "kind": LEVEL if is_level else SAVED if step["ms"] <= 0 else LOST,
        "cost": step["ms"],
        "start": step["after_ms"] - step["ms"],
        "end": step["after_ms"],
        "origin": step["origin"],
        "text": step["text"],
    }


def _tabulate_groups(groups: Rows, plan: Mapping[str, Any]) -> Table:
    """A row for each group; with an explained plan also what bound it and its price."""
    explained = {row["group"]: row for row in plan.get("groups") or ()}
    columns = [Column("group", text=True), Column("channels"), Column("loss rise"), Column("why", text=True, wide=True)]
    columns += (
        [Column("what bound it", text=True, wide=True), Column(f"loss per {per_cost()}, wider")] if explained else []
    )
    rows = []
    for row in groups:
        share = 0.0 if row.get("gone_with") else len(row["keep"]) / row["size"]
        loss = row["loss_increase"]
        cells: list[str | Cell] = [
            row["group"],
            Cell(describe_width(row), share),
            Cell(f"{loss:.4f}", loss),
            row["reason"],
        ]
        if explained:
            cells += _price_cells(explained.get(row["group"], {}))
        rows.append(cells)
    cut = _cut_groups(groups)
    return Table(columns, rows, marked=frozenset(place for place, row in enumerate(groups) if row in cut))


def _price_cells(row: Mapping[str, Any]) -> list[str | Cell]:
    gain = row.get("gain_per_ms")
    return [str(row.get("bound", "")), "-" if gain is None else Cell(f"{gain:.3g}", float(gain))]
