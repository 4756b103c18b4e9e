"""The ratio of two latencies: in turns, over two sessions with and without something in common, and of cold starts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_run import make_measurement, make_windows

from edgeprune.core.measuring.measurement import Measurement
from edgeprune.core.measuring.pairing import (
    DAYS_ERROR,
    REFERENCE_ERROR,
    find_ratio,
    has_same_reference,
    ratio_of_values,
    recorded_ratio,
)
from edgeprune.core.measuring.spread import RATIO_ERROR, StudentSpread, explain_quotient, find_session_error
from edgeprune.core.measuring.statistics import PROCESS_ERROR


def measure(name: str, p50_ms: float, speed: float = 1.0, processes: int = 8) -> Measurement:
    return replace(make_measurement(name, name, p50_ms), **make_windows(p50_ms, processes, speed))


@settings(max_examples=20)  # each fits a session
@given(st.floats(0.5, 2.0), st.floats(0.5, 2.0))
def test_files_in_turns_show_their_ratio_whatever_the_board_does(ratio: float, speed: float) -> None:
    found = find_ratio(measure("new", 0.4 * ratio, speed), measure("old", 0.4, speed))
    assert found.center == pytest.approx(ratio, rel=0.004)
    assert RATIO_ERROR <= found.error < 0.003
    assert found.freedom >= 5


def test_a_tail_shows_in_its_percentile_alone() -> None:
    old = measure("old", 0.4)
    samples = [ms * (1.5 if place % 21 >= 19 else 1.0) for place, ms in enumerate(old.samples_ms)]
    new = replace(old, sha256="new", samples_ms=tuple(samples))
    ratios = {percentile: find_ratio(new, old, percentile).center for percentile in (50, 90, 95, 99)}
    assert (ratios[50], ratios[90]) == (pytest.approx(1), pytest.approx(1, rel=1e-3))
    assert ratios[95] > 1.2
    assert ratios[99] == pytest.approx(1.5, rel=0.01)


def test_of_too_few_processes_both_sides_may_be_off() -> None:
    ratio = find_ratio(measure("new", 0.4, processes=1), measure("old", 0.4, processes=8))
    assert ratio.error > PROCESS_ERROR


def test_a_file_in_both_sessions_takes_off_how_slow_the_board_was() -> None:
    old, new = (
        (measure("old", 0.4), measure("original", 1.0)),
        (measure("new", 0.44, 1.3), measure("original", 1.0, 1.3)),
    )
    ratio = recorded_ratio(new, old)
    assert ratio.center == pytest.approx(1.1, rel=0.004)
    assert explain_quotient(1.43, ratio).startswith("the ratio takes off by how much the board was slower")
    assert recorded_ratio(new, old).error == pytest.approx(math.hypot(REFERENCE_ERROR, RATIO_ERROR) * 2**0.5, rel=0.05)
    assert recorded_ratio(new, old, 95).center == pytest.approx(1.1, rel=0.004)
    alone = recorded_ratio((new[0], None), old)
    assert alone.center == pytest.approx(1.43, rel=0.004)
    assert alone.error > DAYS_ERROR


@pytest.mark.parametrize(
    "other",
    [
        None,
        make_measurement("original", "original", 1.0),  # no windows
        measure("another", 1.0),
        replace(measure("original", 1.0), runtime_version="2.0"),
        replace(measure("original", 1.0), runtime="litert"),
    ],
)
def test_another_file_or_runtime_is_nothing_in_common(other: Measurement | None) -> None:
    own = measure("original", 1.0)
    assert has_same_reference(own, replace(own, samples_ms=()))
    assert not has_same_reference(own, other)
    assert not has_same_reference(other, own)


def test_one_process_without_windows_has_the_spread_of_sessions() -> None:
    new, old = make_measurement("new", "a", 0.44), make_measurement("old", "b", 0.4)
    found = recorded_ratio((new, None), (old, None))
    assert found.center == pytest.approx(1.1)
    assert found.error == pytest.approx(
        2**0.5 * np.hypot(DAYS_ERROR, np.hypot(PROCESS_ERROR, find_session_error())), rel=0.01
    )


def test_cold_starts_are_compared_by_their_own_spread() -> None:
    ratio = ratio_of_values([11.0, 11.0, 11.0], [10.0, 10.0, 10.0])
    assert ratio is not None
    assert (ratio.center, *ratio.bound(0.025)) == pytest.approx((1.1, 1.1, 1.1))
    wide = ratio_of_values([10.0, 12.0], [9.0, 11.0])
    assert wide is not None
    low, high = wide.bound(0.025)
    assert (low < 0.7, high > 1.5) == (True, True)
    assert ratio_of_values([10.0], [10.0, 11.0]) is None
    assert ratio_of_values([0.0, 1.0], [10.0, 11.0]) is None


def test_one_disturbed_start_of_three_sessions_moves_little() -> None:
    old = [10.0, 10.2, 10.1, 9.9, 10.0, 10.3, 10.1, 9.8, 10.2]
    ratio = ratio_of_values([90.0, *(1.1 * ms for ms in old[1:])], old)
    assert ratio is not None
    assert ratio.center == pytest.approx(1.1, abs=0.01)
    low, high = ratio.bound(0.025)
    assert (low > 1.07, high < 1.14) == (True, True)


def test_the_interval_by_ranks_holds_at_its_rate() -> None:
    random = np.random.default_rng(1)
    ratios = [ratio_of_values(*(np.exp(random.standard_t(3, 9) * 0.05) for _ in range(2))) for _ in range(400)]
    bounds = [ratio.bound(0.025) for ratio in ratios if ratio is not None]
    assert len(bounds) == 400
    assert 0.92 < np.mean([low <= 1 <= high for low, high in bounds]) < 0.98


def test_the_interval_is_students() -> None:
    low, high = StudentSpread(1.0, 0.01, 7).bound(0.025)
    assert np.log(high) == pytest.approx(0.01 * 2.3646, rel=1e-3)
    assert low * high == pytest.approx(1)


def test_sessions_of_one_process_are_held_against_each_other_too() -> None:
    """Nothing took turns in them that could take off how slow the board was: the interval says so."""
    old, new = (
        (measure("old", 0.4, processes=1), measure("original", 1.0, processes=1)),
        (measure("new", 0.44, processes=1), measure("original", 1.0, processes=1)),
    )
    ratio = recorded_ratio(new, old)
    assert ratio.center == pytest.approx(1.1, rel=0.02)
    assert ratio.error > DAYS_ERROR
