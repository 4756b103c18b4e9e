"""Which layer shapes to measure next: those of kinds whose measurements surprised the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import hypot, sqrt
from zlib import crc32

from edgeprune.core.latency.layers import Layer, LayerShape
from edgeprune.core.latency.table import INTERPOLATED, LatencyPoint, LatencyTable, Prediction, find_family
from edgeprune.core.planning.candidates import Widths, layer_shapes
from edgeprune.errors import ProfileError

Surprises = dict[LayerShape, list[float]]
"""By kind of layer: how far measured latencies in ms lay off what had been predicted of them."""


def note_surprises(surprises: Surprises, before: LatencyTable, points: Iterable[LatencyPoint]) -> None:
    """Compare what was measured with what a table had predicted by interpolation."""
    for point in points:
        try:
            prediction = before.predict(point.shape)
        except ProfileError:
            continue
        if prediction.kind == INTERPOLATED:
            surprises.setdefault(find_family(point.shape), []).append(prediction.latency_ms - point.latency_ms)


def find_uncertain(
    table: LatencyTable, shapes: Iterable[LayerShape], surprises: Surprises, most: int
) -> list[LayerShape]:
    """At most so many shapes that lie between measured ones, those of the most surprising kinds of layer first.

    A staircase need not rise: a width that fills a kernel's blocks may be faster than a narrower one. So of each kind
    shapes are taken in no order of size, and what surprises they bring says whether to go on with it.
    """
    between = [(shape, prediction) for shape in shapes if (prediction := table.predict(shape)).kind == INTERPOLATED]
    between.sort(key=lambda pair: (-_doubt_ms(pair[0], pair[1], surprises), crc32(repr(pair[0]).encode())))
    return [shape for shape, _ in between[:most]]


def predict_uncertainty(table: LatencyTable, layers: Iterable[Layer], widths: Widths, surprises: Surprises) -> float:
    """How far interpolation may miss a net of any widths, as a share of the unpruned one's layers.

    Each layer by the surprises of its kind, weighed by how many of its shapes are not measured, added as independent
    errors.
    """
    doubts, whole_ms = list[float](), 0.0
    for layer in layers:
        predictions = {shape: table.predict(shape) for shape in layer_shapes(layer, widths)}
        between = [
            _doubt_ms(shape, prediction, surprises)
            for shape, prediction in predictions.items()
            if prediction.kind == INTERPOLATED
        ]
        doubts.append(sqrt(sum(doubt * doubt for doubt in between) / max(1, len(predictions))))
        whole_ms += table.predict(layer.shape).latency_ms
    return hypot(*doubts) / whole_ms


def _doubt_ms(shape: LayerShape, prediction: Prediction, surprises: Mapping[LayerShape, list[float]]) -> float:
    """How far an interpolated latency may be off: as others of its kind were, or half the interval that it spans."""
    errors = surprises.get(find_family(shape))
    if errors is None:
        return (prediction.high_ms - prediction.low_ms) / 2
    return sqrt(sum(error * error for error in errors) / len(errors))
