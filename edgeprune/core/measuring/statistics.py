"""Statistics of latency samples: percentiles, spread, intervals, stability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import hypot, log, sqrt

import numpy as np

from edgeprune.core.measuring.spread import TAIL, StudentSpread, find_session_error, spread_over_processes

SEED = 20261121
"""Fixed, so that the same samples always give the same interval."""
PROCESS_ERROR = 0.03
"""How far processes of one file lie apart where only one was looked at: 2 to 7 % were seen where this was written."""


@dataclass(frozen=True)
class LatencySummary:
    """What is said of a set of latency samples; all in milliseconds.

    Percentiles are those of a process as others are: geometric means over the processes; None where nothing tells them.
    `mad_ms` is the median absolute deviation of all samples. `median_low_ms` and `median_high_ms` bound the median of
    sessions like this one with 95 % confidence: by how its processes differ (Student's t of logarithms), and by what
    sessions add.
    """

    count: int
    min_ms: float
    p50_ms: float
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mad_ms: float
    median_low_ms: float
    median_high_ms: float

    def to_dict(self) -> dict[str, float | None]:
        """JSON-ready."""
        return asdict(self)


def least_samples(percent: float) -> int:
    """How many samples of a process tell a percentile above the median: one is to be expected beyond it."""
    return round(100 / (100 - percent))


SPARE = 1.25
"""Times as many samples are taken as a percentile needs: windows in which others had the cores are left out."""


def summarise(by_process_ms: Sequence[Sequence[float]]) -> LatencySummary:
    """Describe the samples of each process, one at least.

    Raises:
        ValueError: no samples, or one that is not finite and positive.
    """
    samples = np.array([ms for own in by_process_ms for ms in own], dtype=float)
    if samples.size == 0 or not np.all(np.isfinite(samples)) or np.any(samples <= 0):
        raise ValueError("latency samples must be finite, positive and at least one")
    p50, p90, p95, p99 = (spread_percentile(by_process_ms, percent) for percent in (50, 90, 95, 99))
    mad = float(np.median(np.abs(samples - p50.center)))
    return LatencySummary(
        int(samples.size), float(samples.min()), p50.center, p90.center, p95.center, p99.center, mad, *p50.bound(TAIL)
    )


def spread_percentile(by_process_ms: Sequence[Sequence[float]], percent: float = 50.0) -> StudentSpread:
    """A percentile of latency in a process as others are: the geometric mean over processes, with its spread.

    Of all samples together it would be that of the slowest process, of which a few processes tell nothing. Of one
    process, whose samples are as alike as no other process's are, the spread is what order statistics say (David and
    Nagaraja, "Order Statistics", 2003, section 7.1) with PROCESS_ERROR beside it.
    """
    percentiles = [float(np.percentile(own, percent)) for own in by_process_ms]
    session_error = find_session_error(percent)
    if len(percentiles) > 1:
        return spread_over_processes(percentiles, session_error)
    error = hypot(_order_error(np.asarray(by_process_ms[0], dtype=float), percent), PROCESS_ERROR, session_error)
    return StudentSpread(percentiles[0], error)


def _order_error(samples: np.ndarray, percent: float) -> float:
    """The standard error of the logarithm of a percentile of independent samples."""
    share, count = percent / 100, samples.size
    reach = sqrt(share * (1 - share) / count)
    low, high = np.percentile(samples, [100 * max(0.0, share - reach), 100 * min(1.0, share + reach)])
    return log(high / low) / 2


def drift(samples_ms: Sequence[float]) -> float:
    """How far the median of the last third lies from that of the first, as a fraction of the first."""
    third = max(1, len(samples_ms) // 3)
    first, last = np.median(samples_ms[:third]), np.median(samples_ms[-third:])
    return float(last / first - 1)
