"""Which layer shapes to measure next: those whose latency the measured ones leave least certain."""

from __future__ import annotations

from collections.abc import Iterable
from math import hypot

from edgeprune.core.candidates import Widths, layer_shapes
from edgeprune.core.latency import INTERPOLATED, LatencyTable, find_family
from edgeprune.core.layers import Layer, LayerShape


def find_uncertain(table: LatencyTable, wanted: Iterable[LayerShape], most: int) -> list[LayerShape]:
    """At most so many shapes that lie between measured ones, the least certain first.

    Latency may jump anywhere between two measured widths, so the interval of an interpolated shape spans both. Of the
    shapes that share an interval only the middle one is given: where it lies, decides whether to look at the others.
    """
    gaps: dict[tuple[LayerShape, float, float], list[LayerShape]] = {}
    for shape in wanted:
        found = table.predict(shape)
        if found.kind == INTERPOLATED:
            gaps.setdefault((find_family(shape), found.low_ms, found.high_ms), []).append(shape)
    widest = sorted(gaps, key=lambda gap: (gap[1] - gap[2], gap[0]))[:most]
    return [sorted(gaps[gap])[len(gaps[gap]) // 2] for gap in widest]


def predict_uncertainty(table: LatencyTable, layers: Iterable[Layer], widths: Widths) -> float:
    """How far interpolation may miss a net, as a share of the unpruned one's layers.

    Half of the widest interval between measured widths of each layer, added as independent errors.
    """
    widest, whole_ms = list[float](), 0.0
    for layer in layers:
        found = [table.predict(shape) for shape in layer_shapes(layer, widths)]
        widest.append(max((one.high_ms - one.low_ms for one in found if one.kind == INTERPOLATED), default=0.0))
        whole_ms += table.predict(layer.shape).latency_ms
    return hypot(*widest) / 2 / whole_ms
