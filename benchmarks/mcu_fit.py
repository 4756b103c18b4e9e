"""One fit of cycle prices to published results of many cores and runtimes at once.

Hierarchical Bayesian regression, as `joint_fit.py`: the logarithms of a submission's prices are the sum of a part that
all share and of parts of its core, its runtime, both together, the runtime's version, the board and its own, each
normal around nought; a part moves all prices alike and, less, each of them. Gauss and Newton's method in the space of
the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mcu_rows import Submission

from edgeprune.core.estimating.cycles import TERMS, Array

MEAN = np.log([1.5, 1.0, 1.0, 3.0, 1.5, 12.0, 1.0, 2.0, 8.0, 1500.0])
"""Cycles assumed of each unit of TERMS before any result: SMLAD of a Cortex-M4 does two multiply-accumulates, and loads
and widens their operands; scaling an output back to int8 takes a dozen instructions."""
SHARED_ALL, SHARED_TERM = 0.3, 0.5
LEVELS = {
    "core": (0.8, 0.2),
    "runtime": (0.5, 0.25),
    "pair": (0.1, 0.1),
    "version": (0.1, 0.1),
    "board": (0.05, 0.03),
    "submission": (0.02, 0.02),
}
"""By what submissions have in common: standard deviations of what moves all prices alike, and each of them."""
ROUNDS, STRIDE = 12, 0.7


@dataclass(frozen=True)
class CycleFit:
    """The posterior, linear in the rows: see :meth:`at`."""

    labels: tuple[Mapping[str, str], ...]
    of_row: np.ndarray
    slopes: Array
    pull: Array

    def at(self, labels: Mapping[str, str]) -> dict[str, float]:
        """Prices by what they have in common with what was published."""
        logs = MEAN.copy()
        for row, index in enumerate(self.of_row):
            logs = logs + _covariance(labels, self.labels[index]) @ self.slopes[row] * self.pull[row]
        return dict(zip(TERMS, np.exp(logs).tolist(), strict=True))


def _covariance(labels: Mapping[str, str], other: Mapping[str, str]) -> Array:
    """Covariance of the log prices of two submissions. Shape (terms, terms)."""
    alike, single = SHARED_ALL**2, SHARED_TERM**2
    for level, (every, each) in LEVELS.items():
        if level in labels and labels[level] == other.get(level):
            alike, single = alike + every**2, single + each**2
    covariance: Array = np.full((len(TERMS), len(TERMS)), alike) + single * np.eye(len(TERMS))
    return covariance


def fit_cycles(submissions: Sequence[Submission]) -> CycleFit:
    """Fit all submissions at once."""
    labels = tuple(submission.labels for submission in submissions)
    of_row = np.repeat(np.arange(len(labels)), [len(submission.rows) for submission in submissions])
    rows = [row for submission in submissions for row in submission.rows]
    work, goal = np.array([row.work for row in rows]), np.log([row.cycles for row in rows])
    noise = np.array([row.spread for row in rows]) ** 2
    kin = np.array([[_covariance(one, other) for other in labels] for one in labels])
    points = np.tile(MEAN, (len(labels), 1))
    for _ in range(ROUNDS):
        parts = work * np.exp(points[of_row])
        slopes = parts / parts.sum(axis=1, keepdims=True)
        missed = np.log(parts.sum(axis=1)) - goal
        own = np.einsum("rt,rt->r", slopes, points[of_row] - MEAN) - missed
        covariance = np.einsum("rt,rstu,su->rs", slopes, kin[np.ix_(of_row, of_row)], slopes)
        expected = noise * np.sqrt(1 + missed**2 / noise)
        pull = np.linalg.solve(covariance + np.diag(expected), own)
        moved = MEAN + np.einsum("lrtu,ru,r->lt", kin[:, of_row], slopes, pull)
        points = points + np.clip(moved - points, -STRIDE, STRIDE)
    return CycleFit(labels, of_row, slopes, pull)
