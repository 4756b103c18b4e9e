"""How sure the quality of a file is over so many inputs, and how sure its drop against another over the same ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from edgeprune.core.measuring.spread import SHARES, TableSpread
from edgeprune.core.measuring.statistics import SEED
from edgeprune.core.metric import Metric

RESAMPLES, LEAST_RESAMPLES = 4000, 200
RESAMPLING_S = 10.0
"""A slow metric is resampled for so long, but LEAST_RESAMPLES times."""
HUNDRED = 100.0
Bound = Callable[[float], tuple[float, float]]


@dataclass(frozen=True)
class QualitySpread:
    """The spread of a quality, and that of its drop (as :meth:`Metric.drop` counts it) against the unpruned net's.

    `lost` and `gained` are inputs of which only the other, or only this file, is right; None where the metric is not a
    share of right answers. `drop` is None for the unpruned net itself.
    """

    quality: TableSpread
    drop: TableSpread | None = None
    lost: int | None = None
    gained: int | None = None


def find_quality_spread(
    metric: Metric, targets: np.ndarray, outputs: np.ndarray, original: np.ndarray | None
) -> QualitySpread | None:
    """The spread over inputs as likely as these; None where the metric gives no numbers on parts of them.

    Of a share of right answers: the interval of Wilson (1927), and for the drop that of Agresti and Min (Statistics in
    Medicine 24, 2005, 729-740), which knows that no difference on N inputs is not none at all. Of any other metric: the
    bootstrap (Efron 1979) over inputs, the same ones for both nets.
    """
    right = _read_right(metric, outputs, targets)
    before = None if original is None else _read_right(metric, original, targets)
    if right is not None and (original is None or before is not None):
        return _spread_right(right, before)
    return _resample(metric, targets, outputs, original)


def _read_right(metric: Metric, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray | None:
    """Which inputs are answered rightly; None where the metric is no share of these in percent."""
    if not metric.is_percent:
        return None
    each = []
    for number in range(len(outputs)):
        value = _compute(metric, outputs[number : number + 1], targets[number : number + 1])
        if value not in (0.0, HUNDRED):
            return None
        each.append(value)
    is_mean = math.isclose(float(np.mean(each)), _compute(metric, outputs, targets), abs_tol=1e-6)
    return np.array(each) == HUNDRED if is_mean else None


def _compute(metric: Metric, outputs: np.ndarray, targets: np.ndarray) -> float:
    """The metric of some inputs; NaN where it has none (a class that is missing among them)."""
    with suppress(Exception), np.errstate(all="ignore"):
        return float(metric(outputs, targets))
    return math.nan


def _spread_right(right: np.ndarray, before: np.ndarray | None) -> QualitySpread:
    count, share = len(right), float(right.mean())
    quality = _tabulate(lambda reach: _wilson(share, count, reach))
    if before is None:
        return QualitySpread(quality)
    lost, gained = int(np.sum(before & ~right)), int(np.sum(right & ~before))
    return QualitySpread(quality, _tabulate(lambda reach: _agresti_min(lost, gained, count, reach)), lost, gained)


def _tabulate(bound: Bound) -> TableSpread:
    from scipy.special import ndtri

    rows = [bound(-float(ndtri(share))) for share in SHARES]
    return TableSpread(tuple(low for low, _ in rows), tuple(high for _, high in rows))


def _wilson(share: float, count: int, reach: float) -> tuple[float, float]:
    weight = 1 + reach**2 / count
    middle = (share + reach**2 / (2 * count)) / weight
    half = reach / weight * sqrt(share * (1 - share) / count + (reach / (2 * count)) ** 2)
    return HUNDRED * max(0.0, middle - half), HUNDRED * min(1.0, middle + half)


def _agresti_min(lost: int, gained: int, count: int, reach: float) -> tuple[float, float]:
    """Half an input more in each of the four cells of right and wrong, before and after."""
    total, difference = count + 2, lost - gained
    half = reach * sqrt(lost + gained + 1 - difference**2 / total) / total
    return HUNDRED * (difference / total - half), HUNDRED * (difference / total + half)


def _resample(
    metric: Metric, targets: np.ndarray, outputs: np.ndarray, original: np.ndarray | None
) -> QualitySpread | None:
    """Over inputs drawn anew, the same for both nets."""
    rows = np.array(list(_draw(metric, targets, outputs, original)))
    rows = rows[np.isfinite(rows).all(axis=1)]
    if len(rows) < LEAST_RESAMPLES:
        return None
    quality = _tabulate_draws(rows[:, 0])
    drops = None if original is None else np.array([metric.drop(after, before) for after, before in rows])
    return QualitySpread(quality, None if drops is None else _tabulate_draws(drops))


def _draw(
    metric: Metric, targets: np.ndarray, outputs: np.ndarray, original: np.ndarray | None
) -> Iterator[tuple[float, ...]]:
    random, count, end_s = np.random.default_rng(SEED), len(outputs), time.monotonic() + RESAMPLING_S
    nets = [outputs] if original is None else [outputs, original]
    for number in range(RESAMPLES):
        if number >= LEAST_RESAMPLES and time.monotonic() > end_s:
            return
        drawn = random.integers(0, count, count)
        yield tuple(_compute(metric, net[drawn], targets[drawn]) for net in nets)


def _tabulate_draws(values: Any) -> TableSpread:
    lows = tuple(float(value) for value in np.quantile(values, SHARES))
    highs = tuple(float(value) for value in np.quantile(values, [1 - share for share in SHARES]))
    return TableSpread(lows, highs)
