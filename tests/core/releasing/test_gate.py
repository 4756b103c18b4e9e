import contextlib
import json
import math
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from edgeprune.core.measuring.measurement import (
    Conditions,
    Measurement,
    Protocol,
    find_problems,
    parse_measurement,
    pool_measurements,
)
from edgeprune.core.measuring.statistics import drift, median_interval, ratio_interval, summarise
from edgeprune.core.metric import TOP1, Metric
from edgeprune.core.releasing.document import quality_figures
from edgeprune.core.releasing.gate import (
    EXIT_CODES,
    FAIL,
    INCONCLUSIVE,
    METRICS,
    PASS,
    Figure,
    Gate,
    decide,
    judge,
    settle_gates,
)
from edgeprune.core.target import parse_target
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


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"description": "x", "theads": 1}, "unknown key 'theads'; did you mean 'threads'"),
        (
            {"description": "x", "runtime": "onnxruntim"},
            "runtime: 'onnxruntim' is not known; did you mean 'onnxruntime'",
        ),
        ({"description": "x", "threads": 0}, "threads: 0 must be above zero"),
        ({"description": "x", "threads": True}, "threads: True has the wrong type"),
        ({}, "'description' is missing"),
        ({"description": "x", "gates": [{"metric": "latency_p50", "at_most": 1}]}, "did you mean 'latency_p50_ms'"),
        ({"description": "x", "gates": [{"metric": "speedup"}]}, "exactly one of"),
        ({"description": "x", "gates": [{"metric": "speedup", "atmost": 1}]}, "did you mean 'at_most'"),
        ({"description": "x", "gates": [{"metric": "speedup", "at_least": math.nan}]}, "must be finite"),
        (
            {"description": "x", "gates": [{"metric": "latency_p50_ms", "at_least": 1}]},
            "latency_p50_ms: lower is better: at_least would pass the worst; write at_most",
        ),
        (
            {"description": "x", "gates": [{"metric": "accuracy_percent", "at_most": 90}]},
            "accuracy_percent: higher is better: at_most would pass the worst; write at_least",
        ),
        (
            {"description": "x", "gates": [{"metric": "speedup", "max_regression": 0.1}]},
            "speedup: is held against the original already; write at_least",
        ),
        (
            {"description": "x", "gates": [{"metric": "quality_drop", "max_regression": 0.1}]},
            "quality_drop: is held against the original already; write at_most",
        ),
        (
            {"description": "x", "gates": [{"metric": "file_bytes", "max_regression": 5}]},
            "max_regression: 5 is no fraction; 5 % is 0.05",
        ),
        ({"description": "x", "gates": {"metric": "speedup"}}, r"write each as \[\[gates\]\]"),
        ({"description": "x", "budget": {"speedup": 2, "latency_ms": 1}}, "not both"),
        ({"description": "x", "hardware": {"cpu": {"value": "A72"}}}, "every fact has a source"),
        ({"description": "x", "protocol": {"min_samples": 2.5}}, "wrong type"),
    ],
)
def test_target_errors_say_where_and_what(document: dict[str, object], message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        parse_target(document, "board", "targets/board.toml")
    assert str(caught.value).startswith("targets/board.toml")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(["description", "runtime", "threads", "step", "budget", "gates", "protocol", "hardware"])


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(keys, values))
def test_any_document_is_a_target_or_a_clear_error(document: dict[str, object]) -> None:
    with contextlib.suppress(TargetError):
        target = parse_target(document, "board", "board.toml")
        assert target.threads > 0


def test_summary_of_known_samples() -> None:
    summary = summarise([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (summary.min_ms, summary.p50_ms, summary.mad_ms, summary.count) == (1.0, 3.0, 1.0, 5)
    assert summary.p50_ms < summary.p90_ms < summary.p99_ms < 100.0


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [1.0, 0.0], [math.inf]])
def test_impossible_samples_are_refused(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="finite, positive"):
        summarise(samples)


@given(st.lists(st.floats(0.1, 100), min_size=3, max_size=60))
def test_interval_holds_the_median_and_scales_with_the_unit(samples: list[float]) -> None:
    low, high = median_interval(samples)
    assert min(samples) <= low <= statistics.median(samples) <= high <= max(samples)
    assert median_interval([2 * value for value in samples]) == pytest.approx((2 * low, 2 * high))


@pytest.mark.parametrize("count", [100, 101, 1000, 1001])
@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99])
def test_interval_of_the_median_ends_where_order_statistics_say(count: int, confidence: float) -> None:
    """A resample's median is at most the k-th of the values with the chance that most of its draws are among these k.

    Of an even number of draws it is the mean of two neighbours; both are bounded so.
    """
    places = np.arange(1, count + 1)
    most = binom.sf((count + 1) // 2 - 1, count, places / count)
    more = binom.sf(count // 2, count, places / count)
    for end, share in zip(
        median_interval(places.astype(float), confidence), (1 - confidence, 1 + confidence), strict=True
    ):
        least, highest = (int(places[np.searchsorted(chance, share / 2)]) for chance in (most, more))
        assert least - 2 <= end <= highest + 2


def test_intervals_are_of_95_per_cent() -> None:
    values = np.arange(1.0, 1002)
    summary = summarise(values)
    assert (summary.median_low_ms, summary.median_high_ms) == median_interval(values, 0.95)
    assert ratio_interval(values, values) == ratio_interval(values, values, 0.95)


def test_ratio_interval_is_as_wide_as_both_medians_make_it() -> None:
    """Of two independent medians the logarithms' spreads add up as squares; those of one are the binomial's."""
    random, count = np.random.default_rng(3), 4001
    above, below = (np.exp(random.normal(0, 0.05, count)) for _ in range(2))
    ratio, low, high = ratio_interval(above, below)
    deviation = 0.05 * math.sqrt(2 * math.pi) / (2 * math.sqrt(count))  # of a normal sample's median
    assert (math.log(high) - math.log(low)) / 2 == pytest.approx(norm.ppf(0.975) * math.sqrt(2) * deviation, rel=0.1)
    assert low < ratio < high


@pytest.mark.parametrize("count", [7, 8])
def test_medians_drawn_by_their_middle_spread_as_those_of_whole_resamples(count: int) -> None:
    random = np.random.default_rng(5)
    values = np.sort(random.gamma(2.0, 1.0, count))
    whole = np.median(values[random.integers(0, count, (40_000, count))], axis=1)
    for confidence in (0.5, 0.8):
        tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        assert median_interval(values, confidence) == pytest.approx(np.quantile(whole, tails), rel=0.08)


def test_ratio_of_medians() -> None:
    ratio, low, high = ratio_interval([2.0, 2.1, 1.9, 2.0], [1.0, 1.0, 1.05, 0.95])
    assert ratio == pytest.approx(2.0)
    assert low <= 2.0 <= high


def test_drift_sees_a_board_that_slows_down() -> None:
    assert drift([1.0] * 10 + [1.1] * 10 + [1.3] * 10) == pytest.approx(0.3)


def measurement(samples: list[float], throttled: tuple[str, ...] = ()) -> Measurement:
    conditions = Conditions(threads=1, throttled=throttled)
    return Measurement("a", "0" * 64, "onnxruntime", "1.0", "f", conditions, 1.0, 1.0, 10, tuple(samples), 5.0)


SHORT = Protocol(min_duration_s=0.14)


@pytest.mark.parametrize(
    ("samples", "throttled", "problem"),
    [
        ([], (), "no samples"),
        ([1.0] * 20, (), "too short: 20 samples in 0.02 s; 100 samples and 0.14 s are asked for"),
        ([1.0] * 132, (), "too short"),
        ([50.0] * 99, (), "too short"),
        ([1.0] * 180 + [2.1] * 20, (), "unstable: p95 is 2.1 times the median"),
        ([1.0] * 195 + [4.1] * 5, (), "unstable: p99 is 4.1 times the median"),
        ([1.0, 3.0] * 100, (), "unstable: spread"),
        ([1.0] * 100 + [1.4] * 200, (), "unstable: the last third"),
        ([1.0] * 200, ("under-voltage",), "throttled: under-voltage"),
    ],
)
def test_invalid_runs_say_why(samples: list[float], throttled: tuple[str, ...], problem: str) -> None:
    assert any(problem in text for text in find_problems(measurement(samples, throttled), SHORT))


def test_steady_run_is_valid_and_survives_json() -> None:
    import json

    assert find_problems(measurement([1.0] * 134), SHORT) == ()  # nearly as long as asked for
    steady = measurement([1.0, 1.01, 0.99] * 50)
    assert find_problems(steady, SHORT) == ()
    assert parse_measurement(json.loads(json.dumps(steady.to_dict()))) == steady


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
        (AT_MOST, Figure(9.9, 9.5, 10.4), "the interval of 9.9 [9.5, 10.4] holds the limit 10"),
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


def test_of_two_measurements_the_worse_condition_stands() -> None:
    first, second = measurement([1.0] * 3, ("under-voltage",)), measurement([2.0] * 2, ("frequency capped",))
    second = replace(second, conditions=replace(second.conditions, others_cores=0.5, too_warm_c=71.0))
    pooled = pool_measurements(first, second)
    assert pooled.samples_ms == (1.0, 1.0, 1.0, 2.0, 2.0)
    assert pooled.warmup_runs == 20
    assert pooled.conditions.throttled == ("under-voltage", "frequency capped")
    assert (pooled.conditions.others_cores, pooled.conditions.too_warm_c) == (0.5, 71.0)
    assert pool_measurements(second, first).conditions.others_cores == 0.5


def test_conditions_say_how_far_a_fixed_loop_varied_where_several_processes_ran_it() -> None:
    assert Conditions(1, others_cores=0.25, arithmetic_us=(10.0, 11.0)).describe_others() == (
        "others took 0.25 cores, a fixed loop of arithmetic varied by 10.0% beside it"
    )
    assert Conditions(1, arithmetic_us=(10.0,)).describe_others() == ""
