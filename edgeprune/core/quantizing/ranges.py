"""Ranges of activations for static quantization, from histograms collected once: the methods to choose from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

Range = tuple[float, float]
"""Lowest and highest value that is represented; 0 lies within."""
BINS = 2048
LEVELS = 256
"""Values of an 8-bit integer."""
UNSEEN = 27.6
"""Nats that a value costs which has no probability: the logarithm of 1e12."""
SHRINKS = np.linspace(1.0, 0.3, 36)
"""Shares of the whole range that a search tries."""


@dataclass(frozen=True)
class Histogram:
    """How often values fall into bins of equal width between `low` <= 0 and `high` >= 0."""

    low: float
    high: float
    counts: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """Ends of the bins, one more than there are bins."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)

    @property
    def centres(self) -> np.ndarray:
        """Middles of the bins."""
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2)


def _find_extremes(histogram: Histogram) -> Range:
    return histogram.low, histogram.high


def _find_percentile(percent: float, histogram: Histogram) -> Range:
    """Cut off the share `100 - percent` of all values at either end (McKinstry et al. 2018)."""
    cut = (1 - percent / 100) * histogram.counts.sum()
    below = np.cumsum(histogram.counts)
    above = np.cumsum(histogram.counts[::-1])
    low = histogram.edges[int(np.searchsorted(below, cut, side="right"))]
    high = histogram.edges[::-1][int(np.searchsorted(above, cut, side="right"))]
    return min(float(low), 0.0), max(float(high), 0.0)


def _find_least_error(histogram: Histogram) -> Range:
    """The range of least mean squared error: rounding within, clipping beyond."""
    values, counts = histogram.centres, histogram.counts
    lows = histogram.low * SHRINKS if histogram.low < 0 else np.zeros(1)
    highs = histogram.high * SHRINKS if histogram.high > 0 else np.zeros(1)
    under = np.minimum(values - lows[:, None], 0) ** 2 @ counts
    over = np.maximum(values - highs[:, None], 0) ** 2 @ counts
    rounding = ((highs[None] - lows[:, None]) / (LEVELS - 1)) ** 2 / 12 * counts.sum()
    low, high = np.unravel_index(np.argmin(rounding + under[:, None] + over[None]), rounding.shape)
    return float(lows[low]), float(highs[high])


def _find_least_divergence(histogram: Histogram) -> Range:
    """The range whose 8-bit distribution diverges least from the true one (Migacz, "8-bit inference", 2017)."""
    divergences = [_divergence(histogram, float(share)) for share in SHRINKS]
    share = float(SHRINKS[int(np.argmin(divergences))])
    return histogram.low * share, histogram.high * share


def _divergence(histogram: Histogram, share: float) -> float:
    """Kullback-Leibler divergence of the clipped values from their 8-bit representation, in nats."""
    inside = (histogram.centres >= histogram.low * share) & (histogram.centres <= histogram.high * share)
    first, last = np.flatnonzero(inside)[[0, -1]]
    counts = histogram.counts[first : last + 1].astype(np.float64)
    if not counts.any():
        return float("inf")
    clipped = counts.copy()
    clipped[0] += histogram.counts[:first].sum()
    clipped[-1] += histogram.counts[last + 1 :].sum()
    level = np.arange(len(counts)) * LEVELS // max(len(counts), LEVELS)
    used = counts > 0
    mass = np.bincount(level, weights=counts)
    shared = np.bincount(level, weights=used)
    coarse = np.where(used, mass[level] / np.maximum(shared[level], 1), 0)
    true, approximate = clipped / clipped.sum(), coarse / coarse.sum()
    overlap = (true > 0) & (approximate > 0)
    lost = float(true[(true > 0) & ~overlap].sum())
    return float((true[overlap] * np.log(true[overlap] / approximate[overlap])).sum()) + lost * UNSEEN


METHODS: dict[str, Callable[[Histogram], Range]] = {
    "min-max": _find_extremes,
    "percentile 99.999": partial(_find_percentile, 99.999),
    "percentile 99.99": partial(_find_percentile, 99.99),
    "percentile 99.9": partial(_find_percentile, 99.9),
    "least error": _find_least_error,
    "entropy": _find_least_divergence,
}
"""Name to the function that gives the range of a tensor; the first clips nothing that was seen."""


def find_range(method: str, histogram: Histogram) -> Range:
    """Range by one of METHODS; never empty, so that a tensor that is always 0 can be held too.

    Raises:
        KeyError: no such method.
    """
    if not histogram.counts.sum() or histogram.low == histogram.high:
        return histogram.low, max(histogram.high, histogram.low + 1e-6)
    low, high = METHODS[method](histogram)
    return (low, high) if high > low else (histogram.low, histogram.high)
