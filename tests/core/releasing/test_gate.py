"""Gates: outcomes at, beside and without a limit; the verdict over all; what is said of each."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.measuring.spread import SHARES, StudentSpread, TableSpread
from edgeprune.core.metric import TOP1, Metric
from edgeprune.core.releasing.document import quality_figures
from edgeprune.core.releasing.gate import (
    ALLOWED_TO_FAIL,
    EXIT_CODES,
    FAIL,
    INCONCLUSIVE,
    LOOKS,
    METRICS,
    PASS,
    Figure,
    Gate,
    Strictness,
    decide,
    judge,
    settle_gates,
)
from edgeprune.errors import TargetError

AT_MOST = Gate("latency_p50_ms", at_most=10.0)
F1 = Metric("F1", better="higher")
RMSE = Metric("RMSE", better="lower", unit="K")


@pytest.mark.parametrize(
    ("figure", "outcome"),
    [
        (Figure(9.0, 8.8, 9.3), PASS),
        (Figure(9.9, 9.5, 10.4), INCONCLUSIVE),
        (Figure(11.0, 10.5, 11.2), FAIL),
        (Figure(9.0, origin="estimated"), INCONCLUSIVE),
        (Figure(9.0, problem="throttled: under-voltage"), INCONCLUSIVE),
    ],
)
def test_gate_looks_at_the_whole_interval_and_at_the_origin(figure: Figure, outcome: str) -> None:
    assert judge(AT_MOST, {"latency_p50_ms": figure}, {}).outcome == outcome


def test_figure_that_was_not_measured_is_inconclusive() -> None:
    result = judge(Gate("energy_mj", at_most=1.0), {"latency_p50_ms": Figure(1.0)}, {})
    assert (result.outcome, result.value) == (INCONCLUSIVE, None)


@pytest.mark.parametrize(
    ("metric", "value", "outcome"),
    [
        ("latency_p95_ms", 10.9, PASS),
        ("latency_p95_ms", 11.0, PASS),
        ("latency_p95_ms", 11.1, FAIL),
        ("accuracy_percent", 9.1, PASS),
        ("accuracy_percent", 9.0, PASS),
        ("accuracy_percent", 8.9, FAIL),
    ],
)
def test_regression_is_counted_in_the_direction_that_is_worse(metric: str, value: float, outcome: str) -> None:
    gate = Gate(metric, max_regression=0.10)
    assert judge(gate, {metric: Figure(value)}, {metric: Figure(10.0)}).outcome == outcome


@pytest.mark.parametrize(
    ("gate", "value", "outcome"),
    [
        (Gate("latency_p50_ms", at_most=10.0), 10.0, PASS),
        (Gate("latency_p50_ms", at_most=10.0), math.nextafter(10.0, 11.0), PASS),  # rounding decides nothing
        (Gate("latency_p50_ms", at_most=10.0), 10.00001, FAIL),
        (Gate("speedup", at_least=2.0), 2.0, PASS),
        (Gate("speedup", at_least=2.0), math.nextafter(2.0, 1.0), PASS),
        (Gate("speedup", at_least=2.0), 1.99999, FAIL),
        (Gate("accuracy_drop_points", at_most=1.5), 98.7 - 97.2, PASS),
        (Gate("accuracy_drop_points", at_most=0.0), 0.0, PASS),
        (Gate("accuracy_drop_points", at_most=0.0), 0.1, FAIL),
    ],
)
def test_a_value_exactly_at_its_limit_passes(gate: Gate, value: float, outcome: str) -> None:
    assert judge(gate, {gate.metric: Figure(value)}, {}).outcome == outcome


@pytest.mark.parametrize(
    ("gate", "low", "high", "outcome"),
    [
        (AT_MOST, 9.0, 10.0, PASS),
        (AT_MOST, 10.0, 11.0, INCONCLUSIVE),
        (AT_MOST, 10.1, 11.0, FAIL),
        (Gate("latency_p50_ms", at_least=10.0), 10.0, 11.0, PASS),
        (Gate("latency_p50_ms", at_least=10.0), 9.0, 10.0, INCONCLUSIVE),
        (Gate("latency_p50_ms", at_least=10.0), 9.0, 9.9, FAIL),
    ],
)
def test_an_interval_that_ends_exactly_at_the_limit(gate: Gate, low: float, high: float, outcome: str) -> None:
    assert judge(gate, {"latency_p50_ms": Figure((low + high) / 2, low, high)}, {}).outcome == outcome


@pytest.mark.parametrize(
    "reference",
    [
        None,
        Figure(None),
        Figure(10.0, problem="throttled"),
        Figure(10.0, origin="estimated"),
        Figure(math.nan),
        Figure(math.inf),
    ],
)
def test_nothing_is_held_against_a_baseline_that_is_not_valid(reference: Figure | None) -> None:
    gate = Gate("latency_p95_ms", max_regression=0.10)
    beside = {} if reference is None else {"latency_p95_ms": reference}
    result = judge(gate, {"latency_p95_ms": Figure(1.0)}, beside)
    assert (result.outcome, result.reason) == (INCONCLUSIVE, "no valid baseline figure for latency_p95_ms")


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("limit", ["at_most", "at_least", "max_regression"])
@given(value=st.floats(-1e6, 1e6))
def test_no_figure_of_an_invalid_run_passes(metric: str, limit: str, value: float) -> None:
    limits: dict[str, Any] = {limit: 0.5}
    gate = Gate(metric, **limits, of=TOP1)
    result = judge(gate, {metric: Figure(value, problem="unstable")}, {metric: Figure(value)})
    assert (result.outcome, result.reason) == (INCONCLUSIVE, "invalid run: unstable")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("gate", [Gate("quality", at_least=-1e9, of=F1), Gate("quality_drop", at_most=1e9, of=F1)])
def test_what_is_no_finite_number_fails(value: float, gate: Gate) -> None:
    result = judge(gate, {gate.metric: Figure(value)}, {})
    assert (result.outcome, result.value) == (FAIL, None)
    assert result.reason.endswith("no finite number")
    json.dumps(result.to_dict(), allow_nan=False)


def test_verdict_needs_every_gate_and_at_least_one() -> None:
    good, bad = {"latency_p50_ms": Figure(9.0)}, {"latency_p50_ms": Figure(11.0)}
    passed, failed, unknown = (judge(AT_MOST, figures, {}) for figures in (good, bad, {}))
    assert decide([passed]) == PASS
    assert decide([passed, unknown]) == INCONCLUSIVE
    assert decide([passed, unknown, failed]) == FAIL
    assert decide([]) == INCONCLUSIVE


# the recipe's metric


@pytest.mark.parametrize(
    ("metric", "gate", "value", "original", "outcome"),
    [
        (F1, Gate("quality", at_least=0.75), 0.77, 0.8, PASS),
        (F1, Gate("quality", at_least=0.75), 0.10, 0.8, FAIL),
        (F1, Gate("quality_drop", at_most=0.02), 0.79, 0.8, PASS),
        (F1, Gate("quality_drop", at_most=0.02), 0.10, 0.77, FAIL),
        (F1, Gate("quality", max_regression=0.02), 0.10, 0.77, FAIL),
        (RMSE, Gate("quality", at_most=0.4), 0.33, 0.3, PASS),
        (RMSE, Gate("quality", at_most=0.4), 2.90, 0.3, FAIL),
        (RMSE, Gate("quality_drop", at_most=0.1), 0.35, 0.33, PASS),
        (RMSE, Gate("quality_drop", at_most=0.1), 2.90, 0.33, FAIL),
        (RMSE, Gate("quality_drop", at_most=0.1), 0.01, 0.33, PASS),
        (RMSE, Gate("quality", max_regression=0.05), 0.34, 0.33, PASS),
        (RMSE, Gate("quality", max_regression=0.05), 2.90, 0.33, FAIL),
        # a log-likelihood: below zero, higher is better
        (Metric("log-likelihood", better="higher"), Gate("quality", max_regression=0.1), -10.5, -10.0, PASS),
        (Metric("log-likelihood", better="higher"), Gate("quality", max_regression=0.1), -11.5, -10.0, FAIL),
        (Metric("energy", better="lower"), Gate("quality", max_regression=0.1), -9.5, -10.0, PASS),
        (Metric("energy", better="lower"), Gate("quality", max_regression=0.1), -8.5, -10.0, FAIL),
    ],
)
def test_gates_on_quality_know_the_direction(
    metric: Metric, gate: Gate, value: float, original: float, outcome: str
) -> None:
    (settled,) = settle_gates([gate], metric, "gates.toml")
    looked_at, beside = quality_figures(metric, value, original), quality_figures(metric, original)
    assert judge(settled, looked_at, beside).outcome == outcome


@pytest.mark.parametrize(
    ("metric", "gate", "words"),
    [
        (F1, Gate("accuracy_percent", at_least=90), 'does not fit the recipe\'s metric F1.*metric = "quality" with a'),
        (F1, Gate("accuracy_drop_points", at_most=1.5), 'metric = "quality_drop" with a limit in its own unit'),
        (RMSE, Gate("accuracy_percent", max_regression=0.1), "RMSE in K, of which lower is better"),
        (Metric("error", better="lower", unit="%"), Gate("accuracy_drop_points", at_most=1), "does not fit"),
        (F1, Gate("quality", at_most=0.8), "at_most would pass the worst; write at_least"),
        (RMSE, Gate("quality", at_least=0.8), "at_least would pass the worst; write at_most"),
    ],
)
def test_a_gate_that_does_not_fit_the_metric_is_refused(metric: Metric, gate: Gate, words: str) -> None:
    with pytest.raises(TargetError, match=f"^gates.toml: gate {gate.metric}.*{words}"):
        settle_gates([gate], metric, "gates.toml")


def test_gates_on_accuracy_fit_a_metric_in_percent() -> None:
    gates = (Gate("accuracy_percent", at_least=90), Gate("accuracy_drop_points", at_most=1), AT_MOST)
    settled = settle_gates(gates, TOP1, "gates.toml")
    assert [one.of for one in settled] == [TOP1, TOP1, None]
    assert set(quality_figures(TOP1, 91.0, 92.0)) == {
        "quality",
        "quality_drop",
        "accuracy_percent",
        "accuracy_drop_points",
    }
    assert set(quality_figures(F1, 0.5, 0.6)) == {"quality", "quality_drop"}


def test_a_gate_names_the_metric_and_its_unit() -> None:
    gates = settle_gates(
        [Gate("quality", at_most=0.4), Gate("quality_drop", at_most=0.1), Gate("quality", max_regression=0.05)],
        RMSE,
        "",
    )
    assert [one.describe() for one in gates] == [
        "quality at_most 0.4 K (RMSE)",
        "quality_drop at_most 0.1 K (RMSE)",
        "quality max_regression 0.05 (RMSE)",
    ]
    (points,) = settle_gates([Gate("quality_drop", at_most=1.5)], TOP1, "")
    assert points.describe() == "quality_drop at_most 1.5 points (top-1 accuracy)"
    (accuracy,) = settle_gates([Gate("accuracy_percent", at_least=90)], TOP1, "")
    assert accuracy.describe() == "accuracy_percent at_least 90"


def test_a_gate_survives_being_written_down_but_for_its_metric() -> None:
    for gate in (Gate("quality", at_least=0.7, of=F1), AT_MOST, Gate("file_bytes", max_regression=0.1)):
        row = json.loads(json.dumps(gate.to_dict()))
        (again,) = settle_gates([Gate(**row)], F1, "")
        assert again == gate


def test_a_gate_on_quality_that_was_not_settled_has_no_direction() -> None:
    with pytest.raises(ValueError, match="the recipe's metric is not known yet"):
        judge(Gate("quality", max_regression=0.1), {"quality": Figure(1.0)}, {"quality": Figure(1.0)})


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        (TOP1, 91.254, "91.25 %"),
        (F1, 0.77123, "0.7712"),
        (RMSE, 0.33, "0.33 K"),
        (RMSE, 12345.6, "1.235e+04 K"),
        (F1, None, "-"),
        (F1, math.nan, "nan"),
    ],
)
def test_a_value_is_shown_with_its_unit(metric: Metric, value: float | None, shown: str) -> None:
    assert metric.describe(value) == shown


# what is said


@pytest.mark.parametrize(
    ("gate", "figure", "reason"),
    [
        (AT_MOST, Figure(9.0, 8.8, 9.3), "9 [8.8, 9.3] <= 10"),
        (AT_MOST, Figure(9.12345), "9.123 <= 10"),
        (AT_MOST, Figure(9.0, 9.0, 9.0), "9 <= 10"),
        (AT_MOST, Figure(11.0, 10.5, 11.2), "11 [10.5, 11.2] is not <= 10"),
        (AT_MOST, Figure(9.9, 9.5, 10.4), "9.9 [9.5, 10.4] is too near to the limit 10 to tell"),
        (Gate("speedup", at_least=2.0), Figure(2.5), "2.5 >= 2"),
        (Gate("speedup", at_least=2.0), Figure(1.5), "1.5 is not >= 2"),
        (Gate("file_bytes", at_most=300_000), Figure(1_234_567), "1234567 is not <= 300000"),
        (AT_MOST, Figure(12345.6), "12346 is not <= 10"),
        (AT_MOST, Figure(None, problem="no meter"), "no meter"),
        (AT_MOST, Figure(None), "latency_p50_ms was not measured"),
        (AT_MOST, Figure(9.0, origin="estimated"), "estimated, not measured"),
    ],
)
def test_a_result_says_why(gate: Gate, figure: Figure, reason: str) -> None:
    assert judge(gate, {gate.metric: figure}, {}).reason == reason


def test_limits_are_shown_as_they_were_written() -> None:
    shown = {"latency_p50_ms at_most 12.3456": 12.3456, "latency_p50_ms at_most 1e-06": 1e-6}
    for text, limit in shown.items():
        assert Gate("latency_p50_ms", at_most=limit).describe() == text
    assert Gate("macs", at_most=10_000_000).describe() == "macs at_most 10000000"


def test_the_exit_code_tells_the_verdict() -> None:
    assert EXIT_CODES == {PASS: 0, FAIL: 3, INCONCLUSIVE: 4}


# how sure a verdict is

REGRESSION = Gate("latency_p50_ms", max_regression=0.02)
P50 = {"latency_p50_ms": Figure(10.0)}


def change(ratio: float, error: float = 0.005) -> dict[str, Figure]:
    """How much worse a latency is, known with such an error of its logarithm over twelve processes."""
    spread = StudentSpread(ratio, error, 11, shift=-1.0)
    return {"latency_p50_ms": Figure.of(ratio - 1, spread)}


@pytest.mark.parametrize(("ratio", "outcome"), [(1.0, PASS), (1.019, INCONCLUSIVE), (1.03, INCONCLUSIVE), (1.05, FAIL)])
def test_a_regression_is_judged_by_what_took_turns(ratio: float, outcome: str) -> None:
    """The two figures alone, of other sessions perhaps, would say that nothing changed."""
    assert judge(REGRESSION, P50, P50, change(ratio)).outcome == outcome


def test_a_regression_is_told_as_a_share_with_its_interval() -> None:
    reason = judge(REGRESSION, P50, P50, change(1.05)).reason
    assert reason == "10 against 10: +5 % [+3.85, +6.16], and 2 % worse is allowed"
    drop = {"quality": Figure.of(-0.002, TableSpread((-0.008,) * len(SHARES), (0.004,) * len(SHARES)))}
    gate, (before, after) = Gate("quality", max_regression=0.015, of=TOP1), (Figure(99.1), Figure(99.3))
    reason = judge(gate, {"quality": after}, {"quality": before}, drop).reason
    assert reason == "99.3 against 99.1: +0.2 % [-0.4, +0.8], at most 1.5 % worse is allowed"


def test_figures_that_contradict_the_change_are_explained() -> None:
    spread = StudentSpread(1.01, 0.001, 11, shift=-1.0, basis="the ratio leaves out a few")
    now = {"latency_p50_ms": Figure(11.5)}
    reason = judge(REGRESSION, now, P50, {"latency_p50_ms": Figure.of(0.01, spread)}).reason
    words = "11.5 against 10: +1 % [+0.778, +1.22] (the two figures alone +15 %: the ratio leaves out a few)"
    assert reason.startswith(words)


def test_without_turns_both_figures_may_be_off() -> None:
    def figure(value: float) -> Figure:
        return Figure.of(value, StudentSpread(value, 0.01))

    before = {"latency_p50_ms": figure(10.0)}
    outcomes = [judge(REGRESSION, {"latency_p50_ms": figure(ms)}, before).outcome for ms in (9.0, 10.0, 10.5, 11.5)]
    assert outcomes == [PASS, INCONCLUSIVE, INCONCLUSIVE, FAIL]
    assert judge(REGRESSION, {"latency_p50_ms": figure(10.5)}, P50).outcome == INCONCLUSIVE


def test_more_gates_need_more_to_fail_and_no_less_to_pass() -> None:
    pass_one, fail_one = Strictness(1).find_shares("latency_p50_ms")
    pass_ten, fail_ten = Strictness(10).find_shares("latency_p50_ms")
    assert pass_one == pass_ten == pytest.approx(0.025 / LOOKS)
    assert fail_one == pytest.approx(10 * fail_ten) == pytest.approx(ALLOWED_TO_FAIL / LOOKS)
    assert Strictness(1).find_shares("quality") == pytest.approx((0.025, ALLOWED_TO_FAIL))


@pytest.mark.parametrize("gates", [1, 10])
def test_gates_together_fail_by_accident_no_oftener_than_they_may(gates: int) -> None:
    """At the very limit, where failing is the likeliest; each figure is off by its own error."""
    random, failures, trials = np.random.default_rng(6), 0, 1500
    for _ in range(trials):
        results = []
        for _ in range(gates):
            logs = random.normal(np.log(1.02), 0.01, 12)
            spread = StudentSpread(float(np.exp(logs.mean())), float(logs.std(ddof=1) / 12**0.5), 11, shift=-1.0)
            changes = {"latency_p50_ms": Figure.of(spread.center - 1, spread)}
            results.append(judge(REGRESSION, P50, P50, changes, Strictness(gates)))
        failures += decide(results) == FAIL
    assert failures / trials <= ALLOWED_TO_FAIL


def test_a_quality_that_is_too_near_to_its_limit_to_tell_is_inconclusive() -> None:
    """1.5 points on 450 inputs, of which 2 points are allowed."""
    drop = Figure.of(1.5, TableSpread((0.3,) * len(SHARES), (2.7,) * len(SHARES)))
    assert judge(Gate("accuracy_drop_points", at_most=2.0), {"accuracy_drop_points": drop}, {}).outcome == INCONCLUSIVE
    assert judge(Gate("accuracy_drop_points", at_most=3.0), {"accuracy_drop_points": drop}, {}).outcome == PASS
    assert judge(Gate("accuracy_drop_points", at_most=0.1), {"accuracy_drop_points": drop}, {}).outcome == FAIL


def test_of_nothing_any_more_is_a_regression() -> None:
    gate, before = Gate("peak_memory_mib", max_regression=0.1), {"peak_memory_mib": Figure(0.0)}
    outcomes = [judge(gate, {"peak_memory_mib": Figure(mib)}, before).outcome for mib in (0.0, 0.1)]
    assert outcomes == [PASS, FAIL]
