"""Of each group: the loss and the ms of the net at each width, what bound the width, and what another one is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeprune.core.cost import cost_name
from edgeprune.core.planning.limits import SRAM, UNITS, count_costs
from edgeprune.core.planning.planner import Problem

RECIPE, BRANCH_GONE, ONLY_OFFER, WHOLE, LOSS = "recipe", "branch", "offer", "whole", "loss"
"""What bounds a width where no limit of the budget does."""
NAMES = {**UNITS, "sram_bytes": SRAM}
"""What the limits are on, for people."""
FLAT_MS = 1e-9
"""Widths whose nets are nearer than this cost the same."""


@dataclass(frozen=True)
class Point:
    """One width of a group, all other groups as planned: the rise of the loss by this group, the latency of the net."""

    width: int
    loss_increase: float
    net_ms: float


@dataclass(frozen=True)
class Bound:
    """What keeps a group from its next wider width: names of limits, or one of the reasons above; and a sentence."""

    by: tuple[str, ...]
    text: str


def trace_curve(problem: Problem, widths: Mapping[str, int], group: str) -> tuple[Point, ...]:
    """Loss and latency over the widths on offer, ascending; only the layers that the group shapes are priced anew."""
    shaped = [layer for layer in problem.layers if group in layer.depends_on]
    others = [layer.at(widths) for layer in problem.layers if group not in layer.depends_on]
    correction = problem.correction
    others_ms = correction.offset_ms + sum(problem.price(shape).latency_ms for shape in others)
    others_megavalues = sum(shape.megavalues for shape in others)
    points = []
    for width in sorted(problem.loss[group]):
        shapes = [layer.at({**widths, group: width}) for layer in shaped]
        moved = others_megavalues + sum(shape.megavalues for shape in shapes)
        own_ms = sum(problem.price(shape).latency_ms for shape in shapes) + correction.beyond_ms(moved)
        points.append(Point(width, problem.loss[group][width], others_ms + own_ms))
    return tuple(points)


def find_gain_per_ms(curve: Sequence[Point], width: int) -> float | None:
    """The most loss that a wider width takes off per ms that it costs; None where none costs anything."""
    own = _at(curve, width)
    rates = [
        (own.loss_increase - point.loss_increase) / (point.net_ms - own.net_ms)
        for point in curve
        if point.width > width and point.net_ms - own.net_ms > FLAT_MS
    ]
    return max(rates, default=None)


def find_cost_per_ms(curve: Sequence[Point], width: int) -> float | None:
    """The least loss that a narrower width adds per ms that it saves; None where none saves anything."""
    own = _at(curve, width)
    rates = [
        (point.loss_increase - own.loss_increase) / (own.net_ms - point.net_ms)
        for point in curve
        if point.width < width and own.net_ms - point.net_ms > FLAT_MS
    ]
    return min(rates, default=None)


def _at(curve: Sequence[Point], width: int) -> Point:
    return next(point for point in curve if point.width == width)


def find_bound(problem: Problem, widths: Mapping[str, int], curve: Sequence[Point], group: str, cap_ms: float) -> Bound:
    """What bound the width of a group that did not go with a branch; `cap_ms` is what the plan was held to."""
    width, offered = widths[group], [point.width for point in curve]
    if group in problem.limits.fixed:
        return Bound((RECIPE,), f"the recipe fixes it at {problem.limits.fixed[group]}")
    if len(offered) == 1:
        return Bound((ONLY_OFFER,), "no other width is on offer")
    if width == offered[-1]:
        return Bound((WHOLE,), "nothing was cut: no narrower width is worth its loss")
    wider = next(point for point in curve if point.width > width)
    exceeded = _find_exceeded(problem, {**widths, group: wider.width}, wider.net_ms, cap_ms)
    if not exceeded:
        return Bound((LOSS,), f"{_name(wider.width, offered)} would fit and is no better, as far as the plan is proven")
    return Bound(exceeded, f"{_name(wider.width, offered)} would exceed {' and '.join(map(_say, exceeded))}")


def _find_exceeded(problem: Problem, widths: Mapping[str, int], net_ms: float, cap_ms: float) -> tuple[str, ...]:
    costs = count_costs(problem.layers, widths, problem.limits.precision)
    is_over, fits_arena = net_ms > cap_ms, problem.limits.fits_arena(widths)
    return (
        *((cost_name(),) if is_over else ()),
        *problem.limits.find_exceeded(costs),
        *(() if fits_arena else ("sram_bytes",)),
    )


def _say(limit: str) -> str:
    return f"the limit on {NAMES.get(limit, limit)}"


def _name(width: int, offered: Sequence[int]) -> str:
    return "the branch" if tuple(offered) == (0, 1) else f"{width} channels"


def rank_channels(scores: Sequence[float]) -> tuple[int, ...]:
    """The rank of each channel, 1 for the highest score; of equal ones the first is ahead, as where they are kept."""
    order = sorted(range(len(scores)), key=lambda channel: (-scores[channel], channel))
    ranks = dict(zip(order, range(1, len(scores) + 1), strict=True))
    return tuple(ranks[channel] for channel in range(len(scores)))


def scale_limits(problem: Problem, factor: float) -> Problem:
    """The problem with every limit but latency so many times as high."""
    changed = {name: max(1, int(limit * factor)) for name, limit in problem.limits.given.items()}
    arena = problem.limits.arena
    if arena is not None:
        arena = replace(arena, most_bytes=max(1, int(arena.most_bytes * factor)))
    return replace(problem, limits=replace(problem.limits, arena=arena, **changed))  # type: ignore[arg-type]
