"""What a net's predicted ms are made of before and after a cut, and how much each part did not shrink as the
multiply-accumulates (MACs) did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.core.explaining.waterfall import (
    BESIDE,
    CACHE,
    JOINS,
    LAYER_OVERHEAD,
    LAYERS,
    OVERHEAD,
    PARTS,
    PLACEMENT,
    STAIRCASE,
)
from edgeprune.core.latency.layers import JOIN, Layer, LayerShape
from edgeprune.core.latency.table import LatencyPoint, LatencyTable, find_family
from edgeprune.core.planning.limits import count_layer
from edgeprune.core.planning.planner import Problem, predict_ms

LEAST_POINTS = 3
"""Fewer measured widths of a layer tell no line from its steps."""


@dataclass(frozen=True)
class Cost:
    """What a layer costs within a net: `scaled_ms` follows what it took alone, `fetched_ms` comes with its weights."""

    shape: LayerShape
    scaled_ms: float
    fetched_ms: float

    @property
    def total_ms(self) -> float:
        """Both."""
        return self.scaled_ms + self.fetched_ms


@dataclass(frozen=True)
class Line:
    """The straight line of a layer's ms over its MACs, all widths together: what it takes however few channels it has,
    and what each MAC takes beyond that.
    """

    overhead_ms: float
    per_mac_ms: float

    def overhead_share(self, shape: LayerShape) -> float:
        """The share of what a layer takes by this line that does not fall with its MACs."""
        whole_ms = self.overhead_ms + self.per_mac_ms * shape.macs
        return self.overhead_ms / whole_ms if whole_ms > 0 else 0.0


@dataclass(frozen=True)
class Parts:
    """MACs and predicted ms before and after a cut, and the ms that each part costs beyond its share of the MACs left.

    `lost_ms` adds up to `pruned_ms - unpruned_ms * macs_after / macs_before`.
    """

    macs_before: int
    macs_after: int
    unpruned_ms: float
    pruned_ms: float
    lost_ms: Mapping[str, float]


def split_parts(problem: Problem, widths: Mapping[str, int]) -> Parts | None:
    """Split what a net of these widths is predicted to cost; None where no layer has MACs.

    A part that took `c0` ms of the unpruned net and takes `c1` of the cut one has lost `c1 - c0 * r`, where `r` is the
    share of the net's MACs that is left. Of a layer that is `s0 * (r_l - r)`, by its own MACs' share `r_l`, and
    `s1 - s0 * r_l`, which is told into the layer's overhead and its steps by a line through all of its widths.
    """
    whole = {group: max(losses) for group, losses in problem.loss.items()}
    before = [_price(problem, layer, whole) for layer in problem.layers]
    after = [_price(problem, layer, widths) for layer in problem.layers]
    macs_before, macs_after = (sum(cost.shape.macs for cost in costs) for costs in (before, after))
    if not macs_before:
        return None
    rest = macs_after / macs_before
    lines = {} if problem.table is None else find_lines(problem.table)
    lost = dict.fromkeys(PARTS, 0.0)
    for old, new in zip(before, after, strict=True):
        for name, ms in _split_layer(old, new, rest, lines.get(find_family(old.shape))).items():
            lost[name] += ms
    correction = problem.correction
    moved = [sum(cost.shape.megavalues for cost in costs) for costs in (before, after)]
    lost[CACHE] += correction.beyond_ms(moved[1]) - correction.beyond_ms(moved[0]) * rest
    lost[OVERHEAD] += correction.offset_ms * (1 - rest)
    return Parts(macs_before, macs_after, predict_ms(problem, whole), predict_ms(problem, widths), lost)


def _split_layer(old: Cost, new: Cost, rest: float, line: Line | None) -> dict[str, float]:
    if old.shape.op == JOIN:
        return {JOINS: new.total_ms - old.total_ms * rest}
    if not old.shape.macs:
        return {BESIDE: new.total_ms - old.total_ms * rest}
    own_rest = new.shape.macs / old.shape.macs
    beyond_own = new.scaled_ms - old.scaled_ms * own_rest
    parts = {PLACEMENT: old.scaled_ms * (own_rest - rest), CACHE: new.fetched_ms - old.fetched_ms * rest}
    if new.shape.is_gone:
        return parts
    if line is None:
        return {**parts, LAYERS: beyond_own}
    overhead = old.scaled_ms * line.overhead_share(old.shape) * (1 - own_rest)
    return {**parts, LAYER_OVERHEAD: overhead, STAIRCASE: beyond_own - overhead}


def _price(problem: Problem, layer: Layer, widths: Mapping[str, int]) -> Cost:
    shape = layer.at(widths)
    total_ms = problem.price(shape).latency_ms
    if not shape.has_weights:
        return Cost(shape, total_ms, 0.0)
    fetched_ms = min(problem.correction.per_megaweight_ms * shape.weights / 1e6, total_ms)
    return Cost(shape, total_ms - fetched_ms, fetched_ms)


def find_lines(table: LatencyTable) -> dict[LayerShape, Line]:
    """The line of each family of layers that has enough widths in the table, by least squares."""
    points: dict[LayerShape, list[LatencyPoint]] = {}
    for point in table.points:
        points.setdefault(find_family(point.shape), []).append(point)
    lines = {family: _fit_line(own) for family, own in points.items()}
    return {family: line for family, line in lines.items() if line is not None}


def _fit_line(points: Sequence[LatencyPoint]) -> Line | None:
    macs, ms = np.array([(point.shape.macs, point.latency_ms) for point in points], dtype=float).T
    if len(set(macs)) < LEAST_POINTS:
        return None
    slope, intercept = np.polyfit(macs / macs.max(), ms, 1)
    overhead_ms = float(np.clip(intercept, 0.0, ms.min()))
    return Line(overhead_ms, max(0.0, float(slope)) / float(macs.max()))


def describe_layers(problem: Problem, widths: Mapping[str, int]) -> list[dict[str, object]]:
    """A row for each convolution and linear layer, before and after: shape, MACs, bytes of weights, predicted ms."""
    whole = {group: max(losses) for group, losses in problem.loss.items()}
    return [
        {"layer": layer.name, "groups": sorted(layer.cout.groups)}
        | _describe_side(problem, layer, whole, "before")
        | _describe_side(problem, layer, widths, "after")
        for layer in problem.layers
        if layer.shape.has_weights
    ]


def _describe_side(problem: Problem, layer: Layer, widths: Mapping[str, int], side: str) -> dict[str, object]:
    shape = layer.at(widths)
    weight_bytes = count_layer(layer, shape, problem.limits.precision).weight_bytes
    figures = {
        "shape": "gone" if shape.is_gone else shape.describe(),
        "macs": 0 if shape.is_gone else shape.macs,
        "weight_bytes": weight_bytes,
        "ms": problem.price(shape).latency_ms,
    }
    return {f"{name}_{side}": value for name, value in figures.items()}


def list_group_layers(layers: Sequence[Layer], group: str) -> list[str]:
    """Names of the convolutions and linear layers whose output channels are the group's, or that are in the branch."""
    return [layer.name for layer in layers if layer.shape.has_weights and group in layer.cout.groups]
