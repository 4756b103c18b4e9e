"""Measuring where a table is least certain, and what layers cost less together than alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import ceil

import pytest

from edgeprune.core.candidates import layer_shapes, probe_shapes
from edgeprune.core.latency import (
    LatencyPoint,
    LatencyTable,
    TableKey,
    accept_table,
    merge_tables,
    parse_table,
    render_table,
)
from edgeprune.core.layers import JOIN, Extent, Layer, LayerShape, find_joins, join_ends
from edgeprune.core.refine import find_uncertain, predict_uncertainty
from edgeprune.errors import ProfileError

KEY = TableKey("board", "onnxruntime", "1.0", "fp32", 1)
WIDTHS = {"a": tuple(range(4, 65, 4)), "b": tuple(range(4, 65, 4))}


def extent(*groups: str, constant: int = 0) -> Extent:
    return Extent(constant, ((1, groups),) if groups else ())


def conv(name: str, cin: Extent, cout: Extent, size: int = 8) -> Layer:
    return Layer(name, LayerShape("conv", 64, 64, (3, 3), (1, 1), 1, (size, size), (1, 1)), cin, cout)


LAYERS = (conv("first", extent(constant=3), extent("a")), conv("second", extent("a"), extent("b")))


def stairs(shape: LayerShape) -> float:
    """Blocks of 16 output and 8 input channels, as kernels have them."""
    return 1e-3 * ceil(shape.cout / 16) * ceil(shape.cin / 8)


def measure(shapes: set[LayerShape]) -> LatencyTable:
    return LatencyTable(KEY, tuple(LatencyPoint(one, stairs(one), stairs(one), stairs(one)) for one in sorted(shapes)))


def test_refining_finds_the_stairs_with_few_measurements() -> None:
    layers = tuple(replace(layer, shape=layer.at({"a": 64, "b": 64})) for layer in LAYERS)
    every = probe_shapes(layers, WIDTHS, 10**9)
    table = measure(probe_shapes(layers, WIDTHS, 30))
    errors = [predict_uncertainty(table, layers, WIDTHS)]
    while errors[-1] > 0.05:
        more = find_uncertain(table, every, 10)
        assert more
        assert not set(more) & table.shapes
        table = merge_tables(table, measure(set(more)))
        errors.append(predict_uncertainty(table, layers, WIDTHS))
    assert errors[0] > 0.1
    assert len(table.points) < 0.8 * len(every)
    whole = sum(stairs(layer.shape) for layer in layers)
    missed = [
        abs(sum(table.predict(shape).latency_ms - stairs(shape) for shape in shapes))
        for shapes in product(*(layer_shapes(layer, WIDTHS) for layer in layers))
    ]
    assert max(missed) <= 2 * errors[-1] * whole


def test_measured_shapes_leave_nothing_uncertain() -> None:
    every = probe_shapes(LAYERS, WIDTHS, 10**9) | {layer.shape for layer in LAYERS}
    table = measure(every)
    assert find_uncertain(table, every, 10) == []
    assert predict_uncertainty(table, LAYERS, WIDTHS) == 0


def test_of_a_gap_the_middle_is_measured() -> None:
    table = measure({LayerShape("linear", 10, width) for width in (8, 64)})
    between = {LayerShape("linear", 10, width) for width in range(8, 65, 8)}
    assert [shape.cout for shape in find_uncertain(table, between, 5)] == [40]


def test_layers_join_where_a_convolution_reads_another() -> None:
    inside = Extent(0, ((1, ("b", "branch")),)), Extent(0, ((1, ("a", "branch")),))
    layers = [
        conv("stem", extent(constant=3), extent("a"), 16),
        conv("inner", Extent(0, ((1, ("a", "branch")),)), inside[0]),
        conv("outer", *inside),
        conv("head", extent("a"), extent("c"), 4),
        Layer("last", LayerShape("linear", 64, 10), extent("c"), extent(constant=10)),
    ]
    joins = find_joins(layers)
    assert [join.name for join in joins] == ["stem>", "inner>", "outer>"]
    stem, inner, _ = joins
    assert stem.at({"a": 24}) == LayerShape(JOIN, 24, 24, (1, 1), (1, 1), 1, (16, 16), (0, 0))
    assert inner.at({"b": 8, "a": 8, "branch": 0}).is_gone
    assert stem.shape.values == stem.shape.macs == 0
    first, second = join_ends(stem.at({"a": 24}))
    assert (first.op, first.cout, second.cin) == ("conv", 24, 24)
    assert first.output_size == second.size == (16, 16)


def test_a_join_may_save_time_and_lies_between_measured_ones() -> None:
    shapes = [LayerShape(JOIN, width, width, (1, 1), (1, 1), 1, (8, 8), (0, 0)) for width in (16, 32)]
    points = [
        LatencyPoint(shape, saved, 2 * saved, 0.0, (1.0,)) for shape, saved in zip(shapes, (-2.0, -4.0), strict=True)
    ]
    table = parse_table(render_table(LatencyTable(KEY, tuple(points))), "here")
    assert table.points == tuple(points)
    assert table.predict(replace(shapes[0], cin=24, cout=24)).latency_ms == pytest.approx(-3.0)


def test_a_table_of_another_device_is_refused_unless_the_user_insists_and_marked_then() -> None:
    table = measure({LayerShape("linear", 4, 4)})
    assert accept_table(table, KEY, insist=False) is table
    here = replace(KEY, device="mine", threads=4)
    with pytest.raises(ProfileError, match=r"device board instead of mine; threads 1 instead of 4.*--insist"):
        accept_table(table, here, insist=False)
    accepted = accept_table(table, here, insist=True)
    assert (accepted.key, accepted.points) == (here, table.points)
    assert accepted.conditions["foreign"] == "device board instead of mine; threads 1 instead of 4"
