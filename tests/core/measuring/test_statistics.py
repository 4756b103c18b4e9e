"""Statistics of latency samples: percentiles, intervals that hold as often as they say, drift."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.measuring.spread import find_session_error
from edgeprune.core.measuring.statistics import PROCESS_ERROR, drift, spread_percentile, summarise


def test_summary_of_known_samples() -> None:
    summary = summarise([[1.0, 2.0, 3.0, 4.0, 100.0]])
    assert (summary.min_ms, summary.p50_ms, summary.mad_ms, summary.count) == (1.0, 3.0, 1.0, 5)
    assert summary.p50_ms < summary.p90_ms < summary.p99_ms < 100.0


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [1.0, 0.0], [math.inf]])
def test_impossible_samples_are_refused(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="finite, positive"):
        summarise([samples])


@given(st.lists(st.lists(st.floats(0.1, 100), min_size=1, max_size=20), min_size=1, max_size=6), st.floats(1, 99))
def test_a_percentile_is_that_of_a_process_as_others_are_and_scales_with_the_unit(
    by_process_ms: list[list[float]], percent: float
) -> None:
    spread = spread_percentile(by_process_ms, percent)
    each = [np.percentile(own, percent) for own in by_process_ms]
    assert spread.center == pytest.approx(np.prod(each) ** (1 / len(each)))
    low, high = spread.bound(0.025)
    assert low < spread.center < high
    doubled = spread_percentile([[2 * ms for ms in own] for own in by_process_ms], percent)
    assert doubled.bound(0.025) == pytest.approx((2 * low, 2 * high))


def test_samples_of_one_process_say_nothing_of_the_next_process() -> None:
    """However many they are, the interval is as wide as processes and sessions are apart."""
    spread = spread_percentile([[1.0, 1.001] * 50_000])
    assert spread.error == pytest.approx(math.hypot(PROCESS_ERROR, find_session_error()), rel=0.01)


@pytest.mark.parametrize("percent", [50.0, 90.0, 99.0])
def test_the_error_of_a_percentile_of_one_process_is_what_repeated_samples_show(percent: float) -> None:
    random = np.random.default_rng(3)
    samples = np.exp(random.normal(0, 0.3, (600, 1000)))
    seen = np.log(np.percentile(samples, percent, axis=1)).std()
    errors = [spread_percentile([row.tolist()], percent).error for row in samples[:60]]
    within = np.sqrt(np.mean(np.square(errors)) - PROCESS_ERROR**2 - find_session_error(percent) ** 2)
    assert within == pytest.approx(seen, rel=0.15)


def draw_session(random: np.random.Generator, processes: int, session_error: float) -> np.ndarray:
    """Latencies `[processes, 60]`: sessions, processes and samples vary, the last with a heavy tail."""
    level = random.normal(0, session_error) + random.normal(0, 0.02, (processes, 1))
    return np.asarray(np.exp(level + 0.01 * np.abs(random.standard_t(3, (processes, 60)))))


@pytest.mark.parametrize("percent", [50.0, 95.0])
def test_intervals_hold_what_sessions_have_in_common_as_often_as_they_say(percent: float) -> None:
    random, sessions = np.random.default_rng(8), 400
    truth = spread_percentile(draw_session(random, 5000, 0.0).tolist(), percent).center
    spreads = [
        spread_percentile(draw_session(random, 8, find_session_error(percent)).tolist(), percent)
        for _ in range(sessions)
    ]
    bounds = [spread.bound(0.025) for spread in spreads]
    assert 0.92 <= sum(low <= truth <= high for low, high in bounds) / sessions <= 0.985
    alone = [
        spread_percentile(draw_session(random, 1, find_session_error(percent)).tolist(), percent)
        for _ in range(sessions)
    ]
    assert sum(low <= truth <= high for low, high in (spread.bound(0.025) for spread in alone)) / sessions >= 0.92


def test_drift_sees_a_board_that_slows_down() -> None:
    assert drift([1.0] * 10 + [1.1] * 10 + [1.3] * 10) == pytest.approx(0.3)
