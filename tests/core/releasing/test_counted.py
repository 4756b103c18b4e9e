"""Figures, gates and regressions of a board that counts instructions and has no clock."""

from __future__ import annotations

import pytest

from edgeprune.core.artifact import Artifact
from edgeprune.core.cost import INSTRUCTIONS
from edgeprune.core.measuring.measurement import Conditions, Measurement
from edgeprune.core.measuring.pairing import recorded_ratio
from edgeprune.core.planning.budget import Budget
from edgeprune.core.planning.limits import Costs
from edgeprune.core.releasing.document import Figures, budget_gates, gate_figures
from edgeprune.core.releasing.gate import CLOCKED, FAIL, PASS, Gate
from edgeprune.core.releasing.shipping import judge_figures

COUNTS = (33_000_000.0, 33_010_000.0, 33_020_000.0, 33_030_000.0)


def counted(share: float = 1.0) -> Figures:
    artifact = Artifact("artifacts/pruned.int8.tflite", "pruned", "tflite", "int8", 5000, "", (), ())
    samples = tuple(share * count for count in COUNTS)
    taken = Measurement("a", "", "c", "gcc 12", "f", Conditions(1), None, None, 0, samples, None, unit=INSTRUCTIONS)
    return Figures(artifact, taken, 90.0, 300, Costs(1000, 4000, 70_000, 2048))


def test_a_count_is_a_figure_of_instructions_and_of_nothing_that_takes_a_clock() -> None:
    looked_at = gate_figures(counted(0.5), counted())
    assert looked_at["instructions"].value == pytest.approx(16_507_500)
    assert looked_at["instruction_ratio"].value == pytest.approx(2.0)
    assert not CLOCKED & set(looked_at)
    assert not any(name.endswith("_ms") for name in looked_at)


@pytest.mark.parametrize(
    ("gate", "outcome"),
    [
        (Gate("instructions", at_most=16_507_500), PASS),
        (Gate("instructions", at_most=16_507_499), FAIL),
        (Gate("instruction_ratio", at_least=2.0), PASS),
        (Gate("instruction_ratio", at_least=2.001), FAIL),
        (Gate("instructions", max_regression=-0.5), PASS),
        (Gate("instructions", max_regression=-0.51), FAIL),
    ],
)
def test_a_count_is_exact_so_that_a_gate_is_never_too_near_to_tell(gate: Gate, outcome: str) -> None:
    (result,) = judge_figures((gate,), counted(0.5), counted(), 0.95)
    assert result.outcome == outcome


def test_a_count_of_another_day_is_the_same_count() -> None:
    ratio = recorded_ratio((counted(0.5).measurement, None), (counted().measurement, None))
    assert ratio.bound(0.001) == pytest.approx((0.5, 0.5))


def test_a_budget_is_a_gate_in_the_unit_of_the_board() -> None:
    gates = budget_gates(Budget(speedup=1.5), (), INSTRUCTIONS)
    assert gates == (Gate("instruction_ratio", at_least=1.5),)
    assert budget_gates(Budget(instructions=1000), (), INSTRUCTIONS) == (Gate("instructions", at_most=1000),)
    assert budget_gates(Budget(speedup=1.5), ()) == (Gate("speedup", at_least=1.5),)


def test_a_count_tells_its_range_over_inputs_and_no_percentile() -> None:
    latency = counted().to_dict()["latency"]
    assert (latency["min_ms"], latency["max_ms"]) == (COUNTS[0], COUNTS[-1])
    assert not latency.keys() & {"p90_ms", "p95_ms", "p99_ms", "mad_ms"}
    assert counted().to_dict()["latency_intervals_ms"] == {}, "nothing varies, so there is no interval"
