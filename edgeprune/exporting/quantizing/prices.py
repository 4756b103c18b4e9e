"""What the layers of a float file cost on a device, in float and in int8, and what it costs where the two meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import prod
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgeprune.core.latency.layers import JOIN, LayerShape, describe_linear
from edgeprune.core.planning.mixed import Merge, MixedProblem, Output, QuantizedLayer
from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.formats import Values
from edgeprune.exporting.quantizing.feeds import Feeds
from edgeprune.exporting.quantizing.observe import run_rows
from edgeprune.exporting.quantizing.weights import WeightLayer, read_nodes

PairCosts = tuple[tuple[float, float], tuple[float, float]]
"""By whether the first and the second part stay in float: `costs[first][second]`."""
CONVERSION = 0.25
"""What a conversion is taken to cost where no latency is known, as a share of a mean layer in float."""
UNIT: PairCosts = ((0.0, CONVERSION), (CONVERSION, 0.0))


@dataclass(frozen=True)
class NetShapes:
    """What a device is asked to price: the layers in order, and of each link the tensor that its second part reads."""

    layers: tuple[LayerShape, ...]
    joins: tuple[LayerShape, ...]


@dataclass(frozen=True)
class Prices:
    """Latencies in ms: of each layer in float and in int8, and of each link what it takes beside its two parts.

    `whole_ms` is what the whole net takes in float and in int8, `budget_ms` what it may take.
    """

    layers: tuple[tuple[float, float], ...]
    joins: tuple[PairCosts, ...]
    whole_ms: tuple[float, float]
    budget_ms: float


Part = TypeVar("Part", QuantizedLayer, Merge)
Pricer = Callable[[NetShapes], Prices | None]
"""Asks the device; None where it cannot tell."""


def price_nothing(_: NetShapes) -> None:
    """There is no device to ask."""


def pose_problem(path: Path, row: np.ndarray, layers: Sequence[WeightLayer], feeds: Feeds, ask: Pricer) -> MixedProblem:
    """The problem of a float file without its noises, on what the device says; `row` is one input of the file.

    What whole nets take beside their priced parts (sums, pooling) is shared out evenly. Where the device says nothing a
    float layer costs its multiply-accumulates, as a share of a mean layer, and each conversion CONVERSION.

    Raises:
        ExportError: the file does not run.
    """
    with foreign("pricing layers", path):
        (values,) = islice(run_rows(path, row[None]), 1)
    shapes = tuple(read_shape(layer, values) for layer in layers)
    merged = (_join_merged(values[tensor].shape, layers[min(sources)].axis) for sources, tensor in feeds.merges.items())
    joins = (*map(_join_read, shapes), *merged)
    prices = ask(NetShapes(shapes, tuple(joins[second] for _, second in feeds.links)))
    if prices is None:
        problem = _build(layers, feeds, _weigh(_count_macs(path, values, layers)), [UNIT] * len(feeds.links))
    else:
        problem = replace(_build(layers, feeds, prices.layers, prices.joins), budget=prices.budget_ms)
        problem = _share_rest(problem, prices.whole_ms)
    sized = zip(problem.layers, shapes, strict=True)
    return replace(
        problem, layers=tuple(replace(layer, weights=shape.weights, values=shape.values) for layer, shape in sized)
    )


def _build(
    layers: Sequence[WeightLayer], feeds: Feeds, costs: Sequence[tuple[float, float]], joins: Sequence[PairCosts]
) -> MixedProblem:
    priced = tuple(QuantizedLayer(layer.name, 0.0, *both) for layer, both in zip(layers, costs, strict=True))
    pair_costs: dict[int, dict[int, PairCosts]] = {}
    for (first, second), join in zip(feeds.links, joins, strict=True):
        between = join if max(first, second) < len(layers) else _only_conversions(join)
        pair_costs.setdefault(first, {})[second] = between
    outputs = tuple(_output(writer, pairs) for writer, pairs in pair_costs.items())
    return MixedProblem(priced, outputs, merges=tuple(map(Merge, feeds.merges)))


def _output(writer: int, pairs: Mapping[int, PairCosts]) -> Output:
    """What a part gives to its readers: two float layers save their changes of layout only if nobody else needs one."""
    return Output(
        writer=writer,
        readers=tuple(pairs),
        in_float=sum(costs[1][1] for costs in pairs.values()),
        rounded=max(costs[1][0] for costs in pairs.values()),
        int8=tuple(costs[0] for costs in pairs.values()),
    )


def _only_conversions(costs: PairCosts) -> PairCosts:
    """Of a merge nothing is known but the conversions around it."""
    (_, second), (first, _) = costs
    return (0.0, second), (first, 0.0)


def _share_rest(problem: MixedProblem, whole_ms: tuple[float, float]) -> MixedProblem:
    """What is all in float, or all in int8, then takes what was measured: parts have equal shares of the rest."""
    count = len(problem.layers)
    in_float, in_int8 = (
        (measured - problem.cost([is_float] * count)) / len(problem.parts)
        for is_float, measured in zip((True, False), whole_ms, strict=True)
    )
    return replace(
        problem,
        layers=tuple(_add_cost(layer, in_float, in_int8) for layer in problem.layers),
        merges=tuple(_add_cost(merge, in_float, in_int8) for merge in problem.merges),
    )


def _add_cost(part: Part, in_float: float, in_int8: float) -> Part:
    return replace(part, float_cost=part.float_cost + in_float, int8_cost=part.int8_cost + in_int8)


def read_shape(layer: WeightLayer, values: Values) -> LayerShape:
    """The shape of a layer of a file, given all tensors of one run."""
    source, cout = values[layer.source].shape, len(layer.weights)
    if layer.window is None:
        return describe_linear(source[-1], cout, prod(source[:-1]))
    size = tuple(map(int, np.delete(source, [0, layer.axis])))
    return layer.window.describe((layer.weights.shape[1] * layer.groups, cout), layer.groups, size)


def _join_read(reader: LayerShape) -> LayerShape:
    """The tensor that a layer reads; that of a linear one as an image of one place."""
    return _join(reader.cin, reader.size)


def _join_merged(shape: Sequence[int], axis: int) -> LayerShape:
    """A tensor `shape` `[1, ...]` with its channels on `axis`, or last where it has two dimensions."""
    channel_axis = axis % len(shape) if len(shape) > 2 else len(shape) - 1
    return _join(
        shape[channel_axis], tuple(length for place, length in enumerate(shape) if place not in (0, channel_axis))
    )


def _join(channels: int, size: tuple[int, ...]) -> LayerShape:
    size = size or (1, 1)
    ones, none = ((number,) * len(size) for number in (1, 0))
    return LayerShape(JOIN, channels, channels, ones, ones, 1, size, none)


def _count_macs(path: Path, values: Values, layers: Sequence[WeightLayer]) -> list[int]:
    written = {node.name: node.outputs[0] for node in read_nodes(path)}
    return [values[written[layer.name]].size * layer.weights[0].size for layer in layers]


def _weigh(macs: Sequence[int]) -> list[tuple[float, float]]:
    return [(layer_macs * len(macs) / sum(macs), 0.0) for layer_macs in macs]
