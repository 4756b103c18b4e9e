"""How sure the quality of a file is over so many inputs, and how sure its drop against another over the same ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import numpy as np

from edgeprune.core.measuring.spread import SHARES, TableSpread
from edgeprune.core.measuring.statistics import SEED
from edgeprune.core.metric import Metric

RESAMPLES, LEAST_RESAMPLES = 2000, 200
RESAMPLING_S = 10.0
"""A slow metric is resampled for so long, but LEAST_RESAMPLES times."""
HUNDRED = 100.0
Bound = Callable[[float], tuple[float, float]]


@dataclass(frozen=True)
class QualitySpread:
    """The spread of a quality, and that of its drop (as :meth:`Metric.drop` counts it) against the unpruned net's.

    `drop` is None for the unpruned net itself. Of a share of right answers `right` has a bit for each of `count`
    inputs, in hexadecimal, and `lost` and `gained` count those of which only the other, or only this file, is right. Of
    any other metric `draws` are its values on inputs drawn anew in a fixed order. `inputs_sha256` tells other inputs.
    """

    quality: TableSpread
    drop: TableSpread | None = None
    lost: int | None = None
    gained: int | None = None
    count: int = 0
    right: str = ""
    draws: tuple[float | None, ...] = ()
    inputs_sha256: str = ""


def find_quality_spread(
    metric: Metric, targets: np.ndarray, outputs: np.ndarray, original: QualitySpread | None
) -> QualitySpread | None:
    """The spread over inputs as likely as these; None where the metric gives no numbers on parts of them, or such as
    do not lie about that of them all: it looks at more than outputs and targets, or at their order.

    Of a share of right answers: the interval of Wilson (1927), and for the drop that of Agresti and Min (Statistics in
    Medicine 24, 2005, 729-740), which knows that no difference on N inputs is not none at all. Of any other metric: the
    bootstrap (Efron 1979) over inputs, the same ones for both nets.
    """
    value = _compute(metric, outputs, targets)
    right = _read_right(metric, outputs, targets)
    spread = _resample(metric, targets, outputs) if right is None else _spread_right(right)
    if spread is None or not spread.quality.holds(value):
        return None
    if original is None:
        return spread
    drop = compare_quality(metric, spread, original)
    return spread if drop is None else replace(spread, drop=drop.spread, lost=drop.lost, gained=drop.gained)


@dataclass(frozen=True)
class QualityDrop:
    """How much worse one file is than another over the same inputs, and on how many they differ."""

    spread: TableSpread
    lost: int | None = None
    gained: int | None = None


def compare_quality(metric: Metric, after: QualitySpread, before: QualitySpread) -> QualityDrop | None:
    """How much worse a file is than another, input by input; None where they were not judged on the same inputs."""
    if (after.count, after.inputs_sha256) != (before.count, before.inputs_sha256):
        return None
    if after.right and before.right:
        rights, others = (np.unpackbits(np.frombuffer(bytes.fromhex(side.right), np.uint8)) for side in (after, before))
        lost, gained = int(np.sum(others > rights)), int(np.sum(rights > others))
        table = _tabulate(lambda reach: _agresti_min(lost, gained, after.count, reach))
        return QualityDrop(table, lost, gained)
    pairs = [
        (value, other) for value, other in zip(after.draws, before.draws, strict=False) if None not in (value, other)
    ]
    drops = [metric.drop(value, other) for value, other in pairs if value is not None and other is not None]
    return QualityDrop(_tabulate_draws(drops)) if len(drops) >= LEAST_RESAMPLES else None


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


def _spread_right(right: np.ndarray) -> QualitySpread:
    count, share = len(right), float(right.mean())
    table = _tabulate(lambda reach: _wilson(share, count, reach))
    return QualitySpread(table, count=count, right=np.packbits(right).tobytes().hex())


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


def _resample(metric: Metric, targets: np.ndarray, outputs: np.ndarray) -> QualitySpread | None:
    """Over inputs drawn anew, in the same order for every file."""
    values = list(_draw(metric, targets, outputs))
    numbers = [value for value in values if value is not None]
    if len(numbers) < LEAST_RESAMPLES:
        return None
    return QualitySpread(_tabulate_draws(numbers), count=len(outputs), draws=tuple(values))


def _draw(metric: Metric, targets: np.ndarray, outputs: np.ndarray) -> Iterator[float | None]:
    random, count, end_s = np.random.default_rng(SEED), len(outputs), time.monotonic() + RESAMPLING_S
    for number in range(RESAMPLES):
        if number >= LEAST_RESAMPLES and time.monotonic() > end_s:
            return
        drawn = random.integers(0, count, count)
        value = _compute(metric, outputs[drawn], targets[drawn])
        yield value if math.isfinite(value) else None


def parse_quality_spread(row: Mapping[str, Any] | None) -> QualitySpread | None:
    """Read back what `dataclasses.asdict` gave."""
    if row is None:
        return None
    tables = {
        name: TableSpread(**{end: tuple(row[name][end]) for end in ("lows", "highs")}) if row[name] else None
        for name in ("quality", "drop")
    }
    return QualitySpread(**{**row, **tables, "draws": tuple(row["draws"])})


def _tabulate_draws(values: Any) -> TableSpread:
    lows = tuple(float(value) for value in np.quantile(values, SHARES))
    highs = tuple(float(value) for value in np.quantile(values, [1 - share for share in SHARES]))
    return TableSpread(lows, highs)
