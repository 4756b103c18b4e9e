"""Where a series of figures changed its level: change points."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

LEAST = 3
"""Figures in a segment at least."""
PERMUTATIONS = 999
SIGNIFICANCE = 0.01
"""How often, at most, a series without a change is cut nevertheless."""
DECAY = 0.5**0.5
"""Length of the intervals of each layer by that of the layer above."""
SEED = 20261121
"""Fixed, so that the same series always has the same change points."""


def find_change_points(values: Sequence[float], significance: float = SIGNIFICANCE) -> tuple[int, ...]:
    """Where new levels begin: the index of the first figure of each segment but the first, in order.

    The series is cut where the ranks before and after differ most (Pettitt, "A non-parametric approach to the
    change-point problem", Applied Statistics 28, 1979), looked for in intervals of all lengths so that a level that
    comes and goes is seen (Kovács et al., "Seeded binary segmentation", Biometrika 110, 2023); if so large a difference
    is rarer than `significance` among random orders of the same figures, each part is cut anew (Matteson and James, "A
    nonparametric approach for multiple change point analysis of multivariate data", JASA 109, 2014). Ranks let no
    single outlier make a change. Fewer than ten figures hold no change that could be told from chance.
    """
    cuts: list[int] = []
    waiting = [(0, len(values))]
    series = np.asarray(values, dtype=float)
    while waiting:
        begin, end = waiting.pop()
        cut = _find_cut(series[begin:end], significance)
        if cut is not None:
            cuts.append(begin + cut)
            waiting += [(begin, begin + cut), (begin + cut, end)]
    return tuple(sorted(cuts))


def _find_cut(series: np.ndarray, significance: float) -> int | None:
    """Where the second part of a series begins, if it has two."""
    if series.size < 2 * LEAST:
        return None
    ranks, random, splits = _rank(series), np.random.default_rng(SEED), _list_splits(series.size)
    differences = _differ(ranks, splits)
    most = float(differences.max()) * (1 - 1e-12)
    equalled = 1
    for _ in range(PERMUTATIONS):
        equalled += float(_differ(random.permutation(ranks), splits).max()) >= most
        if equalled > significance * (PERMUTATIONS + 1):
            return None
    return int(splits[1][np.argmax(differences)])


def _list_splits(count: int) -> np.ndarray:
    """Seeded intervals and every cut in them: begins, cuts and ends in three rows; the whole series comes first."""
    splits, layer = [], 0
    while (length := ceil(count * DECAY**layer)) >= 2 * LEAST:
        shifts = 2 * ceil(DECAY**-layer) - 1
        for begin in np.unique(np.linspace(0, count - length, shifts).astype(int)):
            cuts = np.arange(begin + LEAST, begin + length - LEAST + 1)
            splits.append(np.stack([np.full(cuts.size, begin), cuts, np.full(cuts.size, begin + length)]))
        layer += 1
    return np.concatenate(splits, axis=1)


def _differ(ranks: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """How far the mean ranks before and after each cut lie apart, by their standard deviation but for a factor that is
    the same for all orders."""
    begins, cuts, ends = splits
    sums = np.concatenate([[0.0], np.cumsum(ranks)])
    before, after = cuts - begins, ends - cuts
    gaps = (sums[ends] - sums[cuts]) / after - (sums[cuts] - sums[begins]) / before
    return np.asarray(np.abs(gaps) * np.sqrt(before * after / (before + after)))


def _rank(series: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal figures share the mean of theirs."""
    _, places, counts = np.unique(series, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places])
