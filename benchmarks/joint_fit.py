"""One fit of an estimated profile's parameters to rows of many boards and runtimes at once.

Hierarchical Bayesian regression: the logarithms of a source's parameters are the sum of a part that all share and of
parts of its runtime, its core, its chip and its own, each normal around nought. What a source says nothing of is drawn
to what its kin say. Solved by Gauss and Newton's method for the posterior of all parts, in the space of the rows, with
rows far off counting less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.core.estimating.calibrate import CountedRows
from edgeprune.core.estimating.estimate import Parameter
from edgeprune.core.estimating.prior import PARAMETERS, PRIOR
from edgeprune.core.estimating.work import Array

LEVELS = {"runtime": 0.6, "core": 0.5, "chip": 0.4, "source": 0.5}
"""How much of what boards vary by (`Assumption.varies`) is due to what; their squares add up to about one."""
NOISE = 0.8
"""What a row misses beyond the parameters, as a share of its spread."""
ANY_SPEED = 0.7
"""Spread of the speed of a source whose conditions are not stated."""
ROUNDS, STRIDE = 10, 0.6
"""Rounds of linearization, and the most that a logarithm moves in one."""
MEAN = np.log([prior.value for prior in PRIOR.values()])
SHARED = np.array([prior.spread for prior in PRIOR.values()]) ** 2
VARIES = np.array([prior.varies for prior in PRIOR.values()]) ** 2
SPEED = PARAMETERS.index("speed")


@dataclass(frozen=True)
class Sample:
    """Rows of one source, and what it has in common with others by the names of `LEVELS`."""

    labels: Mapping[str, str]
    rows: CountedRows
    relative: bool = False


@dataclass(frozen=True)
class JointFit:
    """The posterior, linear in the rows: see :meth:`at`."""

    samples: tuple[Sample, ...]
    of_row: Array
    slopes: Array
    inverse: Array
    pull: Array

    def at(self, labels: Mapping[str, str]) -> dict[str, Parameter]:
        """Parameters of a source that is not among the samples, by what it has in common with them."""
        kin = np.array([_kinship(labels, sample.labels) for sample in self.samples])[self.of_row]
        cross = self.slopes * (SHARED + VARIES * kin[:, None])
        logs = MEAN + cross.T @ self.pull
        whole = SHARED + VARIES * sum(share**2 for share in LEVELS.values())
        spreads = np.sqrt(whole - np.einsum("rp,rs,sp->p", cross, self.inverse, cross))
        return {
            name: Parameter(float(np.exp(log)), float(spread))
            for name, log, spread in zip(PARAMETERS, logs, spreads, strict=True)
        }


def _kinship(labels: Mapping[str, str], other: Mapping[str, str]) -> float:
    """Share of what boards vary by that two sources have in common."""
    return sum(share**2 for name, share in LEVELS.items() if name in labels and labels[name] == other.get(name))


def fit_jointly(samples: Sequence[Sample]) -> JointFit:
    """Fit all samples at once."""
    of_row = np.repeat(np.arange(len(samples)), [len(sample.rows.goal) for sample in samples])
    kinship = np.array([[_kinship(sample.labels, other.labels) for other in samples] for sample in samples])
    relative = np.array([sample.relative for sample in samples])[of_row]
    loose = (of_row[:, None] == of_row) & relative[:, None]
    expected = NOISE * np.concatenate([sample.rows.spread for sample in samples])
    points = np.tile(MEAN, (len(samples), 1))
    for _ in range(ROUNDS):
        missed = np.concatenate(
            [sample.rows.misses(at[None, :])[0] for sample, at in zip(samples, points, strict=True)]
        )
        slopes = np.vstack([sample.rows.slopes(at) for sample, at in zip(samples, points, strict=True)])
        own = np.einsum("rp,rp->r", slopes, points[of_row] - MEAN) - missed
        covariance = (slopes * SHARED) @ slopes.T + (slopes * VARIES) @ slopes.T * kinship[np.ix_(of_row, of_row)]
        covariance += loose * np.outer(slopes[:, SPEED], slopes[:, SPEED]) * ANY_SPEED**2
        noise = expected**2 * np.sqrt(1 + (missed / expected) ** 2)
        inverse = np.linalg.inv(covariance + np.diag(noise))
        pull = inverse @ own
        pulled = slopes * pull[:, None]
        moved = [
            MEAN + SHARED * pulled.sum(axis=0) + VARIES * (kin[of_row][:, None] * pulled).sum(axis=0) for kin in kinship
        ]
        for index, sample in enumerate(samples):
            moved[index][SPEED] += sample.relative * ANY_SPEED**2 * pulled[of_row == index, SPEED].sum()
        points = points + np.clip(np.array(moved) - points, -STRIDE, STRIDE)
    return JointFit(tuple(samples), of_row, slopes, inverse, pull)
