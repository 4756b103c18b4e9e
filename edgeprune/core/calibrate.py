"""Fitting an estimated profile to measured nets: few-shot transfer to a board or a runtime.

Maximum a posteriori: a profile's parameters and their spreads are the prior, measured nets the evidence, compared by
the logarithm of their latencies under a robust loss. What the rows say nothing of stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from edgeprune.core.estimate import (
    MINIMUM_MS,
    PARAMETERS,
    Array,
    EstimatedProfile,
    Parameter,
    Work,
    log_values,
    times_ms,
)
from edgeprune.core.layers import LayerShape
from edgeprune.core.summary import render_columns
from edgeprune.errors import ProfileError

LEAST_ROWS = 5
FOLDS = 10
LOOSE = 0.25
LOOSE_SPEED = 0.7
"""Least spreads that a calibration starts from: the board may differ from the profile's in all of them."""
PRIOR_ROWS = 5
LEAST_SPREAD = 0.02


@dataclass(frozen=True)
class Measured:
    """A net that was measured: its layers and its latency in ms; `threads` where they differ from the profile's.

    With `less`, the latency is what the layers take beyond those. `spread` is what to expect the model to miss by.
    """

    layers: tuple[LayerShape, ...]
    latency_ms: float
    threads: int | None = None
    less: tuple[LayerShape, ...] = ()
    spread: float = 0.1


@dataclass(frozen=True)
class Errors:
    """Relative errors of predicted latencies, as fractions; `coverage` is the share within their 90 % intervals."""

    count: int
    mean: float
    median: float
    worst: float
    within_10_percent: float
    coverage: float


@dataclass(frozen=True)
class Calibration:
    """A profile fitted to measured nets; the errors on them before, and after by cross-validation."""

    profile: EstimatedProfile
    before: Errors
    after: Errors


def calibrate(profile: EstimatedProfile, rows: Sequence[Measured]) -> Calibration:
    """Correct a profile by a few whole nets, 5 or more; each error after is of a fit that has not seen that net.

    A net that was measured with several thread counts is left out with all of them.

    Raises:
        ProfileError: too few nets, a latency that is not positive, more threads than cores, or an operator that the
            model does not know.
    """
    nets = list(dict.fromkeys(row.layers for row in rows))
    if len(nets) < LEAST_ROWS:
        raise ProfileError(f"calibration: {len(nets)} different nets measured, at least {LEAST_ROWS} needed")
    bad = next((row.latency_ms for row in rows if not 0 < row.latency_ms < np.inf), None)
    if bad is not None:
        raise ProfileError(f"calibration: a measured latency is {bad} ms; expected a positive number")
    most = max(row.threads or profile.threads for row in rows)
    if most > profile.core.cores:
        raise ProfileError(f"calibration: {most} threads in a row; {profile.board} has {profile.core.cores} such cores")
    start = loosen(profile)
    folds = min(FOLDS, len(nets))
    pairs: list[tuple[EstimatedProfile, Measured]] = []
    for fold in range(folds):
        left_out = set(nets[fold::folds])
        fitted = fit_profile(start, [row for row in rows if row.layers not in left_out])
        pairs += [(fitted, row) for row in rows if row.layers in left_out]
    after = score(pairs)
    return Calibration(fit_profile(start, rows), score([(profile, row) for row in rows]), after)


def loosen(profile: EstimatedProfile) -> EstimatedProfile:
    """The profile with every spread wide enough for another board or runtime of its kind."""
    least = dict.fromkeys(PARAMETERS, LOOSE) | {"speed": LOOSE_SPEED}
    return replace(
        profile,
        parameters={
            name: Parameter(one.value, max(one.spread, least[name])) for name, one in profile.parameters.items()
        },
    )


def widen(profile: EstimatedProfile, spread: float | Mapping[str, float]) -> EstimatedProfile:
    """The profile with a spread added to its parameters' own, all the same or by name."""
    added = spread if isinstance(spread, Mapping) else dict.fromkeys(PARAMETERS, spread)
    return replace(
        profile,
        parameters={
            name: Parameter(one.value, float(np.hypot(one.spread, added.get(name, 0.0))))
            for name, one in profile.parameters.items()
        },
    )


def fit_profile(profile: EstimatedProfile, rows: Sequence[Measured]) -> EstimatedProfile:
    """The profile with its parameters fitted to rows and its spread set to what the fit leaves.

    Fitted twice: the second time with the spread of the rows as the first fit found it.
    """
    first, misses = _fit(profile, rows, 1.0)
    expected = np.array([row.spread for row in rows])
    scale = float(np.sqrt((PRIOR_ROWS + np.sum((misses / expected) ** 2)) / (PRIOR_ROWS + len(rows))))
    scale = max(scale, LEAST_SPREAD / float(expected.min()))
    fitted, _ = _fit(profile, rows, scale)
    nets = [row.spread for row in rows if not row.less]
    return replace(fitted, net_spread=scale * float(np.mean(nets)) if nets else first.net_spread)


def _fit(profile: EstimatedProfile, rows: Sequence[Measured], scale: float) -> tuple[EstimatedProfile, Array]:
    """Fitted profile, and by how much it misses each row (difference of logarithms)."""
    middle = log_values(profile.parameters)
    spread = np.array([profile.parameters[name].spread for name in PARAMETERS])
    counted = [(_at(profile, row), Work.of(row.layers, profile), Work.of(row.less, profile)) for row in rows]
    goal = np.log([row.latency_ms for row in rows])
    weight = 1 / (scale * np.array([row.spread for row in rows]))

    def misses(moved: Array) -> Array:
        logs = (middle + moved * spread)[None, :]
        totals = [times_ms(more, logs, one).sum() - times_ms(less, logs, one).sum() for one, more, less in counted]
        return np.log(np.maximum(totals, MINIMUM_MS)) - goal

    def residuals(moved: Array) -> Array:
        return np.concatenate([misses(moved) * weight, moved])

    found = least_squares(residuals, np.zeros(len(PARAMETERS)), loss="soft_l1")
    slopes = np.asarray(found.jac, dtype=float)
    left = np.sqrt(np.clip(np.diag(np.linalg.inv(slopes.T @ slopes)), 0, 1))
    values = np.exp(middle + found.x * spread)
    fitted = {
        name: Parameter(float(value), float(own * share))
        for name, value, own, share in zip(PARAMETERS, values, spread, left, strict=True)
    }
    return replace(profile, parameters=fitted), misses(found.x)


def _at(profile: EstimatedProfile, row: Measured) -> EstimatedProfile:
    return profile if row.threads is None else replace(profile, threads=row.threads)


def score(pairs: Sequence[tuple[EstimatedProfile, Measured]]) -> Errors:
    """Errors of profiles on rows."""
    errors, inside = [], []
    for profile, row in pairs:
        at = _at(profile, row)
        found, less_ms = at.predict_net(row.layers), at.predict_net(row.less).latency_ms if row.less else 0.0
        errors.append(abs((found.latency_ms - less_ms) / row.latency_ms - 1))
        inside.append(found.low_ms <= row.latency_ms + less_ms <= found.high_ms)
    return Errors(
        len(errors),
        float(np.mean(errors)),
        float(np.median(errors)),
        float(np.max(errors)),
        float(np.mean(np.array(errors) <= 0.1)),
        float(np.mean(inside)),
    )


def render_errors(done: Calibration) -> str:
    """A table of the errors before and after, for people."""
    head = ("", "rows", "mean error", "median", "worst", "within 10 %", "in 90 % interval")
    rows = []
    for name, errors in (("before", done.before), ("after, left out", done.after)):
        shares = (errors.mean, errors.median, errors.worst, errors.within_10_percent, errors.coverage)
        rows.append((name, str(errors.count), *(f"{share:.1%}" for share in shares)))
    return render_columns([head, *rows])
