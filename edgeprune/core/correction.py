"""How single layers, measured alone, add up to a whole net: a correction learned from whole nets on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, sqrt

import numpy as np

from edgeprune.core.confidence import Spread
from edgeprune.core.layers import JOIN, LayerShape
from edgeprune.errors import PlanError

NOISE = 0.02
"""Relative error of a whole net up to which a fit counts it in full."""
SESSION = 0.012
"""How far figures of one net lie apart between sessions on a machine that others share: 1 to 2 % (minima, medians)."""
LAYERS_PRIOR, JOINS_PRIOR, OFFSET_PRIOR, WEIGHTS_PRIOR = 0.3, 0.45, 0.15, 0.3
"""How far each part is expected to lie off, before any net is measured: of what layers and joins add up to; of the
slowest net's latency for the rest. Wide enough for any board seen so far; they matter where few nets are measured."""
STEPS = 20


@dataclass(frozen=True)
class Correction:
    """What layers cost within a net, from what they cost alone.

    A layer: `scale * alone + per_megaweight_ms * weights / 1e6`, as its weights come from farther away where other
    layers use the caches too. A join: `join_scale * alone`. A net costs `offset_ms` more than these add up to, or less:
    each model of one layer has the cost of a call, of which only the least is taken off.

    Learned from `variants` whole nets; `error` is the mean absolute leave-one-out error as a fraction, `sigma` and
    `freedom` are the spread of other nets about what is predicted of them (:class:`Spread`).
    """

    scale: float = 1.0
    join_scale: float = 1.0
    offset_ms: float = 0.0
    per_megaweight_ms: float = 0.0
    variants: int = 0
    error: float | None = None
    sigma: float | None = None
    freedom: float = 0.0

    @property
    def spread(self) -> Spread:
        """How far measured nets lie from predicted ones.

        Raises:
            PlanError: too few nets were measured to know.
        """
        if self.sigma is None:
            raise PlanError(f"confidence: {self.variants} measured nets do not tell how far predictions lie off")
        return Spread(self.sigma, self.freedom)

    def layer_ms(self, shape: LayerShape, alone_ms: float) -> float:
        """Latency of a layer within a net, in ms; what a join saves is below zero."""
        if shape.op == JOIN:
            return self.join_scale * alone_ms
        return max(0.0, self.scale * alone_ms + self.per_megaweight_ms * shape.weights / 1e6)


@dataclass(frozen=True)
class MeasuredNet:
    """A whole net: what its layers and its joins add up to, its weights in millions, and what it took, in ms."""

    layers_ms: float
    joins_ms: float
    megaweights: float
    measured_ms: float


def fit_correction(nets: Sequence[MeasuredNet]) -> Correction:
    """Learn a correction from whole nets.

    Relative errors are minimised by Huber's loss, which a disturbed measurement hardly moves, with normal priors on the
    four parts (Bayesian linear regression), so that a few nets are enough. The error is leave-one-out: each net is
    predicted by a fit that has not seen it.

    Raises:
        ValueError: fewer than two nets.
    """
    if len(nets) < 2:
        raise ValueError("a correction needs two measured nets or more")
    columns = np.array([[net.layers_ms, net.joins_ms, 1.0, net.megaweights] for net in nets])
    measured = np.array([net.measured_ms for net in nets])
    found, parameters = _fit(columns, measured)
    rest = [np.arange(len(nets)) != index for index in range(len(nets) if len(nets) > 2 else 0)]
    left_out = [columns[~other] @ _fit(columns[other], measured[other])[0] / measured[~other] - 1 for other in rest]
    residuals, freedom = columns @ found / measured - 1, len(nets) - parameters
    known = freedom >= 1
    variance = float(residuals @ residuals) / freedom * (1 + parameters / len(nets)) if known else 0.0
    scale, join_scale, offset_ms, per_megaweight_ms = map(float, found)
    return Correction(
        scale,
        join_scale,
        offset_ms,
        per_megaweight_ms,
        variants=len(nets),
        error=float(np.mean(np.abs(left_out))) if left_out else None,
        sigma=hypot(sqrt(variance), SESSION) if known else None,
        freedom=float(freedom) if known else 0.0,
    )


def _fit(columns: np.ndarray, measured: np.ndarray) -> tuple[np.ndarray, float]:
    """The coefficients, and how many parameters the nets really settled (the trace of the hat matrix)."""
    rows, slowest = columns / measured[:, None], float(measured.max())
    weights_most = float(columns[:, 3].max()) or 1.0
    prior = np.array([1.0, 1.0, 0.0, 0.0])
    widths = [LAYERS_PRIOR, JOINS_PRIOR, OFFSET_PRIOR * slowest, WEIGHTS_PRIOR * slowest / weights_most]
    precision = np.diag(1 / np.square(widths))
    trust, found = np.ones(len(measured)), prior
    for _ in range(STEPS):
        weighted = rows * (trust / NOISE**2)[:, None]
        curvature = weighted.T @ rows + precision
        found = np.linalg.solve(curvature, weighted.sum(axis=0) + precision @ prior)
        trust = NOISE / np.maximum(np.abs(rows @ found - 1), NOISE)
    settled = float(np.trace(np.linalg.solve(curvature, weighted.T @ rows)))
    return found, settled
