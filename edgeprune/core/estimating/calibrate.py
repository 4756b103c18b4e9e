"""Fitting an estimated profile to measured nets: few-shot transfer to a board or a runtime.

Maximum a posteriori: a profile's parameters and their spreads are the prior, measured nets the evidence, compared by
the logarithm of their latencies under a robust loss. What the rows say nothing of stays as it was. One profile stands
for all precisions and thread counts of a board, so rows of one correct the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import ndtri

from edgeprune.core.estimating.estimate import (
    MINIMUM_MS,
    NORMAL_90,
    EstimatedProfile,
    Parameter,
    log_values,
    price_terms,
)
from edgeprune.core.estimating.prior import PARAMETERS, PRIOR
from edgeprune.core.estimating.work import Array
from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.latency.table import COVERAGE
from edgeprune.core.text import render_columns
from edgeprune.errors import ProfileError

LEAST_ROWS, LEAST_NETS = 5, 3
FOLDS = 10
LOOSE = {"speed": 0.7, "net_kcycles": 2.5}
"""Least spreads that a calibration starts from, beyond what boards vary by: the board may be another than the
profile's, and whoever measured it may have counted more or less into an inference."""
ROUNDS = 4
NARROW = 0.35
"""Where the loss turns from squares to absolute values, as a share of the rows' spread. Below it most rows lie close
together and a few far off: measured nets have a mode, and a tail of runs that were disturbed."""
SLOW = 0.8
"""Weight of a row that took longer than predicted, beside one that took less: disturbances only ever slow a run."""
PRIOR_ROWS, PRIOR_STRETCHES = 5, 1
"""How many rows the assumption about a spread counts for, and that about the width of intervals."""
LEAST_STRETCH = 0.05
EXPECTED_SCALE = 0.5
"""Spread of nets of one board and one way of measuring, as a share of what a row's own spread says."""
LEAST_SPREAD = 0.02
STEP = 1e-4
"""Step of a logarithm for slopes."""


@dataclass(frozen=True)
class Measured:
    """A net that was measured: its layers and its latency in ms; `threads`, `precision` where not the profile's.

    With `less`, the latency is what the layers take beyond those. `spread` is what to expect the model to miss by.
    """

    layers: tuple[LayerShape, ...]
    latency_ms: float
    threads: int | None = None
    less: tuple[LayerShape, ...] = ()
    spread: float = 0.1
    precision: str | None = None


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

    A net that was measured in several ways (threads, precisions) is left out with all of them. The intervals are as
    wide as the nets that were left out ask for.

    Raises:
        ProfileError: too few nets, a latency that is not positive, more threads than cores, an operator that the
            model does not know, or a precision that the core has no peak for.
    """
    _check_rows(profile, rows)
    nets = list(dict.fromkeys(row.layers for row in rows))
    weights_only = all(shape.has_weights for net in nets for shape in net)
    start = replace(loosen(profile), weights_only=weights_only)
    pairs = _cross_validate(start, rows, nets)
    stretch = find_stretch([measure_miss(fitted, row) for fitted, row in pairs])
    after = score([(replace(fitted, stretch=stretch), row) for fitted, row in pairs])
    before = score([(profile, row) for row in rows])
    return Calibration(replace(fit_profile(start, rows), stretch=stretch), before, after)


def _check_rows(profile: EstimatedProfile, rows: Sequence[Measured]) -> None:
    nets = {row.layers for row in rows}
    if len(rows) < LEAST_ROWS or len(nets) < LEAST_NETS:
        raise ProfileError(
            f"calibration: {len(rows)} rows of {len(nets)} different nets; at least {LEAST_ROWS} rows of "
            f"{LEAST_NETS} nets needed"
        )
    bad = next((row.latency_ms for row in rows if not 0 < row.latency_ms < np.inf), None)
    if bad is not None:
        raise ProfileError(f"calibration: a measured latency is {bad} ms; expected a positive number")
    most = max(row.threads or profile.threads for row in rows)
    if most > profile.core.cores:
        raise ProfileError(f"calibration: {most} threads in a row; {profile.board} has {profile.core.cores} such cores")


def _cross_validate(
    start: EstimatedProfile, rows: Sequence[Measured], nets: Sequence[tuple[LayerShape, ...]]
) -> list[tuple[EstimatedProfile, Measured]]:
    """Each row with a profile that was fitted without its net."""
    pairs: list[tuple[EstimatedProfile, Measured]] = []
    folds = min(FOLDS, len(nets))
    for fold in range(folds):
        left_out = set(nets[fold::folds])
        fitted = fit_profile(start, [row for row in rows if row.layers not in left_out])
        pairs += [(fitted, row) for row in rows if row.layers in left_out]
    return pairs


def loosen(profile: EstimatedProfile) -> EstimatedProfile:
    """The profile with every spread wide enough for another board or runtime of its kind."""
    least = {name: assumed.varies for name, assumed in PRIOR.items()} | LOOSE
    loose = {
        name: Parameter(parameter.value, max(parameter.spread, least[name]))
        for name, parameter in profile.parameters.items()
    }
    return replace(profile, parameters=loose, stretch=1.0)


def widen(profile: EstimatedProfile, spread: float | Mapping[str, float]) -> EstimatedProfile:
    """The profile with a spread added to its parameters' own, all the same or by name."""
    added = spread if isinstance(spread, Mapping) else dict.fromkeys(PARAMETERS, spread)
    wide = {
        name: Parameter(parameter.value, float(np.hypot(parameter.spread, added.get(name, 0.0))))
        for name, parameter in profile.parameters.items()
    }
    return replace(profile, parameters=wide)


@dataclass(frozen=True)
class CountedRows:
    """Rows as a fit needs them: the profile as each asks it, their work, and logarithms of what they took.

    `settings` are the profile at each precision and thread count, `of_setting` says which of them each row is of.
    """

    settings: tuple[EstimatedProfile, ...]
    of_setting: NDArray[np.intp]
    work: Array
    goal: Array
    spread: Array

    @classmethod
    def of(cls, profile: EstimatedProfile, rows: Sequence[Measured]) -> CountedRows:
        """Count the work of rows.

        Raises:
            ProfileError: an operator that the model does not know.
        """
        settings = [_at(profile, row) for row in rows]
        keys = [(setting.precision, setting.threads) for setting in settings]
        different = list(dict.fromkeys(keys))
        return cls(
            tuple(replace(profile, precision=precision, threads=threads) for precision, threads in different),
            np.array([different.index(key) for key in keys]),
            np.array([_count_row(setting, row) for setting, row in zip(settings, rows, strict=True)]),
            np.log([row.latency_ms for row in rows]),
            np.array([row.spread for row in rows]),
        )

    def misses(self, logs: Array) -> Array:
        """Predicted less measured, in logarithms, for each of several points; shape (points, rows)."""
        prices = np.stack([price_terms(logs, setting) for setting in self.settings])
        times = np.einsum("nt,nlt->ln", self.work, prices[self.of_setting])
        errors: Array = np.log(np.maximum(times, MINIMUM_MS)) - self.goal
        return errors

    def slopes(self, logs: Array) -> Array:
        """How the misses change with each logarithm. Shape (rows, parameters)."""
        misses = self.misses(np.vstack([logs, logs + STEP * np.eye(len(logs))]))
        changes: Array = (misses[1:] - misses[0]).T / STEP
        return changes


def _at(profile: EstimatedProfile, row: Measured) -> EstimatedProfile:
    threads, precision = row.threads or profile.threads, row.precision or profile.precision
    same = (threads, precision) == (profile.threads, profile.precision)
    return profile if same else replace(profile, threads=threads, precision=precision)


def _count_row(profile: EstimatedProfile, row: Measured) -> Array:
    work = profile.count_net(row.layers)
    return work - profile.count_net(row.less) if row.less else work


def fit_profile(profile: EstimatedProfile, rows: Sequence[Measured]) -> EstimatedProfile:
    """The profile with its parameters fitted to rows, and its spreads set to what the fit leaves.

    Fitted several times, each with the spread of the rows as the fit before found it.
    """
    evidence, middle = CountedRows.of(profile, rows), log_values(profile.parameters)
    spread = np.array([profile.parameters[name].spread for name in PARAMETERS])
    shifts, scale, width = np.zeros(len(PARAMETERS)), 1.0, 1.0
    for _ in range(ROUNDS):
        shifts = _solve(evidence, (middle, spread), shifts, width)
        scale = _find_scale(evidence.misses((middle + shifts * spread)[None, :])[0] / evidence.spread)
        width = max(NARROW * scale, LEAST_SPREAD / float(evidence.spread.min()))
    logs = middle + shifts * spread
    slopes = evidence.slopes(logs) * spread / (scale * evidence.spread)[:, None]
    posterior = spread * np.sqrt(np.diag(np.linalg.inv(slopes.T @ slopes + np.eye(len(logs)))))
    fitted = {
        name: Parameter(float(np.exp(log)), float(own))
        for name, log, own in zip(PARAMETERS, logs, posterior, strict=True)
    }
    nets = [row.spread for row in rows if not row.less]
    return replace(profile, parameters=fitted, net_spread=scale * float(np.mean(nets)) if nets else profile.net_spread)


def _solve(evidence: CountedRows, prior: tuple[Array, Array], start: Array, width: float) -> Array:
    """By how many of its spreads each parameter moves."""
    middle, spread = prior

    def residuals(shifts: Array) -> Array:
        errors = evidence.misses((middle + shifts * spread)[None, :])[0]
        return np.concatenate([soften(errors / (width * evidence.spread))[0], shifts])

    def slopes(shifts: Array) -> Array:
        logs = middle + shifts * spread
        errors = evidence.misses(logs[None, :])[0]
        _, steepness = soften(errors / (width * evidence.spread))
        rows = evidence.slopes(logs) * spread * (steepness / (width * evidence.spread))[:, None]
        return np.vstack([rows, np.eye(len(shifts))])

    solution: Array = least_squares(residuals, start, jac=slopes).x
    return solution


def soften(misses: Array) -> tuple[Array, Array]:
    """What a robust loss makes of residuals, and its slope: squares where small, absolute values where large."""
    weighed = np.where(misses < 0, SLOW * misses, misses)
    root = np.sqrt(1 + weighed**2)
    softened = np.sign(weighed) * np.sqrt(2 * (root - 1))
    slope = np.where(softened == 0, 1.0, weighed / (root * np.where(softened == 0, 1.0, softened)))
    return softened, slope * np.where(misses < 0, SLOW, 1.0)


def _find_scale(misses: Array) -> float:
    """Spread of the rows, as a factor on what was expected of them; few rows far off do not count."""
    median = float(np.median(np.abs(misses))) / float(ndtri(0.75))
    return float(np.sqrt((PRIOR_ROWS * EXPECTED_SCALE**2 + len(misses) * median**2) / (PRIOR_ROWS + len(misses))))


def measure_miss(profile: EstimatedProfile, row: Measured) -> float:
    """How far a row lies from what was predicted, as a share of half the width of the interval."""
    return _judge(profile, row)[1]


def _judge(profile: EstimatedProfile, row: Measured) -> tuple[float, float]:
    """The relative error of a row, and how far it lies out, as a share of half the interval of the whole net."""
    at = _at(profile, row)
    net, less_ms = at.predict_net(row.layers), at.predict_net(row.less).latency_ms if row.less else 0.0
    error = abs((net.latency_ms - less_ms) / row.latency_ms - 1)
    distance = abs(log((row.latency_ms + less_ms) / net.latency_ms))
    return error, distance / log(net.high_ms / net.latency_ms)


def find_stretch(misses: Sequence[float]) -> float:
    """The factor on the width of intervals with which they hold 90 % of rows that were left out.

    Of fewer than nine rows the largest miss stands for less than that, and is widened as a normal distribution would.
    Beside the rows, what the spreads say counts for PRIOR_STRETCHES rows, so that five do not decide alone.
    """
    reached = len(misses) / (len(misses) + 1)
    wider = NORMAL_90 / float(ndtri((1 + reached) / 2)) if reached < COVERAGE else 1.0
    stretch = max(wider * float(np.quantile(misses, COVERAGE, method="weibull")), LEAST_STRETCH)
    return float(stretch ** (len(misses) / (len(misses) + PRIOR_STRETCHES)))


def score(pairs: Sequence[tuple[EstimatedProfile, Measured]]) -> Errors:
    """Errors of profiles on rows."""
    judged = [_judge(profile, row) for profile, row in pairs]
    errors = [error for error, _ in judged]
    inside = [miss <= 1 for _, miss in judged]
    return Errors(
        len(errors),
        float(np.mean(errors)),
        float(np.median(errors)),
        float(np.max(errors)),
        float(np.mean(np.array(errors) <= 0.1)),
        float(np.mean(inside)),
    )


def render_errors(calibration: Calibration) -> str:
    """A table of the errors before and after, for people."""
    head = ("", "rows", "mean error", "median", "worst", "within 10 %", "in 90 % interval")
    rows = []
    for name, errors in (("before", calibration.before), ("after, left out", calibration.after)):
        shares = (errors.mean, errors.median, errors.worst, errors.within_10_percent, errors.coverage)
        rows.append((name, str(errors.count), *(f"{share:.1%}" for share in shares)))
    return render_columns([head, *rows])
