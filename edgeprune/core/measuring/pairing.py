"""How the latency of one artifact relates to that of another: measured in turns, or each in a session of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from math import exp, floor, inf, sqrt

import numpy as np

from edgeprune.core.measuring.measurement import MEDIAN, Measurement
from edgeprune.core.measuring.spread import StudentSpread, ratio_over_processes
from edgeprune.core.measuring.windows import SteadyLatency, Window, fit_common_speed

LEAST_PROCESSES = 2
DAYS_ERROR = 0.07
"""How far sessions of different days lie apart, beyond what one tells: the standard deviation of the logarithm of a
latency. Eight calls on one file, on an idle machine, gave medians of 0.073 to 0.093 ms."""
REFERENCE_ERROR = 0.005
"""The same of a ratio to another file that took turns with it: ten sessions within five minutes, with other work coming
and going, gave ratios that varied by 0.15 %, no more than their own errors tell; days may add to it: assumed."""
BY_REFERENCE = "the ratio takes off by how much the board was slower, told by the file that both sessions timed"
SESSIONS_FREEDOM = 7
"""Degrees of freedom of a spread that was taken from eight sessions."""


def find_ratio(above: Measurement, below: Measurement, percentile: float = MEDIAN) -> StudentSpread:
    """A percentile of one artifact by that of another which took turns with it, over the processes that timed both.

    The common speed of the board is taken off first. Without two such processes it is as of figures measured apart.
    """
    if not took_turns(above, below):
        return divide(above.spread(percentile), below.spread(percentile))
    return _ratio_in_turns(above, below, percentile, percentile)


def took_turns(above: Measurement, below: Measurement) -> bool:
    """Whether enough processes timed both."""
    shared = set.intersection(*({window.process for window in side.steady_windows} for side in (above, below)))
    return len(shared) >= LEAST_PROCESSES


def recorded_ratio(
    new: tuple[Measurement, Measurement | None],
    old: tuple[Measurement, Measurement | None],
    percentile: float = MEDIAN,
) -> StudentSpread:
    """A percentile of one artifact by that of another which was measured in another session.

    Each comes with what took turns with it. Where that is one file in both sessions, what changed on the board between
    them is taken off by it; else it is not, and the error is that much larger.
    """
    pairs = [(file, reference) for file, reference in (new, old) if reference is not None]
    if has_same_reference(new[1], old[1]) and all(took_turns(*pair) for pair in pairs):
        sides = [_ratio_in_turns(file, reference, percentile, MEDIAN) for file, reference in pairs]
        return replace(divide(sides[0], sides[1], REFERENCE_ERROR), basis=BY_REFERENCE)
    error = 0.0 if new[0].is_counted and old[0].is_counted else DAYS_ERROR
    return divide(new[0].spread(percentile), old[0].spread(percentile), error)


def has_same_reference(new: Measurement | None, old: Measurement | None) -> bool:
    """Whether two sessions have one file in common, run in the same way, which tells how fast the board was in each."""
    if new is None or old is None:
        return False
    ways = [
        (side.sha256, side.runtime, side.runtime_version, side.conditions.threads, len(side.steady_windows) > 0)
        for side in (new, old)
    ]
    return ways[0] == ways[1] and ways[0][-1]


@dataclass(frozen=True)
class RankSpread:
    """The ratio of few independent values to others: the median of all ratios of one to another, bounded by ranks
    (Hodges and Lehmann 1963, Moses 1965), which a value that was disturbed does not move.

    Where there are too few for a bound it is that of `means`: of logarithms with one spread (Student 1908).
    """

    ratios: tuple[float, ...]
    """Sorted."""
    values: int
    """Of both sides together."""
    means: StudentSpread
    basis: str = "the ratio is the median of all ratios of one start to another"

    def bound(self, share: float) -> tuple[float, float]:
        """The one-sided bounds, each missed with a probability of `share`."""
        from scipy.special import ndtri

        count = len(self.ratios)
        rank = floor(count / 2 + float(ndtri(share)) * sqrt(count * (self.values + 1) / 12))
        return self.means.bound(share) if rank < 1 else (self.ratios[rank - 1], self.ratios[count - rank])

    @property
    def center(self) -> float:
        """The median ratio."""
        return float(np.median(self.ratios))


def ratio_of_values(new: Sequence[float], old: Sequence[float]) -> RankSpread | None:
    """Few independent values by others, as cold starts; None where there are too few."""
    if min(len(new), len(old)) < 2 or min(*new, *old) <= 0:
        return None
    ratios = np.sort(np.divide.outer(np.asarray(new, float), np.asarray(old, float)), axis=None)
    return RankSpread(tuple(ratios.tolist()), len(new) + len(old), _ratio_of_means(np.log(new), np.log(old)))


def _ratio_of_means(new: np.ndarray, old: np.ndarray) -> StudentSpread:
    freedom = len(new) + len(old) - 2
    variance = sum(float(((logs - logs.mean()) ** 2).sum()) for logs in (new, old)) / freedom
    error = sqrt(variance * (1 / len(new) + 1 / len(old)))
    return StudentSpread(exp(float(new.mean() - old.mean())), error, freedom)


def _ratio_in_turns(above: Measurement, below: Measurement, percentile: float, other: float) -> StudentSpread:
    """Over the processes that timed both, at the common speed: a percentile of one by another of the other."""
    sides = _free_of_speed(above.windows, below.windows)
    return ratio_over_processes(_by_process(above, sides[0], percentile), _by_process(below, sides[1], other))


@lru_cache(maxsize=4)  # one fit for all percentiles of a pair
def _free_of_speed(above: tuple[Window, ...], below: tuple[Window, ...]) -> tuple[SteadyLatency, SteadyLatency]:
    steady = fit_common_speed({"above": above, "below": below})
    return steady["above"], steady["below"]


def _by_process(measurement: Measurement, steady: SteadyLatency, percentile: float) -> dict[int, float]:
    """A percentile in ms of each process; of all samples of its windows, each at the common speed."""
    if percentile == MEDIAN:
        return steady.by_process_ms
    speeds = {(window.process, window.at_s): window.p50_ms for window in steady.windows}
    samples: dict[int, list[np.ndarray]] = {}
    ends = accumulate(window.count for window in measurement.windows)
    for window, end in zip(measurement.windows, ends, strict=True):
        if (key := (window.process, window.at_s)) in speeds:
            own = np.asarray(measurement.samples_ms[end - window.count : end])
            samples.setdefault(window.process, []).append(own * (speeds[key] / window.p50_ms))
    return {process: float(np.percentile(np.concatenate(own), percentile)) for process, own in samples.items()}


def divide(above: StudentSpread, below: StudentSpread, error: float = 0.0) -> StudentSpread:
    """The ratio of two independent figures, of which each side may be off by an `error` more; degrees of freedom after
    Welch and Satterthwaite (1946), those of `error` SESSIONS_FREEDOM.
    """
    parts = [(above.error, above.freedom), (below.error, below.freedom), (error * sqrt(2), SESSIONS_FREEDOM)]
    variance = sum(part**2 for part, _ in parts)
    weight = sum(part**4 / freedom for part, freedom in parts)
    return StudentSpread(above.center / below.center, sqrt(variance), variance**2 / weight if weight else inf)
