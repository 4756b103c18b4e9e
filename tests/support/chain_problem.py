"""A chain of four layers to plan: every width costs what a formula says."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from edgeprune.core.latency.correction import Correction
from edgeprune.core.latency.layers import Extent, Layer, LayerShape
from edgeprune.core.latency.table import LatencyPoint, LatencyTable, TableKey
from edgeprune.core.planning.candidates import probe_shapes
from edgeprune.core.planning.limits import Limits
from edgeprune.core.planning.planner import Problem

NAMES = ("a", "b", "c")
WIDTHS = tuple(range(8, 65, 8))
KEY = TableKey("device", "onnxruntime", "1.0", "fp32", 1)
PLAIN, UNLIMITED = Correction(), Limits()
Cost = Callable[[LayerShape], float]


def by_macs(shape: LayerShape) -> float:
    """A nanosecond a MAC, 1 MHz of them a ms."""
    return shape.macs / 1e6


def extent(*groups: str, constant: int = 0) -> Extent:
    return Extent(constant, tuple((1, (group,)) for group in groups))


def make_chain(
    cost: Cost = by_macs, correction: Correction = PLAIN, limits: Limits = UNLIMITED, rate: float = 1.0
) -> Problem:
    """Groups a, b and c of 64 channels; a channel less costs `rate`, twice and three times as much loss."""
    ends = [extent(constant=3), *(extent(name) for name in NAMES), extent(constant=10)]
    shapes = [LayerShape("conv", 64, 64, (3, 3), (1, 1), 1, (8, 8), (1, 1))] * 4
    layers = tuple(
        Layer(f"l{index}", shape, cin, cout)
        for index, (shape, (cin, cout)) in enumerate(zip(shapes, itertools.pairwise(ends), strict=True))
    )
    points = [
        LatencyPoint(shape, cost(shape), 0, 0) for shape in sorted(probe_shapes(layers, dict.fromkeys(NAMES, WIDTHS)))
    ]
    loss = {name: {width: place * rate * (64 - width) for width in WIDTHS} for place, name in enumerate(NAMES, 1)}
    return Problem(layers, loss, LatencyTable(KEY, tuple(points)), correction, limits)


FULL = dict.fromkeys(NAMES, 64)
