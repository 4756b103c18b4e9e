"""What there is to choose from: widths of groups, layer shapes to probe, whole variants to measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, prod
from types import MappingProxyType

import numpy as np

from edgeprune.core.latency.layers import BESIDE, Layer, LayerShape
from edgeprune.core.planning.plan import HEADS, ChannelGroup
from edgeprune.errors import PlanError

Widths = Mapping[str, Sequence[int]]

MAX_CHOICES = 16
"""Widths offered for one group; a larger group gets a coarser step."""
MAX_COMBINATIONS = 4096
"""Above this many joint widths a layer is followed by its total input channels alone."""
SEGMENTS = 8
DRAWS = 16
"""Random nets drawn for each that is measured."""
SAMENESS = 4.0
"""How near the widths of a random net lie to their mean: the sum of the parameters of a beta distribution."""
CHEAPEST = 0.2
"""The least price of a net to measure, as a share of the full one."""
LEAST_SHARE = 0.125
"""No group is offered less than this share of its channels: thinner layers train badly and hardly run faster."""


@dataclass(frozen=True)
class WidthRule:
    """What the user asks of a group: multiples of `step`, `least` channels or more, or `fixed` channels."""

    step: int | None = None
    least: int = 1
    fixed: int | None = None


FREE = WidthRule()


def candidate_widths(
    groups: Iterable[ChannelGroup],
    layers: Iterable[Layer],
    step: int,
    rules: Mapping[str, WidthRule] = MappingProxyType({}),
) -> dict[str, tuple[int, ...]]:
    """Widths on offer by group that may be cut: multiples of `step` (coarser for large groups), and all.

    Attention heads go one by one. A residual branch may go, unless one of its layers is fed by too many groups to be
    planned with it. A group whose rule fixes its width is offered that one, and all to compare with.

    Raises:
        PlanError: a rule fixes a width that its group cannot have.
    """
    free = [group for group in groups if not group.frozen]
    widths = {group.name: _offer(group, step, rules.get(group.name, FREE)) for group in free}
    crowded = frozenset[str]().union(*(layer.depends_on for layer in layers if not is_joint(layer, widths)))
    return widths | {group.name: (group.size,) for group in free if group.is_branch and group.name in crowded}


def _offer(group: ChannelGroup, step: int, rule: WidthRule) -> tuple[int, ...]:
    if rule.fixed is None:
        usual = 1 if group.kind == HEADS else _step(group.size, step)
        return group.widths(rule.step or usual, max(rule.least, _least(group.size)))
    if (nearest := find_nearest_width(group, rule.fixed)) != rule.fixed:
        raise PlanError(f"group {group.name!r}: cannot have {rule.fixed} channels; the nearest width is {nearest}")
    return tuple(sorted({rule.fixed, group.size}))


def find_nearest_width(group: ChannelGroup, width: int) -> int:
    """The width that a group can have which is nearest to one that is asked for; that itself where it can have it."""
    return min(group.widths(1), key=lambda possible: abs(possible - width))


def _step(size: int, step: int) -> int:
    return step * max(1, -(-size // (step * MAX_CHOICES)))


def _least(size: int) -> int:
    return max(1, round(size * LEAST_SHARE))


def is_joint(layer: Layer, widths: Widths) -> bool:
    """Whether every combination of the layer's group widths is looked at; else its total input channels are."""
    return prod(len(widths[group]) for group in layer.depends_on) <= MAX_COMBINATIONS


def joint_choices(layer: Layer, widths: Widths) -> list[dict[str, int]]:
    """Every combination of widths of the groups that the layer depends on."""
    groups = sorted(layer.depends_on)
    return [
        dict(zip(groups, combination, strict=True)) for combination in product(*(widths[group] for group in groups))
    ]


def input_knots(layer: Layer, widths: Widths) -> list[int]:
    """Total input channels at which a layer fed by many groups is looked at."""
    least = layer.cin.at({group: min(widths[group]) for group in layer.cin.groups})
    most = layer.cin.at({group: max(widths[group]) for group in layer.cin.groups})
    return sorted({round(float(knot)) for knot in np.linspace(least, most, SEGMENTS + 1)})


def output_choices(layer: Layer, widths: Widths) -> list[dict[str, int]]:
    """Widths of the groups on a layer's output side."""
    groups = sorted(layer.sides)
    return [
        dict(zip(groups, combination, strict=True)) for combination in product(*(widths[group] for group in groups))
    ]


def shape_at_knot(layer: Layer, cin: int, output: Mapping[str, int]) -> LayerShape:
    """The layer with `cin` input channels in total and the given output side."""
    return layer.with_input(cin, output)


def layer_shapes(layer: Layer, widths: Widths) -> set[LayerShape]:
    """Every shape of a layer that the planner asks the latency table for, if there is anything to time alone."""
    if layer.shape.op == BESIDE:
        return set()
    if is_joint(layer, widths):
        shapes = {layer.at(choice) for choice in joint_choices(layer, widths)}
    else:
        outputs = output_choices(layer, widths)
        shapes = {shape_at_knot(layer, knot, output) for knot in input_knots(layer, widths) for output in outputs}
    return {shape for shape in shapes if not shape.is_gone}


def probe_shapes(layers: Iterable[Layer], widths: Widths, most: float = inf) -> set[LayerShape]:
    """Shapes to measure: all that the planner needs, or every second, third, ... width so that at most `most` remain.

    The ends of each range stay, so that whatever is left out lies between two measured widths; and all numbers of
    heads, of filter groups or of tokens, as layers that differ in these are different kinds.
    """
    every = list(layers)
    kinds = frozenset[str]().union(*(layer.kinds for layer in every))
    for jump in range(1, MAX_CHOICES + 1):
        thinned = {
            group: values if group in kinds else sorted({*values[::jump], values[-1]})
            for group, values in widths.items()
        }
        shapes = {shape for layer in every for shape in layer_shapes(layer, thinned)}
        if len(shapes) <= most:
            break
    return shapes


def draw_variants(
    widths: Widths, price: Callable[[dict[str, int]], float], count: int, seed: int
) -> list[dict[str, int]]:
    """Whole nets to measure, `count` in all: the full one, and others of random widths at prices evenly below its own.

    Independent random widths would nearly all give nets of middling price, so the groups of a net have a common mean.
    Nets below `CHEAPEST` of the full price are left out: nobody plans there.
    """
    generator = np.random.default_rng(seed)
    full = {group: values[-1] for group, values in widths.items()}
    nets = [full]
    for mean in generator.uniform(0.02, 0.98, size=DRAWS * count):
        places = generator.beta(SAMENESS * mean, SAMENESS * (1 - mean), size=len(widths))
        nets.append(
            {
                group: values[min(int(place * len(values)), len(values) - 1)]
                for (group, values), place in zip(widths.items(), places, strict=True)
            }
        )
    nets = list({tuple(net.values()): net for net in nets}.values())
    prices = np.array([price(net) for net in nets])
    goals = np.linspace(prices[0], CHEAPEST * prices[0], min(count, len(nets)))
    picks = [0]
    for goal in goals[1:]:
        rest = [place for place in range(len(nets)) if place not in picks]
        picks.append(min(rest, key=lambda place: abs(prices[place] - goal)))
    return [nets[place] for place in picks]
