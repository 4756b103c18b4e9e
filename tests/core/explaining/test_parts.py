"""What a net's ms are made of: the parts add up, and each is told by what makes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chain_problem import FULL, by_macs, make_chain
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.core.explaining.parts import describe_layers, list_group_layers, split_parts
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
from edgeprune.core.latency.correction import Correction
from edgeprune.core.latency.layers import BESIDE as BESIDE_OP
from edgeprune.core.latency.layers import JOIN, Extent, Layer, LayerShape
from edgeprune.core.latency.table import LatencyPoint
from edgeprune.core.planning.planner import Problem, predict_ms

HALF = {"a": 32, "b": 64, "c": 16}


def lose(problem: Problem, widths: dict[str, int] = HALF) -> dict[str, float]:
    parts = split_parts(problem, widths)
    assert parts is not None
    assert parts.pruned_ms == predict_ms(problem, widths)
    assert parts.unpruned_ms == predict_ms(problem, FULL)
    rest = parts.macs_after / parts.macs_before
    assert sum(parts.lost_ms.values()) == pytest.approx(parts.pruned_ms - parts.unpruned_ms * rest, abs=1e-9)
    return dict(parts.lost_ms)


def only(lost: dict[str, float], *names: str) -> None:
    """All other parts are nothing."""
    assert {name for name, ms in lost.items() if abs(ms) > 1e-9} == set(names)


def test_nothing_is_lost_where_ms_follow_macs() -> None:
    only(lose(make_chain()))


def test_what_a_call_costs_is_overhead() -> None:
    lost = lose(make_chain(correction=Correction(offset_ms=0.25)))
    only(lost, OVERHEAD)
    assert 0 < lost[OVERHEAD] < 0.25


def test_what_a_layer_costs_anyway_is_its_overhead() -> None:
    lost = lose(make_chain(cost=lambda shape: 0.1 + by_macs(shape)))
    only(lost, LAYER_OVERHEAD, PLACEMENT)
    assert lost[LAYER_OVERHEAD] > 0


def test_steps_of_a_layer_are_its_staircase() -> None:
    """24 channels cost as much as 32."""
    stairs = make_chain(cost=lambda shape: by_macs(replace(shape, cout=-(-shape.cout // 32) * 32)))
    on_a_step, below_it = lose(stairs, {**FULL, "b": 32})[STAIRCASE], lose(stairs, {**FULL, "b": 40})[STAIRCASE]
    assert below_it > on_a_step
    assert below_it > 0.01


def test_cuts_where_a_mac_is_dear_gain_by_their_placement() -> None:
    def cost(shape: LayerShape) -> float:
        return by_macs(shape) * (5 if shape.cin == 3 else 1)

    assert lose(make_chain(cost=cost), {**FULL, "a": 8})[PLACEMENT] != 0
    assert lose(make_chain(cost=cost), {**FULL, "c": 8})[PLACEMENT] > 0  # the dear layer stayed whole


def test_what_caches_do_not_hold_is_told_apart() -> None:
    only(lose(make_chain(correction=Correction(per_megavalue_ms=3.0, cached_megavalues=0.02))), CACHE)
    by_weights = lose(make_chain(correction=Correction(per_megaweight_ms=3.0)))
    assert by_weights[CACHE] == pytest.approx(0)  # weights of these layers fall as their MACs do


def test_joins_and_what_is_beside_layers_are_told_apart() -> None:
    problem = make_chain(correction=Correction(per_beside_megavalue_ms=100.0))
    a = Extent(0, ((1, ("a",)),))
    join = Layer("l0>", LayerShape(JOIN, 64, 64, (1, 1), (1, 1), 1, (8, 8), (0, 0)), a, a)
    beside = Layer("beside 0", LayerShape(BESIDE_OP, 64, 64, size=(100,)), a, a)
    table = problem.table
    assert table is not None
    points = [LatencyPoint(replace(join.shape, cin=width, cout=width), -0.01, 0, 0) for width in (32, 64)]
    lost = lose(
        replace(problem, layers=(*problem.layers, join, beside), table=replace(table, points=(*table.points, *points)))
    )
    only(lost, JOINS, BESIDE)
    assert lost[JOINS] < 0 < lost[BESIDE]


def test_a_layer_that_went_with_its_branch_has_lost_nothing() -> None:
    problem = make_chain(cost=lambda shape: 0.1 + by_macs(shape))
    inside = replace(problem.layers[1], cin=Extent(64).within(("br",)), cout=Extent(64).within(("br",)))
    layers = (replace(problem.layers[1], cin=Extent(64), cout=Extent(64)), inside)
    parts = split_parts(replace(problem, layers=layers, loss={"br": {0: 1.0, 1: 0.0}}), {"br": 0})
    assert parts is not None
    assert parts.macs_after == parts.macs_before / 2
    only(dict(parts.lost_ms))
    assert parts.pruned_ms == pytest.approx(parts.unpruned_ms / 2)


def test_two_widths_tell_no_line() -> None:
    problem = make_chain(cost=lambda shape: 0.1 + by_macs(shape))
    table = problem.table
    assert table is not None
    few = [point for point in table.points if {point.shape.cin, point.shape.cout} <= {3, 10, 64}]
    narrow = [LatencyPoint(layer.at(HALF), 0.1 + by_macs(layer.at(HALF)), 0, 0) for layer in problem.layers]
    small = Problem(problem.layers[:1], {"a": problem.loss["a"]}, replace(table, points=(few[0], narrow[0])))
    parts = split_parts(small, {"a": 32})
    assert parts is not None
    assert parts.lost_ms[LAYERS] != 0
    assert parts.lost_ms[STAIRCASE] == parts.lost_ms[LAYER_OVERHEAD] == 0


def test_a_net_without_macs_has_no_parts() -> None:
    assert split_parts(Problem((), {}), {}) is None


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.sampled_from([8, 24, 40, 64])] * 3), st.floats(-0.1, 0.5), st.floats(0, 2), st.floats(0.5, 1.5))
def test_the_parts_always_add_up(widths: tuple[int, int, int], offset: float, weights: float, scale: float) -> None:
    correction = Correction(
        scale, offset_ms=offset, per_megaweight_ms=weights, per_megavalue_ms=1, cached_megavalues=0.03
    )
    problem = make_chain(cost=lambda shape: 0.01 * -(-shape.cin // 16) * -(-shape.cout // 16), correction=correction)
    assert set(lose(problem, dict(zip("abc", widths, strict=True)))) == set(PARTS)


def test_layers_are_told_before_and_after() -> None:
    problem = make_chain()
    rows = describe_layers(problem, HALF)
    assert [row["layer"] for row in rows] == ["l0", "l1", "l2", "l3"]
    assert rows[1]["macs_before"] == 64 * 64 * 9 * 64
    assert rows[1]["macs_after"] == 32 * 64 * 9 * 64
    assert rows[1]["weight_bytes_after"] == 4 * (32 * 64 * 9 + 64)
    assert rows[1]["ms_after"] == pytest.approx(32 * 64 * 9 * 64 / 1e6)
    assert rows[1]["groups"] == ["b"]
    assert list_group_layers(problem.layers, "a") == ["l0"]
