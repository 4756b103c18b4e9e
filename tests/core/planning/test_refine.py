"""Measuring where a table is least certain, and what layers cost less together than alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil

import numpy as np
import pytest

from edgeprune.core.latency.layers import JOIN, Extent, Layer, LayerShape, find_joins, join_ends
from edgeprune.core.latency.table import (
    LatencyPoint,
    LatencyTable,
    TableKey,
    accept_table,
    find_family,
    merge_tables,
    parse_table,
    render_table,
)
from edgeprune.core.planning.candidates import probe_shapes
from edgeprune.core.planning.refine import Surprises, find_uncertain, note_surprises, predict_uncertainty
from edgeprune.errors import ProfileError

KEY = TableKey("board", "onnxruntime", "1.0", "fp32", 1)
WIDTHS = {"a": tuple(range(4, 65, 4)), "b": tuple(range(4, 65, 4))}


def extent(*groups: str, constant: int = 0) -> Extent:
    return Extent(constant, ((1, groups),) if groups else ())


def conv(name: str, cin: Extent, cout: Extent, size: int = 8) -> Layer:
    return Layer(name, LayerShape("conv", 64, 64, (3, 3), (1, 1), 1, (size, size), (1, 1)), cin, cout)


LAYERS = (conv("first", extent(constant=3), extent("a")), conv("second", extent("a"), extent("b")))


def stairs(shape: LayerShape) -> float:
    """Blocks of 16 output channels, and four times as long wherever a block is not full."""
    return 1e-3 * ceil(shape.cout / 16) * ceil(shape.cin / 8) * (4 if shape.cout % 16 else 1)


def even(shape: LayerShape) -> float:
    """In proportion to the products that it computes."""
    return 1e-4 * shape.cin * shape.cout


def measure(shapes: set[LayerShape], cost: Callable[[LayerShape], float] = stairs) -> LatencyTable:
    return LatencyTable(KEY, tuple(LatencyPoint(one, cost(one), cost(one), cost(one)) for one in sorted(shapes)))


def refine(cost: Callable[[LayerShape], float], tolerance: float) -> tuple[LatencyTable, list[float]]:
    """A table that was refined until the tolerance, and how uncertain it was at each step."""
    layers = tuple(replace(layer, shape=layer.at({"a": 64, "b": 64})) for layer in LAYERS)
    every, surprises = probe_shapes(layers, WIDTHS), Surprises()
    table = measure(probe_shapes(layers, WIDTHS, 30), cost)
    errors = [predict_uncertainty(table, layers, WIDTHS, surprises)]
    while errors[-1] > tolerance and (more := find_uncertain(table, every, surprises, 25)):
        assert not set(more) & table.shapes
        added = measure(set(more), cost)
        note_surprises(surprises, table, added.points)
        table = merge_tables(table, added)
        errors.append(predict_uncertainty(table, layers, WIDTHS, surprises))
    return table, errors


def test_refining_ends_where_interpolation_was_right_all_along() -> None:
    """Cost in proportion is what linear interpolation gives: intervals are wide at first, but nothing surprises."""
    table, errors = refine(even, 0.02)
    assert errors[0] > 0.02 > errors[-1]
    assert len(table.points) < 0.6 * len(probe_shapes(LAYERS, WIDTHS))


def test_refining_goes_on_where_widths_between_are_dearer_than_both_ends() -> None:
    """The widths measured first all fill their blocks: no interval shows what those between cost."""
    table, errors = refine(stairs, 0.05)
    every = probe_shapes(LAYERS, WIDTHS)
    assert max(errors) > 0.05 >= errors[-1]
    missed = [table.predict(shape).latency_ms - stairs(shape) for shape in every]
    whole = sum(stairs(layer.at({"a": 64, "b": 64})) for layer in LAYERS)
    assert float(np.sqrt(np.mean(np.square(missed)))) <= 0.05 * whole


def test_measured_shapes_leave_nothing_uncertain() -> None:
    every = probe_shapes(LAYERS, WIDTHS) | {layer.shape for layer in LAYERS}
    table = measure(every)
    assert find_uncertain(table, every, Surprises(), 10) == []
    assert predict_uncertainty(table, LAYERS, WIDTHS, Surprises()) == 0


def test_kinds_of_layers_that_surprise_come_first() -> None:
    calm, wild = ({LayerShape("linear", cin, width) for width in range(8, 65, 8)} for cin in (10, 20))
    wild = {replace(shape, op="conv") for shape in wild}
    ends = {shape for shape in calm | wild if shape.cout in (8, 64)}
    surprises: Surprises = {find_family(next(iter(calm))): [1e-5], find_family(next(iter(wild))): [0.5, -0.5]}
    assert {shape.op for shape in find_uncertain(measure(ends), calm | wild, surprises, 6)} == {"conv"}


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


def attention(cin: int, cout: int, heads: int) -> LayerShape:
    return LayerShape("attention", cin, cout, (1, 1), (1, 1), heads, (64, 64), (0, 0))


def test_attention_is_interpolated_among_nets_with_as_many_heads() -> None:
    """Widths of keys and values that go together were measured together only; others on a grid."""
    together = measure({attention(width, width, heads) for width in (8, 16) for heads in (2, 4)}, even)
    assert together.predict(attention(12, 12, 2)).latency_ms == pytest.approx(1e-4 * (64 + 256) / 2)
    with pytest.raises(ProfileError, match="no layer of this kind"):
        together.predict(attention(12, 12, 3))
    grid = measure({attention(cin, cout, 2) for cin in (8, 16) for cout in (8, 16)}, even)
    assert grid.predict(attention(12, 14, 2)).latency_ms == pytest.approx(1e-4 * 12 * 14)
    with pytest.raises(ProfileError, match="outside"):
        grid.predict(attention(20, 8, 2))


def test_every_number_of_heads_is_measured_however_few_the_widths() -> None:
    heads, channels = Extent(0, ((1, ("heads",)),)), Extent(0, ((1, ("heads", "width")),))
    layers = [Layer("products", attention(256, 256, 8), channels, channels, heads)]
    widths = {"heads": tuple(range(1, 9)), "width": tuple(range(2, 33, 2))}
    table = measure(probe_shapes(layers, widths, 30), even)
    assert len(table.points) <= 30
    for shape in probe_shapes(layers, widths):
        assert table.predict(shape).latency_ms > 0
