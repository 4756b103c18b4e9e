"""Statistics of latency samples: percentiles, spread, intervals, stability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import exp, sqrt

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 20261121
"""Fixed, so that the same samples always give the same interval."""


@dataclass(frozen=True)
class LatencySummary:
    """What is said of a set of latency samples; all in milliseconds.

    `mad_ms` is the median absolute deviation; `median_low_ms` and `median_high_ms` bound the median with
    95 % confidence: by how the medians of several processes differ (Student's t of their logarithms), or, of samples of
    one process, by the percentile bootstrap (Efron 1979).
    """

    count: int
    min_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    mad_ms: float
    median_low_ms: float
    median_high_ms: float

    def to_dict(self) -> dict[str, float]:
        """JSON-ready."""
        return asdict(self)


def summarise(samples_ms: Sequence[float], by_process_ms: Sequence[float] = ()) -> LatencySummary:
    """Describe at least one sample; of several processes also each one's median.

    Raises:
        ValueError: no samples, or one that is not finite and positive.
    """
    samples = np.asarray(samples_ms, dtype=float)
    if samples.size == 0 or not np.all(np.isfinite(samples)) or np.any(samples <= 0):
        raise ValueError("latency samples must be finite, positive and at least one")
    p50, p90, p95, p99 = (float(value) for value in np.percentile(samples, [50, 90, 95, 99]))
    low, high = bound_median(samples, by_process_ms)
    mad = float(np.median(np.abs(samples - p50)))
    return LatencySummary(int(samples.size), float(samples.min()), p50, p90, p95, p99, mad, low, high)


def bound_median(
    samples_ms: Sequence[float] | np.ndarray, by_process_ms: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The interval of a median: by how the medians of several processes differ, else by the samples of the one."""
    if len(by_process_ms) < 2:
        return median_interval(samples_ms, confidence)
    middle, mean, *ends = float(np.median(samples_ms)), *student_interval(np.log(by_process_ms), confidence)
    low, high = (middle * exp(end - mean) for end in ends)
    return low, high


def student_interval(
    values: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """The mean of independent values, two or more, and its interval by Student's t."""
    from scipy.special import stdtrit

    count = len(values)
    if count < 2:
        raise ValueError(f"an interval needs two values or more, found {count}")
    mean = float(np.mean(values))
    reach = float(stdtrit(count - 1, (1 + confidence) / 2)) * float(np.std(values, ddof=1)) / sqrt(count)
    return mean, mean - reach, mean + reach


def median_interval(samples: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Bootstrap interval of the median, in the samples' unit."""
    return _interval(_draw_medians(np.asarray(samples, dtype=float)), confidence)


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """Ratio of two medians and its bootstrap interval: `(ratio, low, high)`.

    The two are resampled apart, which is conservative where they were measured interleaved.
    """
    above, below = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    ratios = _draw_medians(above) / _draw_medians(below, SEED + 1)
    return float(np.median(above) / np.median(below)), *_interval(ratios, confidence)


def _draw_medians(values: np.ndarray, seed: int = SEED) -> np.ndarray:
    """Medians of RESAMPLES resamples, in a time that hardly grows with the number of values.

    A resample is `size` uniform numbers, each naming one of the sorted values. Its median needs the middle one or two
    of these numbers only: of `size` uniform numbers the m-th smallest is Beta(m, size - m + 1) distributed, and the
    next is the smallest of those that are left (David and Nagaraja, "Order Statistics", 2003, sections 2.1 and 2.5).
    """
    random, size = np.random.default_rng(seed), values.size
    ordered, middle = np.sort(values), (size + 1) // 2
    lower = upper = random.beta(middle, size - middle + 1, RESAMPLES)
    if size % 2 == 0:
        upper = lower + (1 - lower) * (1 - random.random(RESAMPLES) ** (1 / (size - middle)))
    low, high = (ordered[np.minimum((share * size).astype(int), size - 1)] for share in (lower, upper))
    return np.asarray((low + high) / 2)


def _interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def drift(samples_ms: Sequence[float]) -> float:
    """How far the median of the last third lies from that of the first, as a fraction of the first."""
    third = max(1, len(samples_ms) // 3)
    first, last = np.median(samples_ms[:third]), np.median(samples_ms[-third:])
    return float(last / first - 1)
