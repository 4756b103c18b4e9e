"""Curves, prices and bounds of single groups, against the planner's own figures and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from chain_problem import FULL, NAMES, WIDTHS, make_chain
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.explaining.curves import (
    Point,
    find_bound,
    find_cost_per_ms,
    find_gain_per_ms,
    rank_channels,
    trace_curve,
)
from edgeprune.core.latency.correction import Correction
from edgeprune.core.planning.limits import Limits
from edgeprune.core.planning.planner import predict_ms
from edgeprune.pruning.importance import keep_best

CORRECTION = Correction(0.9, offset_ms=0.5, per_megaweight_ms=2.0, per_megavalue_ms=30.0, cached_megavalues=0.05)


@pytest.mark.parametrize("group", NAMES)
def test_a_curve_has_the_ms_that_the_planner_predicts(group: str) -> None:
    problem, widths = make_chain(correction=CORRECTION), {"a": 40, "b": 24, "c": 64}
    curve = trace_curve(problem, widths, group)
    assert [point.width for point in curve] == list(WIDTHS)
    for point in curve:
        assert point.net_ms == pytest.approx(predict_ms(problem, {**widths, group: point.width}))
        assert point.loss_increase == problem.loss[group][point.width]


CURVE = (Point(8, 9.0, 1.0), Point(16, 4.0, 2.0), Point(24, 3.0, 2.0), Point(32, 2.5, 2.5), Point(40, 0.0, 5.0))


def test_prices_are_the_best_exchange_in_each_direction() -> None:
    assert find_gain_per_ms(CURVE, 16) == pytest.approx(3.0)  # to 32; 24 costs nothing, 40 gives 4 for 3 ms
    assert find_cost_per_ms(CURVE, 32) == pytest.approx(1.0)  # to 24: half a loss for half a ms
    assert find_gain_per_ms(CURVE, 40) is None
    assert find_cost_per_ms(CURVE, 8) is None
    assert find_cost_per_ms(CURVE[1:3], 24) is None  # a narrower one that saves nothing has no price


ANY = Limits()


def bound(limits: Limits = ANY, cap_ms: float = 1e9, width: int = 32, group: str = "b") -> tuple[str, ...]:
    problem, widths = make_chain(limits=limits), {**FULL, group: width}
    return find_bound(problem, widths, trace_curve(problem, widths, group), group, cap_ms).by


def test_a_group_is_bound_by_what_its_next_wider_width_would_exceed() -> None:
    problem = make_chain()
    now, wider = (predict_ms(problem, {**FULL, "b": width}) for width in (32, 40))
    assert bound(cap_ms=(now + wider) / 2) == ("latency",)
    assert bound(cap_ms=wider) == ("loss",)
    macs = sum(layer.at({**FULL, "b": 32}).macs for layer in problem.layers)
    assert bound(Limits(macs=macs)) == ("macs",)
    assert bound(Limits(macs=macs, parameters=10**9), cap_ms=now) == ("latency", "macs")
    assert bound(cap_ms=0.0, width=64) == ("whole",)
    assert bound(Limits(fixed={"b": 32}), cap_ms=0.0) == ("recipe",)


def test_a_group_without_another_width_is_bound_by_what_is_on_offer() -> None:
    problem = make_chain()
    only = replace(problem, loss={**problem.loss, "b": {64: 0.0}})
    assert find_bound(only, FULL, trace_curve(only, FULL, "b"), "b", 0.0).by == ("offer",)


def test_the_sentence_names_width_and_limit() -> None:
    problem, widths = make_chain(), {**FULL, "b": 32}
    text = find_bound(problem, widths, trace_curve(problem, widths, "b"), "b", 0.0).text
    assert text == "40 channels would exceed the limit on latency"


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=12))
def test_ranks_say_which_channels_any_width_keeps(scores: list[float]) -> None:
    ranks = rank_channels(scores)
    for width in range(len(scores) + 1):
        kept = tuple(channel for channel, rank in enumerate(ranks) if rank <= width)
        assert kept == keep_best(np.array(scores), width)
