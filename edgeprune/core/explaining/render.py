"""An explanation as text for a terminal of 80 columns: the whole net."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from edgeprune.core.cost import find_cost_unit, per_cost, say_cost, show_cost
from edgeprune.core.explaining.waterfall import ESTIMATED, LEVEL, MACS
from edgeprune.core.metric import PERCENT, parse_metric
from edgeprune.core.planning.plan import BRANCH
from edgeprune.core.text import render_columns, wrap_line

Table = list[tuple[str, ...]]
COLUMNS = 80
LONGEST_NAME, LONGEST_TEXT = 24, 48
"""Letters of a group's name and of a step of the waterfall, so that their tables fit."""
BOUNDS = {"weight_bytes": "bytes", "activation_bytes": "activations", "macs": "MACs", "sram_bytes": "SRAM"}
"""Short names of limits."""
SHOWN_MISSING = ("plan", "waterfall", "outputs", "classes", "errors", "robustness", "excited")


def render_explanation(document: Mapping[str, Any]) -> str:
    """Everything but single groups."""
    plan = document["plan"]
    parts = [
        render_waterfall(document["waterfall"]) if document["waterfall"] else "",
        render_groups(plan) if plan else "",
        render_neighbours(plan) if plan else "",
        render_classes(document["classes"], document["outputs"]) if document.get("classes") else "",
        render_errors(document["errors"]) if document.get("errors") else "",
        render_robustness(document["robustness"]) if document.get("robustness") else "",
        render_warnings(document["warnings"]),
        _render_missing(document),
    ]
    return "\n\n".join(part for part in parts if part)


def render_waterfall(waterfall: Mapping[str, Any]) -> str:
    """The steps from the unpruned net's ms to the pruned one's."""
    steps, (before, after) = waterfall["steps"], (waterfall["macs_before"], waterfall["macs_after"])
    table = [(f"where the {find_cost_unit()} went", "change", find_cost_unit(), "from")]
    for step in steps:
        is_level = step["kind"] == LEVEL
        text = ("" if is_level else "  ") + shorten(step["text"], LONGEST_TEXT - 2)
        change = "" if is_level else show_cost(step["ms"], "+.4g")
        table.append((text, change, show_cost(step["after_ms"]) if is_level else "", step["origin"]))
    is_doubtful = not waterfall["valid"] and steps[-1]["origin"] != ESTIMATED
    doubt = "; NOT VALID: a run behind it was disturbed" if is_doubtful else ""
    macs = next(step for step in steps if step["name"] == MACS)
    promised, saved = -macs["ms"], macs["after_ms"] - macs["ms"] - steps[-1]["ms"]
    share = f"; of {say_cost(promised)} that they promise, {show_cost(saved)} were saved" if promised > 0 else ""
    head = f"{before:,} multiply-accumulates (MACs), {after:,} left{share}"
    return "\n".join([wrap(head), wrap(waterfall["basis"] + doubt), render_columns(table)])


def render_groups(plan: Mapping[str, Any]) -> str:
    """A line a group: its width, what bound it, what a wider or a narrower one is worth, and its other widths."""
    less, more = (_say_share(plan[side]) for side in ("less", "more"))
    table: Table = [("group", "channels", "bound by", "wider", "narrower", less, more)]
    for row in plan["groups"]:
        rates = (_rate(row[name]) for name in ("gain_per_ms", "cost_per_ms"))
        others = (_width(row, row[name]) for name in ("width_at_less", "width_at_more"))
        table.append((shorten(row["group"], LONGEST_NAME), describe_width(row), _say_bound(row), *rates, *others))
    per = per_cost()
    head = (
        f"{say_cost(plan['predicted_ms'])} {'estimated' if plan['origin'] == 'estimated' else 'predicted'}, held to "
        f"{say_cost(plan['cap_ms'])}; loss rise {plan['loss_increase']:.4f} before fine-tuning. wider: loss that a "
        f"wider one takes off, per {per}; narrower: loss that a narrower one adds, per {per}; last, the widths at less "
        "and at more of the budget (=: the same)."
    )
    return f"{wrap(head)}\n{render_columns(table)}"


def render_neighbours(plan: Mapping[str, Any]) -> str:
    """What would come back at one more step of the budget, and what would go at one less."""
    lines, branches = [], {row["group"] for row in plan["groups"] if row["kind"] == BRANCH}
    for side, words in (("more", "one more step of budget"), ("less", "one step less")):
        other = plan[side]
        changes = ", ".join(_say_change(row, branches) for row in other["changes"])
        text = f"{words} ({other['share']:+.0%}, {say_cost(other['budget_ms'])}): {changes or other['note']}"
        if other["changes"]:
            text += f"; loss rise {plan['loss_increase']:.4f} to {other['loss_increase']:.4f}"
        lines.append(wrap(text, "  "))
    if plan["price_loss_per_ms"] is not None:
        lines.append(f"price at this budget: {plan['price_loss_per_ms']:.4g} of loss per {per_cost()}")
    return "\n".join(lines)


def _say_change(row: Mapping[str, Any], branches: Collection[str]) -> str:
    if row["group"] in branches:
        return f"{row['group']} {'kept' if row['other_width'] else 'cut'}"
    return f"{row['group']}: {row['width']} to {row['other_width']}"


def render_classes(classes: Mapping[str, Any], outputs: Mapping[str, Any]) -> str:
    """The classes that lost most, and what is confused more often."""
    lines = [wrap(f"by class, on {classes['inputs']} inputs ({describe_outputs(outputs)}):")]
    for row in classes["lost_most"]:
        lines.append(f"  {row['label']}: {row['points']:+.1f} points (by chance: {row['chance']:.2g})")
    for row in classes["confused_more"]:
        lines.append(f"  {row['target']} taken for {row['answer']}: {row['before']} to {row['after']}")
    return "\n".join(lines if len(lines) > 1 else [*lines, "  no class lost any"])


def describe_outputs(outputs: Mapping[str, Any]) -> str:
    """Where outputs came from."""
    text = f"{outputs['runtime']} on {outputs['machine']}"
    return f"{text}; {outputs['note']}" if outputs["note"] else text


def render_errors(errors: Mapping[str, Any]) -> str:
    """Quantiles of the error of single inputs."""
    table = [("error of an input", "before", "after")]
    for row in errors["quantiles"]:
        table.append((f"{row['share']:.0%} are below", f"{row['before']:.4g}", f"{row['after']:.4g}"))
    unit = f", in {errors['unit']}" if errors["unit"] else ""
    lost = ", ".join(f"{row['input']} ({row['before']:.3g} to {row['after']:.3g})" for row in errors["lost_most"])
    tail = wrap(f"inputs of eval_data() that lost most: {lost}", "  ") if lost else "no input lost any"
    return f"{errors['inputs']} inputs{unit}\n{render_columns(table)}\n{tail}"


def render_robustness(robustness: Mapping[str, Any]) -> str:
    """The metric before and after under each corruption, a column a severity."""
    metric, (clean, *rows) = parse_metric(robustness["metric"]), robustness["rows"]
    severities = list(dict.fromkeys(row["severity"] for row in rows))
    table: Table = [("corruption", *(f"severity {severity}" for severity in severities))]
    for name in dict.fromkeys(row["corruption"] for row in rows):
        own = {row["severity"]: row for row in rows if row["corruption"] == name}
        table.append((name, *(_pair(own[severity], metric.unit) for severity in severities)))
    head = f"{metric.label} before and after, {robustness['inputs']} inputs; as they are: {_pair(clean, metric.unit)}"
    return f"{wrap(head)}\n{render_columns(table)}"


def _pair(row: Mapping[str, Any], unit: str) -> str:
    pattern = "{:.1f}" if unit == PERCENT else "{:.4g}"
    return " to ".join("-" if row[side] is None else pattern.format(row[side]) for side in ("before", "after"))


def render_warnings(warnings: Sequence[Mapping[str, Any]]) -> str:
    """Signs of over-pruning, a line each."""
    if not warnings:
        return "no sign of over-pruning"
    lines = []
    for row in warnings:
        where = "" if row["where"] in row["text"] or row["where"] == "the net" else f"{row['where']}: "
        lines.append(wrap(f"warning: {where}{row['text']}", "  "))
    return "\n".join(lines)


def _render_missing(document: Mapping[str, Any]) -> str:
    reasons = document["missing"]
    has_either = document.get("classes") or document.get("errors")
    by_reason: dict[str, list[str]] = {}
    for name in SHOWN_MISSING:
        if name in reasons and not (name in ("classes", "errors") and has_either):
            by_reason.setdefault(reasons[name], []).append(name)
    return "\n".join(wrap(f"not told: {', '.join(names)}: {reason}", "  ") for reason, names in by_reason.items())


def describe_width(row: Mapping[str, Any]) -> str:
    """What is left of a group."""
    if row["kind"] == BRANCH:
        return "kept" if row["width"] else "cut"
    return f"{row['width']} of {row['size']}"


def _width(row: Mapping[str, Any], width: int | None) -> str:
    if width is None:
        return "-"
    same = width == row["planned_width"]
    if row["kind"] == BRANCH:
        return "=" if same else "kept" if width else "cut"
    return "=" if same else str(width)


def _say_share(neighbour: Mapping[str, Any]) -> str:
    return f"{neighbour['share']:+.0%}"


def _say_bound(row: Mapping[str, Any]) -> str:
    first, *others = row["bound_by"]
    return str(BOUNDS.get(first, first)) + "+" * len(others)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def shorten(text: str, most: int) -> str:
    """The end of a long name, which tells layers apart."""
    return text if len(text) <= most else "…" + text[1 - most :]


def wrap(text: str, indent: str = "") -> str:
    """Lines of at most 80 columns, the further ones indented."""
    return wrap_line(text, COLUMNS, indent)
