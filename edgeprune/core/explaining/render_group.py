"""An explanation as text for a terminal of 80 columns: one group, layer or channel."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.core.cost import find_cost_unit, per_cost, show_cost
from edgeprune.core.explaining.render import Table, describe_width, wrap
from edgeprune.core.planning.plan import BRANCH
from edgeprune.core.text import render_columns
from edgeprune.errors import UsageError

MOST_CHANNELS = 40
"""Channels that are listed of a group."""


@dataclass(frozen=True)
class Place:
    """What is asked about: a layer or a group by name, and one of its channels."""

    name: str
    groups: tuple[Mapping[str, Any], ...]
    layer: Mapping[str, Any] | None = None
    channel: int | None = None


def find_place(plan: Mapping[str, Any], text: str) -> Place:
    """A group, a layer, or `NAME:CHANNEL`.

    Raises:
        UsageError: no such group or layer, or no such channel of it; says what is near.
    """
    groups = {row["group"]: row for row in plan["groups"]}
    layers = {row["layer"]: row for row in plan["layers"]}
    name, _, number = text.rpartition(":")
    known = groups.keys() | layers.keys()
    if text in known:
        name, number = text, ""
    elif not number.isdecimal() or name not in known:
        close = difflib.get_close_matches(name if number.isdecimal() else text, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else "`edgeprune explain --run DIR` lists the groups"
        raise UsageError(f"explain: no group or layer {text!r} in this net; {hint}")
    layer = layers.get(name)
    names = [name] if name in groups else layer["groups"] if layer else []
    own = sorted((groups[each] for each in names if each in groups), key=lambda row: row["kind"] == BRANCH)
    place = Place(name, tuple(own), layer, int(number) if number else None)
    _check_channel(place)
    return place


def _check_channel(place: Place) -> None:
    if place.channel is None:
        return
    if not place.groups or place.groups[0]["kind"] == BRANCH:
        raise UsageError(
            f"explain: {place.name} has no channels that may be cut one by one; leave out :{place.channel}"
        )
    size = place.groups[0]["size"]
    if place.channel >= size:
        raise UsageError(f"explain: {place.name} has channels 0 to {size - 1}, and no {place.channel}")


def render_place(document: Mapping[str, Any], place: Place) -> str:
    """All that is known of it."""
    plan, parts = document["plan"], list[str]()
    if place.layer is not None:
        parts.append(_render_layer(place.layer))
    if not place.groups:
        return "\n\n".join([*parts, f"{place.name}: its output channels belong to no group that may be cut"])
    if place.channel is not None:
        return "\n\n".join([*parts, render_channel(plan, place.groups[0], place.channel, document.get("excited"))])
    for row in place.groups:
        parts += [_render_head(plan, row), _render_curve(row), *_render_channels(plan, row, document.get("excited"))]
    return "\n\n".join(parts)


def select(document: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """The part of a document that is about a place, for `--json`."""
    excited = document.get("excited") or {}
    return {
        "name": place.name,
        "channel": place.channel,
        "layer": place.layer,
        "groups": list(place.groups),
        "excited": {row["group"]: excited[row["group"]] for row in place.groups if row["group"] in excited},
    }


def _render_layer(layer: Mapping[str, Any]) -> str:
    table: Table = [("", "before", "after")]
    table += [("shape", layer["shape_before"], layer["shape_after"])]
    table += [("MACs", *(f"{layer[f'macs_{side}']:,}" for side in ("before", "after")))]
    table += [("bytes of weights", *(f"{layer[f'weight_bytes_{side}']:,}" for side in ("before", "after")))]
    table += [(f"predicted {find_cost_unit()}", *(show_cost(layer[f"ms_{side}"]) for side in ("before", "after")))]
    return f"layer {layer['layer']}\n{render_columns(table)}"


def _render_head(plan: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    kind = "branch" if row["kind"] == BRANCH else "group"
    lines = [wrap(f"{kind} {row['group']}: {describe_width(row)}; {row['bound']}", "  ")]
    if row["layers"]:
        lines.append(wrap(f"layers: {', '.join(row['layers'])}", "  "))
    if row["gain_per_ms"] is not None:
        lines.append(f"price: a wider one takes off {row['gain_per_ms']:.4g} of loss per {per_cost()} that it costs")
    if row["cost_per_ms"] is not None:
        lines.append(f"price: a narrower one adds {row['cost_per_ms']:.4g} of loss per {per_cost()} that it saves")
    for side in ("more", "less"):
        width, other = row[f"width_at_{side}"], plan[side]
        text = other["note"] if width is None else "the same" if width == row["planned_width"] else _say(row, width)
        lines.append(wrap(f"at {other['share']:+.0%} of the budget: {text}", "  "))
    return "\n".join(lines)


def _say(row: Mapping[str, Any], width: int) -> str:
    if row["kind"] == BRANCH:
        return "kept" if width else "cut"
    return f"{width} of {row['size']} channels"


def _render_curve(row: Mapping[str, Any]) -> str:
    marks = {row["width_at_less"]: "at less", row["width_at_more"]: "at more", row["planned_width"]: "planned"}
    table = [("width", "loss rise", f"{find_cost_unit()} of the net", "")]
    for point in row["curve"]:
        mark = marks.get(point["width"], "")
        table.append((str(point["width"]), f"{point['loss_increase']:.4f}", show_cost(point["net_ms"]), mark))
    note = "" if not row["gone_with"] else f"\nall widths cost the same while {row['gone_with']} is cut"
    return render_columns(table) + note


def _render_channels(plan: Mapping[str, Any], row: Mapping[str, Any], excited: Mapping[str, Any] | None) -> list[str]:
    """Which channels went, and what had excited them."""
    if row["kind"] == BRANCH:
        return []
    if not row["cut"]:
        return ["no channel went"]
    cut = sorted(row["cut"], key=lambda channel: row["ranks"][channel])
    table = [("channel that went", f"{plan['importance']} score", "rank")]
    table += [_channel_cells(row, channel) for channel in cut[:MOST_CHANNELS]]
    parts = [render_columns(table)]
    if len(cut) > MOST_CHANNELS:
        parts[0] += f"\nand {len(cut) - MOST_CHANNELS} of lower scores: --json"
    own = (excited or {}).get(row["group"])
    return [*parts, *([_render_excited(row["group"], own)] if own else [])]


def _channel_cells(row: Mapping[str, Any], channel: int) -> tuple[str, str, str]:
    return str(channel), f"{row['scores'][channel]:.4g}", f"{row['ranks'][channel]} of {row['size']}"


def _render_excited(group: str, own: Mapping[str, Any]) -> str:
    lines = ["inputs of calibration_data() that excited them most, by index:"]
    for channel in own["channels"]:
        lines.append(f"  {group}:{channel['channel']}: {', '.join(map(str, channel['inputs']))}")
    return "\n".join([*lines, *([f"as pictures: {own['picture']} in the run directory"] if own["picture"] else [])])


def render_channel(
    plan: Mapping[str, Any], row: Mapping[str, Any], channel: int, excited: Mapping[str, Any] | None = None
) -> str:
    """Whether one channel went, and at which width it would have stayed."""
    rank, score, went = row["ranks"][channel], row["scores"][channel], channel in row["cut"]
    fate = "stays" if not went else f"went with {row['gone_with']}" if row["gone_with"] else "went"
    lines = [f"channel {channel} of {row['group']} {fate}"]
    lines.append(f"{plan['importance']} score {score:.4g}, rank {rank} of {row['size']} (1 is the best)")
    enough = [point["width"] for point in row["curve"] if point["width"] >= rank]
    if not row["gone_with"]:
        lines.append(f"it stays at a width of {min(enough)} or more; planned: {row['planned_width']}")
    kept = [row["scores"][other] for other in _find_kept(row)]
    if went and kept:
        lines.append(f"the lowest score that was kept is {min(kept):.4g}")
    for side in ("more", "less"):
        width = row[f"width_at_{side}"]
        if width is not None and not row["gone_with"]:
            lines.append(f"at {plan[side]['share']:+.0%} of the budget it {'stays' if rank <= width else 'goes'}")
    own = [
        one for one in ((excited or {}).get(row["group"]) or {"channels": []})["channels"] if one["channel"] == channel
    ]
    lines += [f"inputs of calibration_data() that excite it most: {', '.join(map(str, one['inputs']))}" for one in own]
    return "\n".join(lines)


def _find_kept(row: Mapping[str, Any]) -> Sequence[int]:
    return [channel for channel in range(row["size"]) if channel not in set(row["cut"])]
