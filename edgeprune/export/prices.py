"""What the layers of a float file cost on a device, in float and in int8, and what it costs where the two meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np

from edgeprune.core.layers import JOIN, LayerShape
from edgeprune.core.mixed import Link, MixedProblem, PairCosts, QuantizedLayer
from edgeprune.export.foreign import foreign
from edgeprune.export.observe import Values, run_rows
from edgeprune.export.weights import WeightLayer, read_nodes

CONVERSION = 0.25
"""What a conversion is taken to cost where no latency is known, as a share of a mean layer in float."""
UNIT: PairCosts = ((0.0, CONVERSION), (CONVERSION, 0.0))

Pairs = Sequence[tuple[int, int]]
"""Layers by their place, the second of which reads what the first writes."""


@dataclass(frozen=True)
class NetShapes:
    """What a device is asked to price: a net's layers in order, and for each pair the tensor that the second reads."""

    layers: tuple[LayerShape, ...]
    joins: tuple[LayerShape, ...]


@dataclass(frozen=True)
class Prices:
    """Latencies in ms: of each layer in float and in int8, and of each pair what it takes beside its two layers.

    `whole_ms` is what the whole net takes in float and in int8, `budget_ms` what it may take.
    """

    layers: tuple[tuple[float, float], ...]
    joins: tuple[PairCosts, ...]
    whole_ms: tuple[float, float]
    budget_ms: float


Pricer = Callable[[NetShapes], Prices | None]
"""Asks the device; None where it cannot tell."""


def price_nothing(_: NetShapes) -> None:
    """There is no device to ask."""


def pose_problem(path: Path, row: np.ndarray, layers: Sequence[WeightLayer], pairs: Pairs, ask: Pricer) -> MixedProblem:
    """The problem of a float file without its noises, on what the device says; `row` is one input of the file.

    Parts are scaled to add up to the whole net in its precision. A tensor that several layers write together is
    converted once: each pair has its share. Where the device says nothing a float layer costs its multiply-accumulates,
    as a share of a mean layer, and each conversion CONVERSION.

    Raises:
        ExportError: the file does not run.
    """
    with foreign("pricing layers", path):
        (values,) = islice(run_rows(path, row[None]), 1)
    shapes = tuple(read_shape(layer, values) for layer in layers)
    prices = ask(NetShapes(shapes, tuple(_join(shapes[second]) for _, second in pairs)))
    if prices is None:
        return _build(layers, pairs, _weigh(_count_macs(path, values, layers)), [UNIT] * len(pairs))
    found = _build(layers, pairs, prices.layers, prices.joins)
    return _scale(replace(found, budget=prices.budget_ms), prices.whole_ms)


def _build(
    layers: Sequence[WeightLayer], pairs: Pairs, costs: Sequence[tuple[float, float]], joins: Sequence[PairCosts]
) -> MixedProblem:
    writers = Counter(second for _, second in pairs)
    priced = (QuantizedLayer(layer.name, 0.0, *both) for layer, both in zip(layers, costs, strict=True))
    links = (
        Link(first, second, _times(join, 1 / writers[second]))
        for (first, second), join in zip(pairs, joins, strict=True)
    )
    return MixedProblem(tuple(priced), tuple(links))


def _scale(problem: MixedProblem, whole_ms: tuple[float, float]) -> MixedProblem:
    """What is all in float, or all in int8, then takes what was measured."""
    count = len(problem.layers)
    in_float, in_int8 = (
        measured / parts if (parts := problem.cost([chosen] * count)) > 0 else 1.0
        for chosen, measured in zip((True, False), whole_ms, strict=True)
    )
    layers = (
        replace(one, float_cost=one.float_cost * in_float, int8_cost=one.int8_cost * in_int8) for one in problem.layers
    )
    links = (
        replace(
            link,
            costs=((link.costs[0][0] * in_int8, link.costs[0][1]), (link.costs[1][0], link.costs[1][1] * in_float)),
        )
        for link in problem.links
    )
    return replace(problem, layers=tuple(layers), links=tuple(links))


def _times(costs: PairCosts, share: float) -> PairCosts:
    (none, second), (first, both) = costs
    return (none * share, second * share), (first * share, both * share)


def read_shape(layer: WeightLayer, values: Values) -> LayerShape:
    """The shape of a layer of a file, given all tensors of one run: padding is the wider of both ends."""
    source, cout = values[layer.source].shape, len(layer.weights)
    if layer.window is None:
        plain, tokens = LayerShape("linear", source[-1], cout), prod(source[:-1])
        return plain if tokens == 1 else replace(plain, kernel=(1,), stride=(1,), size=(tokens,), padding=(0,))
    window = layer.window
    size = tuple(map(int, np.delete(source, [0, layer.axis])))
    cin = layer.weights.shape[1] * layer.groups
    return LayerShape("conv", cin, cout, window.kernel, window.stride, layer.groups, size, window.after)


def _join(reader: LayerShape) -> LayerShape:
    """The tensor that a layer reads; that of a linear one as an image of one place."""
    size = reader.size or (1, 1)
    ones, none = ((number,) * len(size) for number in (1, 0))
    return LayerShape(JOIN, reader.cin, reader.cin, ones, ones, 1, size, none)


def _count_macs(path: Path, values: Values, layers: Sequence[WeightLayer]) -> list[int]:
    written = {node.name: node.outputs[0] for node in read_nodes(path)}
    return [values[written[layer.name]].size * layer.weights[0].size for layer in layers]


def _weigh(macs: Sequence[int]) -> list[tuple[float, float]]:
    return [(one * len(macs) / sum(macs), 0.0) for one in macs]
