"""How single layers, measured alone, add up to a whole net: a correction learned from whole nets on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot, inf, isfinite, sqrt

import numpy as np

from edgeprune.core.latency.confidence import Spread
from edgeprune.core.latency.layers import JOIN, LayerShape
from edgeprune.errors import PlanError

NOISE = 0.02
"""Relative error of a whole net up to which a fit counts it in full."""
SESSION = 0.012
"""How far figures of one net lie apart between sessions on a machine that others share: 1 to 2 % (minima, medians)."""
LAYERS_PRIOR, JOINS_PRIOR, OFFSET_PRIOR = 0.3, 0.45, 0.15
WEIGHTS_PRIOR, BESIDE_PRIOR, BEYOND_PRIOR, KINDS_PRIOR = 0.3, 0.3, 0.3, 0.5
"""How far each part is expected to lie off, before any net is measured: of what layers and joins add up to; of the
slowest net's latency for the rest. Wide enough for any board seen so far; they matter where few nets are measured."""
KNOTS = np.linspace(0.1, 0.7, 13)
"""Where the caches may end: at these quantiles of what the measured nets move."""
WORTH = 0.75
"""A knot is believed if it leaves at most this share of the error of a correction without one."""
STEPS = 20
PARTS = ("scale", "join_scale", "offset_ms", "per_megaweight_ms", "per_beside_megavalue_ms", "per_megavalue_ms")
"""What is learned, before what single kinds of layers add."""
SPATIAL, POINTWISE, VECTOR, DEPTHWISE, LINEAR, OTHER = "spatial", "pointwise", "vector", "depthwise", "linear", "other"
"""Kinds of layers: runtimes have kernels of their own for each, which lose or gain in a net together. "vector" is a 1x1
convolution of a single place, as in squeeze-and-excitation; "other" what has no weights."""


def find_kind(shape: LayerShape) -> str:
    """The kind of a layer, by the kernels that compute it."""
    if not shape.has_weights:
        return OTHER
    if shape.op == LINEAR:
        return LINEAR
    if shape.is_depthwise:
        return DEPTHWISE
    if set(shape.kernel) != {1}:
        return SPATIAL
    return POINTWISE if max(shape.size) > 1 else VECTOR


@dataclass(frozen=True)
class Correction:
    """What layers cost within a net, from what they cost alone.

    A layer: `scale`, and what its kind adds to it, times `alone`; and `per_megaweight_ms` for each million of weights,
    as these come from farther away where other layers use the caches too. A join: `join_scale * alone`. What is beside
    the layers: `per_beside_megavalue_ms` for each million of values that it reads and writes. A net costs `offset_ms`
    more than these add up to, or less: each model of one layer has the cost of a call, of which only the least is taken
    off. What a net moves beyond `cached_megavalues` weights and activations (in millions) no longer stays in the caches
    from one inference to the next, and costs `per_megavalue_ms`.

    Learned from `variants` whole nets; `error` is the mean absolute leave-one-out error as a fraction, `sigma` and
    `freedom` are the spread of other nets about what is predicted of them (:class:`Spread`).
    """

    scale: float = 1.0
    join_scale: float = 1.0
    offset_ms: float = 0.0
    per_megaweight_ms: float = 0.0
    per_beside_megavalue_ms: float = 0.0
    per_megavalue_ms: float = 0.0
    cached_megavalues: float = 0.0
    kind_scales: Mapping[str, float] = field(default_factory=dict)
    """How much more, or less, than `scale` stands before the layers of a kind (:func:`find_kind`)."""
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
        beside_ms = self.per_beside_megavalue_ms * shape.beside_values / 1e6
        scale = self.scale + self.kind_scales.get(find_kind(shape), 0.0)
        return max(0.0, scale * alone_ms + self.per_megaweight_ms * shape.weights / 1e6 + beside_ms)

    def beyond_ms(self, megavalues: float) -> float:
        """What a net costs more because the caches do not hold all that it moves."""
        return self.per_megavalue_ms * max(0.0, megavalues - self.cached_megavalues)


@dataclass(frozen=True)
class MeasuredNet:
    """A whole net: what its layers and its joins add up to, and what it took, in ms; what it holds and moves.

    `megaweights` are its weights, `megavalues` its weights and activations, `beside_megavalues` the activations of what
    is beside its layers, in millions.
    """

    layers_ms: float
    joins_ms: float
    megaweights: float
    measured_ms: float
    megavalues: float = 0.0
    beside_megavalues: float = 0.0
    kinds_ms: Mapping[str, float] = field(default_factory=dict)
    """What the layers of each kind add up to."""


def fit_correction(nets: Sequence[MeasuredNet], twin_gap: float = 0.0) -> Correction:
    """Learn a correction from whole nets; `twin_gap` is how far the same net, measured twice, was apart (a fraction).

    Relative errors are minimised by Huber's loss, which a disturbed measurement hardly moves, with normal priors on the
    parts (Bayesian linear regression), so that a few nets are enough. The error is leave-one-out: each net is predicted
    by a fit that has not seen it; so is decided whether, and where, the caches end.

    Raises:
        ValueError: fewer than two nets.
    """
    if len(nets) < 2:
        raise ValueError("a correction needs two measured nets or more")
    plain = _correct(nets, inf, twin_gap)
    knots = [float(knot) for knot in np.quantile([net.megavalues for net in nets], KNOTS)]
    bent = _correct(nets, min(knots, key=lambda knot: _misfit(nets, knot)), twin_gap)
    believed = bent.per_megavalue_ms > 0 and (bent.error or 0.0) < WORTH * (plain.error or 0.0)
    return bent if believed else plain


def _find_kinds(nets: Sequence[MeasuredNet]) -> list[str]:
    """The kinds of layers that these nets have; none where all are of one, whose scale is that of all."""
    kinds = sorted({kind for net in nets for kind, alone_ms in net.kinds_ms.items() if alone_ms > 0})
    return kinds if len(kinds) > 1 else []


def _columns(nets: Sequence[MeasuredNet], knot: float) -> tuple[np.ndarray, np.ndarray]:
    kinds = _find_kinds(nets)
    rows = [
        [net.layers_ms, net.joins_ms, 1.0, net.megaweights, net.beside_megavalues, max(0.0, net.megavalues - knot)]
        + [net.kinds_ms.get(kind, 0.0) for kind in kinds]
        for net in nets
    ]
    return np.array(rows), np.array([net.measured_ms for net in nets])


def _misfit(nets: Sequence[MeasuredNet], knot: float) -> float:
    columns, measured = _columns(nets, knot)
    return float(np.mean(np.abs(columns @ _fit(columns, measured)[0] / measured - 1)))


def _correct(nets: Sequence[MeasuredNet], knot: float, twin_gap: float) -> Correction:
    """The correction if the caches hold so many millions of values."""
    columns, measured = _columns(nets, knot)
    coefficients, parameters = _fit(columns, measured)
    masks = [np.arange(len(nets)) != index for index in range(len(nets) if len(nets) > 2 else 0)]
    left_out = [columns[~mask] @ _fit(columns[mask], measured[mask])[0] / measured[~mask] - 1 for mask in masks]
    residuals, freedom = columns @ coefficients / measured - 1, len(nets) - parameters
    has_spread = freedom >= 1
    variance = float(residuals @ residuals) / freedom * (1 + parameters / len(nets)) if has_spread else 0.0
    parts, kinds = dict(zip(PARTS, map(float, coefficients), strict=False)), map(float, coefficients[len(PARTS) :])
    return Correction(
        **parts,
        kind_scales=dict(zip(_find_kinds(nets), kinds, strict=True)),
        cached_megavalues=knot if isfinite(knot) else 0.0,
        variants=len(nets),
        error=float(np.mean(np.abs(left_out))) if left_out else None,
        sigma=hypot(sqrt(variance), SESSION, twin_gap) if has_spread else None,
        freedom=float(freedom) if has_spread else 0.0,
    )


def _fit(columns: np.ndarray, measured: np.ndarray) -> tuple[np.ndarray, float]:
    """The coefficients, and how many parameters the nets really settled (the trace of the hat matrix)."""
    rows, slowest = columns / measured[:, None], float(measured.max())
    weights_most, beside_most, beyond_most = (float(most) or 1.0 for most in columns[:, 3 : len(PARTS)].max(axis=0))
    prior = np.array([1.0, 1.0] + [0.0] * (columns.shape[1] - 2))
    widths = [LAYERS_PRIOR, JOINS_PRIOR, OFFSET_PRIOR * slowest]
    widths += [WEIGHTS_PRIOR * slowest / weights_most, BESIDE_PRIOR * slowest / beside_most]
    widths += [BEYOND_PRIOR * slowest / beyond_most] + [KINDS_PRIOR] * (columns.shape[1] - len(PARTS))
    precision = np.diag(1 / np.square(widths))
    trust, coefficients = np.ones(len(measured)), prior
    for _ in range(STEPS):
        weighted = rows * (trust / NOISE**2)[:, None]
        curvature = weighted.T @ rows + precision
        coefficients = np.linalg.solve(curvature, weighted.sum(axis=0) + precision @ prior)
        trust = NOISE / np.maximum(np.abs(rows @ coefficients - 1), NOISE)
    settled = float(np.trace(np.linalg.solve(curvature, weighted.T @ rows)))
    return coefficients, settled
