import contextlib
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune.core.gate import FAIL, INCONCLUSIVE, PASS, Figure, Gate, decide, judge
from edgeprune.core.measurement import Conditions, Measurement, Protocol, find_problems, parse_measurement
from edgeprune.core.statistics import drift, median_interval, ratio_interval, summarise
from edgeprune.core.target import parse_target
from edgeprune.errors import TargetError

AT_MOST = Gate("latency_p50_ms", at_most=10.0)


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
        ("latency_p95_ms", 11.1, FAIL),
        ("accuracy_percent", 9.1, PASS),
        ("accuracy_percent", 8.9, FAIL),
    ],
)
def test_regression_is_counted_in_the_direction_that_is_worse(metric: str, value: float, outcome: str) -> None:
    gate = Gate(metric, max_regression=0.10)
    assert judge(gate, {metric: Figure(value)}, {metric: Figure(10.0)}).outcome == outcome


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
    assert min(samples) <= low <= sorted(samples)[len(samples) // 2] + 1e-9 or low <= high
    doubled = median_interval([2 * value for value in samples])
    assert doubled == pytest.approx((2 * low, 2 * high))


def test_interval_of_the_median_covers_the_truth_at_its_rate() -> None:
    import numpy as np

    generator = np.random.default_rng(1)
    inside = sum(
        low <= 5.0 <= high for low, high in (median_interval(5 + generator.standard_normal(80)) for _ in range(200))
    )
    assert 0.89 <= inside / 200 <= 0.99


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
        ([1.0] * 139, (), "too short"),
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

    steady = measurement([1.0, 1.01, 0.99] * 50)
    assert find_problems(steady, SHORT) == ()
    assert parse_measurement(json.loads(json.dumps(steady.to_dict()))) == steady
