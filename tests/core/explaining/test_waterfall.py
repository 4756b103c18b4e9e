"""The waterfall adds up, whatever was measured, and says where each step comes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.explaining.waterfall import (
    CHANGE,
    LEVEL,
    OVERHEAD,
    STAIRCASE,
    Times,
    build_waterfall,
    describe_waterfall,
)

PARTS = {"macs_before": 100, "macs_after": 40, "lost_ms": {STAIRCASE: 0.1, OVERHEAD: 0.2}}
LATENCIES = st.floats(0.01, 100)


@given(LATENCIES, LATENCIES, LATENCIES, LATENCIES, st.floats(0.5, 2))
def test_the_changes_lead_from_the_first_level_to_the_last(
    fp32: float, unpruned: float, planned: float, shipped: float, speed: float
) -> None:
    steps = build_waterfall(PARTS, Times(fp32, unpruned, planned, shipped, speed))
    assert steps[0].kind == steps[-1].kind == LEVEL
    assert (steps[0].ms, steps[-1].ms) == (fp32, shipped)
    level = 0.0
    for step in steps:
        level = step.ms if step is steps[0] else level + (step.ms if step.kind == CHANGE else 0)
        assert step.after_ms == pytest.approx(level)
        assert step.kind == CHANGE or step.ms == step.after_ms


def test_each_step_is_told_by_its_name() -> None:
    steps = {step.name: step for step in build_waterfall(PARTS, Times(1.0, 0.8, 0.7, 0.65, speed=2.0))}
    assert steps["precision"].ms == pytest.approx(-0.2)
    assert steps["macs"].ms == pytest.approx(-0.8 * 0.6)
    assert steps["by_macs"].after_ms == pytest.approx(0.32)
    assert (steps[STAIRCASE].ms, steps[OVERHEAD].ms) == (0.2, 0.4)  # at the speed of the session
    assert steps["unexplained"].ms == pytest.approx(0.7 - 0.92)
    assert steps["other_file"].ms == pytest.approx(-0.05)
    assert [steps[name].origin for name in ("unpruned", "macs", STAIRCASE, "unexplained")] == [
        "measured", "counted", "predicted", "remainder",
    ]  # fmt: skip


def test_what_did_not_happen_is_no_step() -> None:
    names = [step.name for step in build_waterfall(PARTS, Times(1.0, 1.0, 0.75, 0.75))]
    assert names == ["unpruned", "macs", "by_macs", STAIRCASE, OVERHEAD, "unexplained", "pruned"]
    whole = {"macs_before": 100, "macs_after": 100, "lost_ms": {}}
    assert [step.name for step in build_waterfall(whole, Times(1.0, 1.0, 1.0, 1.0))] == [
        "unpruned", "macs", "by_macs", "pruned",
    ]  # fmt: skip


def test_an_estimate_says_so_in_every_step_in_ms() -> None:
    times = Times(1.0, 1.0, 0.7, 0.7 * (1 + 1e-15), origin="estimated", planned_origin="estimated")
    document = describe_waterfall(PARTS, times, "estimated for rpi4", valid=False)
    assert {step["origin"] for step in document["steps"]} == {"estimated", "counted"}
    assert not document["valid"]


def test_the_first_level_is_called_by_its_precision() -> None:
    assert build_waterfall(PARTS, Times(1.0, 1.0, 0.7, 0.7))[0].text == "unpruned, fp32"
    assert build_waterfall(PARTS, Times(1.0, 1.0, 0.7, 0.7, baseline_precision="int8"))[0].text == "unpruned, int8"
