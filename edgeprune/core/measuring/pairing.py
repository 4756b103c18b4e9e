"""How the latency of one artifact relates to that of another: measured in turns, or each in a session of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from math import exp, floor, log, sqrt
from typing import NamedTuple

import numpy as np

from edgeprune.core.measuring.measurement import Measurement
from edgeprune.core.measuring.statistics import CONFIDENCE
from edgeprune.core.measuring.windows import SteadyLatency, Window, fit_common_speed

MEDIAN = 50.0
LEAST_PROCESSES = 2
SESSION_SPREAD = 0.07
"""Standard deviation of the logarithm of a latency from one session to the next, beyond what the processes of one
session tell: eight calls of `edgeprune measure` on one file, on an idle machine, gave medians of 0.073 to 0.093 ms."""
REFERENCE_SPREAD = 0.005
"""The same of a ratio to another file that took turns with it: ten sessions within five minutes, with other work coming
and going, gave ratios that varied by 0.15 %, no more than their own errors tell; days may add to it: assumed."""
SESSIONS_FREEDOM = 7
"""Degrees of freedom of a spread that was taken from eight sessions."""


class LatencyRatio(NamedTuple):
    """The latency of one artifact by that of another, the standard error of its logarithm, and degrees of freedom."""

    ratio: float
    error: float
    freedom: float

    def bound(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """The interval that holds the ratio with this probability, by Student's t of its logarithm."""
        from scipy.special import stdtrit

        reach = float(stdtrit(self.freedom, (1 + confidence) / 2)) * self.error
        return self.ratio * exp(-reach), self.ratio * exp(reach)


def paired_ratio(new: Measurement, old: Measurement, percentile: float = MEDIAN) -> LatencyRatio:
    """A percentile of one artifact by that of another which took turns with it, over the processes that timed both.

    The common speed of the board is taken off first.

    Raises:
        ValueError: fewer than two processes timed both.
    """
    logs = _process_logs(new, old, percentile, percentile)
    if len(logs) < LEAST_PROCESSES:
        raise ValueError(f"{len(logs)} processes timed both; an interval needs {LEAST_PROCESSES} at least")
    return _summarise(logs)


def recorded_ratio(
    new: tuple[Measurement, Measurement | None],
    old: tuple[Measurement, Measurement | None],
    percentile: float = MEDIAN,
) -> LatencyRatio:
    """A percentile of one artifact by that of another which was measured in another session.

    Each comes with what took turns with it. Where that is one file in both sessions, what changed on the board between
    them is taken off by it; else it is not, and the error is that much larger.

    """
    references = new[1], old[1]
    if has_same_reference(*references):
        sides = [_to_reference(file, reference, percentile) for file, reference in (new, old) if reference is not None]
        spread = REFERENCE_SPREAD
    else:
        sides, spread = [_summarise(_percentile_logs(file, percentile)) for file, _ in (new, old)], SESSION_SPREAD
    return _divide(sides[0], sides[1], spread * sqrt(2))


def has_same_reference(new: Measurement | None, old: Measurement | None) -> bool:
    """Whether two sessions have one file in common, run in the same way, which tells how fast the board was in each."""
    if new is None or old is None:
        return False
    ways = [
        (side.sha256, side.runtime, side.runtime_version, side.conditions.threads, len(side.steady_windows) > 0)
        for side in (new, old)
    ]
    return ways[0] == ways[1] and ways[0][-1]


def ratio_of_values(
    new: Sequence[float], old: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float, float] | None:
    """Few independent values by others, as cold starts, and the interval; None where there are too few.

    The median of all ratios of one to the other, bounded by ranks (Hodges and Lehmann 1963, Moses 1965), which a start
    that was disturbed does not move; where there are too few for that, means of logarithms with one spread (Student
    1908), which two or three values tell badly: that interval is wide.
    """
    if min(len(new), len(old)) < 2 or min(*new, *old) <= 0:
        return None
    count = len(new) * len(old)
    rank = floor(count / 2 - _normal(confidence) * sqrt(count * (len(new) + len(old) + 1) / 12))
    if rank < 1:
        return _ratio_of_means(np.log(new), np.log(old), confidence)
    ratios = np.sort(np.divide.outer(np.asarray(new, float), np.asarray(old, float)), axis=None)
    return float(np.median(ratios)), float(ratios[rank - 1]), float(ratios[count - rank])


def _normal(confidence: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + confidence) / 2))


def _ratio_of_means(new: np.ndarray, old: np.ndarray, confidence: float) -> tuple[float, float, float]:
    freedom = len(new) + len(old) - 2
    variance = sum(float(((logs - logs.mean()) ** 2).sum()) for logs in (new, old)) / freedom
    error = sqrt(variance * (1 / len(new) + 1 / len(old)))
    ratio = LatencyRatio(exp(float(new.mean() - old.mean())), error, freedom)
    return ratio.ratio, *ratio.bound(confidence)


def _to_reference(file: Measurement, reference: Measurement, percentile: float) -> LatencyRatio:
    return _summarise(_process_logs(file, reference, percentile, MEDIAN))


def _process_logs(above: Measurement, below: Measurement, percentile: float, other_percentile: float) -> list[float]:
    """The logarithm of the ratio in each process that timed both, at the common speed."""
    sides = _free_of_speed(above.windows, below.windows)
    mine, others = _by_process(above, sides[0], percentile), _by_process(below, sides[1], other_percentile)
    return [log(mine[process] / others[process]) for process in mine if process in others]


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


def _percentile_logs(measurement: Measurement, percentile: float) -> list[float]:
    """The logarithm of a percentile in each process of a session, as it was measured."""
    return [
        log(float(np.percentile(samples, percentile)))
        for samples in measurement.samples_by_process.values()
        if len(samples)
    ]


def _summarise(logs: Sequence[float]) -> LatencyRatio:
    """The mean over processes. Of one alone no error is known: the spread of sessions stands for it."""
    count = len(logs)
    error = float(np.std(logs, ddof=1)) / sqrt(count) if count > 1 else 0.0
    return LatencyRatio(exp(float(np.mean(logs))), error, max(1, count - 1))


def _divide(new: LatencyRatio, old: LatencyRatio, spread: float) -> LatencyRatio:
    """The ratio of two independent figures; degrees of freedom after Welch and Satterthwaite (1946)."""
    parts = [(new.error, new.freedom), (old.error, old.freedom), (spread, SESSIONS_FREEDOM)]
    variance = sum(error**2 for error, _ in parts)
    freedom = variance**2 / sum(error**4 / freedom for error, freedom in parts)
    return LatencyRatio(new.ratio / old.ratio, sqrt(variance), freedom)
