"""Whether a budget can be met, told before anything is scored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeprune.core.planning.limits import Limits
from edgeprune.core.planning.reach import Reach, check_reach
from edgeprune.errors import InfeasibleBudget

FP32 = Reach(
    limit_ms=0.05, aim=1.0, fastest_ms=0.06, unpruned_ms=0.12, baseline_ms=0.12, precision="fp32", limits=Limits()
)


def refusal(reach: Reach) -> str:
    with pytest.raises(InfeasibleBudget) as caught:
        check_reach(reach)
    return str(caught.value)


def test_a_budget_within_reach_is_accepted() -> None:
    check_reach(replace(FP32, limit_ms=0.0601))
    check_reach(replace(FP32, limit_ms=0.06))
    check_reach(replace(FP32, limit_ms=0.062, aim=0.975))
    assert "no widths meet 0.06 ms" in refusal(replace(FP32, limit_ms=0.06, aim=0.975))


def test_the_best_that_can_be_reached_is_told_and_can_be_reached() -> None:
    reach = replace(FP32, aim=0.975)
    said = refusal(reach)
    assert said.startswith(
        "no widths meet 0.05 ms: the narrowest net is predicted at 0.06 ms in fp32, the unpruned fp32 "
    )
    speedup = float(said.split("--speedup ")[1].split()[0])
    latency_ms = float(said.split("--latency-ms ")[1].split()[0])
    assert speedup == 1.95
    for limit_ms in (reach.baseline_ms / speedup, latency_ms):
        check_reach(replace(reach, limit_ms=limit_ms))
    assert "int8" not in said
    assert "auto" not in said


def test_other_limits_of_the_budget_are_named() -> None:
    said = refusal(replace(FP32, limits=Limits(parameters=70_000, macs=10**6)))
    assert "the narrowest net within 70,000 parameters in layers, 1,000,000 multiply-accumulates is predicted" in said
    assert "raise the other limits of the budget" in said


def test_int8_whose_narrowest_net_is_slower_than_the_unpruned_one_in_fp32_is_said_to_be() -> None:
    said = refusal(replace(FP32, precision="int8", fastest_ms=0.13, unpruned_ms=0.2))
    assert "no net in int8 is faster here than the unpruned one in fp32" in said
    assert "choose --precision fp32, or auto" in said
    assert "--speedup" not in said
    assert "--latency-ms" not in said


def test_int8_that_is_slower_than_fp32_is_said_to_be() -> None:
    said = refusal(replace(FP32, precision="int8", unpruned_ms=0.2))
    assert "int8 is slower here than fp32 (unpruned 0.2 ms); choose --precision fp32, or auto" in said
    assert "--speedup 2.00" in said
    faster = refusal(replace(FP32, precision="int8", unpruned_ms=0.1))
    assert "slower" not in faster
    assert "choose --precision fp32, or auto" in faster


def test_where_the_baseline_is_hardly_beaten_no_speed_up_is_advised() -> None:
    said = refusal(replace(FP32, fastest_ms=0.1195))
    assert "--speedup" not in said
    assert "ask for --latency-ms 0.1196 at best" in said


def test_where_there_is_no_fp32_the_baseline_is_called_what_it_is_and_fp32_is_not_advised() -> None:
    said = refusal(replace(FP32, precision="int8", baseline_precision="int8"))
    assert "the unpruned int8 net takes" in said
    assert "fp32" not in said
