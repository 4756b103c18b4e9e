"""Statistics of latency samples: percentiles, intervals that hold as often as they say, drift."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from edgeprune.core.measuring.statistics import drift, median_interval, ratio_interval, summarise


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
