"""Gates: limits on measured figures, and the verdict over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import copysign, inf, isfinite, nan
from types import MappingProxyType
from typing import Any

from edgeprune.core.measuring.spread import CONFIDENCE, TAIL, Spread, explain_quotient
from edgeprune.core.metric import HIGHER, LOWER, Metric
from edgeprune.core.releasing.inputs import ROUNDING, advise_inputs
from edgeprune.errors import TargetError

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
EXIT_CODES = {PASS: 0, FAIL: 3, INCONCLUSIVE: 4}

QUALITY, QUALITY_DROP = "quality", "quality_drop"
ACCURACY, ACCURACY_DROP = "accuracy_percent", "accuracy_drop_points"
QUALITY_METRICS = {QUALITY, QUALITY_DROP, ACCURACY, ACCURACY_DROP}
"""What gates on the recipe's metric look at; those on accuracy fit a metric in percent only."""
METRICS = {
    "latency_p50_ms": LOWER,
    "latency_p90_ms": LOWER,
    "latency_p95_ms": LOWER,
    "latency_p99_ms": LOWER,
    "init_ms": LOWER,
    "first_ms": LOWER,
    "peak_memory_mib": LOWER,
    "file_bytes": LOWER,
    "parameters": LOWER,
    "macs": LOWER,
    "activation_bytes": LOWER,
    "sram_bytes": LOWER,
    "flash_bytes": LOWER,
    "energy_mj": LOWER,
    "instructions": LOWER,
    "instruction_ratio": HIGHER,
    "speedup": HIGHER,
    ACCURACY: HIGHER,
    ACCURACY_DROP: LOWER,
    QUALITY: "",
    QUALITY_DROP: LOWER,
}
"""What a gate can look at, and which direction is better; of the quality itself the recipe's metric says so."""
RELATIVE = (QUALITY_DROP, ACCURACY_DROP, "speedup", "instruction_ratio")
"""Metrics that are held against the original by themselves, so that they have no regression."""
LIMITS = {LOWER: "at_most", HIGHER: "at_least"}
"""The limit that can be meant, by the direction that is better."""
TIMED = {name for name in METRICS if name.endswith("_ms")} | {"speedup"}
"""Metrics of which a run can measure more."""
COUNTED = {"instructions", "instruction_ratio"}
"""Metrics of a board that counts: instructions of an inference, and those of the unpruned file by them."""
CLOCKED = TIMED | {"energy_mj", "peak_memory_mib"}
"""Metrics that a board which counts instructions has no figure of."""
PERCENTILES = {f"latency_p{percent}_ms": float(percent) for percent in (50, 90, 95, 99)}
TAILS = set(PERCENTILES) - {"latency_p50_ms"}
"""Metrics that single runs are needed for."""
ALLOWED_TO_FAIL = 0.01
"""How often all gates of a run together may fail where no figure is beyond its limit."""
LOOKS = 3
"""A run looks at timed figures so many times at most: it measures on while they decide nothing."""
EVIDENCE = ("measured", "counted")
"""Origins of figures that can pass a gate: an emulator counts instructions exactly."""


@dataclass(frozen=True)
class Gate:
    """A limit on one metric of the shipped artifact.

    Exactly one of `at_most`, `at_least` and `max_regression` is set; `max_regression` is a fraction by which the
    metric may be worse than the baseline's. `of` is the recipe's metric, for a gate on it that was settled.
    """

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    max_regression: float | None = None
    of: Metric | None = None

    def describe(self) -> str:
        """For people: `latency_p95_ms at_most 12`, `quality_drop at_most 0.1 K (RMSE)`."""
        kind, limit = self.limit
        if self.of is None or self.metric not in (QUALITY, QUALITY_DROP):
            return f"{self.metric} {kind} {show_number(limit, 6)}"
        unit = self.of.unit if self.metric == QUALITY else self.of.drop_unit
        shown = f"{show_number(limit, 6)} {'' if kind == 'max_regression' else unit}".rstrip()
        return f"{self.metric} {kind} {shown} ({self.of.name})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, as keywords of a gate that is not settled."""
        kind, limit = self.limit
        return {"metric": self.metric, kind: limit}

    @property
    def limit(self) -> tuple[str, float]:
        """The kind of limit and its value."""
        kinds = {"at_most": self.at_most, "at_least": self.at_least, "max_regression": self.max_regression}
        return next((kind, value) for kind, value in kinds.items() if value is not None)

    @property
    def is_lower_better(self) -> bool:
        """Whether a lower figure is a better one; a gate on the quality has to be settled before."""
        better = METRICS[self.metric] or (self.of.better if self.of else "")
        if not better:
            raise ValueError(f"{self.describe()}: the recipe's metric is not known yet")
        return better == LOWER


@dataclass(frozen=True)
class Figure:
    """A figure offered to a gate, with its 95 % interval where it has one.

    `origin` is one of EVIDENCE or "estimated"; an estimate never passes. `problem` says why the run behind it is
    invalid, or why there is no value. `spread` tells the bounds at other levels than that of the interval.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    origin: str = "measured"
    problem: str = ""
    spread: Spread | None = None
    inputs: int = 0
    """Evaluation inputs that a quality is over; 0 where that is not told."""

    @classmethod
    def of(cls, value: float, spread: Spread | None, problem: str = "") -> Figure:
        """A measured figure with the interval that its spread gives it."""
        low, high = spread.bound(TAIL) if spread else (None, None)
        return cls(value, low, high, problem=problem, spread=spread)

    def bound(self, share: float) -> tuple[float, float]:
        """Below and above these lies the truth with a probability of `share` each; of a figure without a spread its
        interval, or its value."""
        if self.spread is not None:
            return self.spread.bound(share)
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        return nan if low is None else low, nan if high is None else high

    @property
    def is_valid(self) -> bool:
        """Whether something can be held against it: a finite number, measured in a valid run."""
        return self.value is not None and isfinite(self.value) and self.origin in EVIDENCE and not self.problem


NO_CHANGES: Mapping[str, Figure] = MappingProxyType({})


@dataclass(frozen=True)
class GateResult:
    """One gate, judged."""

    gate: str
    outcome: str
    value: float | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def settle_gates(gates: Sequence[Gate], metric: Metric, where: str) -> tuple[Gate, ...]:
    """The gates, those on the quality with the recipe's metric that they are about.

    Raises:
        TargetError: a gate that does not fit the metric; says what to write in its place.
    """
    settled = tuple(replace(gate, of=metric) if gate.metric in QUALITY_METRICS else gate for gate in gates)
    for gate in settled:
        _check_fit(gate, metric, where)
    return settled


def _check_fit(gate: Gate, metric: Metric, where: str) -> None:
    better = f"the recipe's metric {metric.label}, of which {metric.better} is better"
    if gate.metric in (ACCURACY, ACCURACY_DROP) and not metric.is_percent:
        name = QUALITY if gate.metric == ACCURACY else QUALITY_DROP
        raise TargetError(
            f"{where}: gate {gate.describe()} is for an accuracy in percent and does not fit {better}; write "
            f'metric = "{name}" with a limit in its own unit, or metric = "{QUALITY}" with max_regression, a share of '
            "the original's"
        )
    if gate.metric == QUALITY:
        check_direction(gate, metric.better, f"{where}: gate {gate.describe()}: {better}")


def check_direction(gate: Gate, better: str, where: str) -> None:
    """Refuse a limit that only what is bad can break.

    Raises:
        TargetError: at_least on what is better when lower, or at_most on what is better when higher.
    """
    kind, _ = gate.limit
    if kind in LIMITS.values() and kind != LIMITS[better]:
        raise TargetError(f"{where}: {kind} would pass the worst; write {LIMITS[better]}")


def show_number(value: float, digits: int = 4) -> str:
    """A number as people write it: counts to the last digit, all else to so many digits and never as 1e+04."""
    is_plain = value == round(value) or abs(value) >= 10**digits
    return f"{value:.0f}" if is_plain else f"{value:.{digits}g}"


@dataclass(frozen=True)
class Strictness:
    """How sure a verdict must be: `confidence` of the interval that has to be inside a limit to pass, and over how many
    `gates`, and `looks` at timed figures, the chance to fail by accident is shared.
    """

    gates: int = 1
    confidence: float = CONFIDENCE
    looks: int = LOOKS

    def find_shares(self, metric: str) -> tuple[float, float]:
        """With what probability at most a pass, and a failure, of one gate at one look is wrong.

        All gates must pass for the verdict to pass, so that each may be as unsure as the whole; one failure fails it,
        so that its chance is divided by the gates (Bonferroni). Both are divided by the looks at a timed figure.
        """
        looks = self.looks if metric in TIMED else 1
        return (1 - self.confidence) / 2 / looks, ALLOWED_TO_FAIL / self.gates / looks


USUAL = Strictness()


def judge_all(
    gates: Sequence[Gate],
    figures: Mapping[str, Figure],
    baseline: Mapping[str, Figure],
    changes: Mapping[str, Figure] = NO_CHANGES,
    confidence: float = CONFIDENCE,
) -> tuple[GateResult, ...]:
    """What each of several gates says; together they fail by accident as seldom as a single one may."""
    strictness = Strictness(len(gates), confidence)
    return tuple(judge(gate, figures, baseline, changes, strictness) for gate in gates)


def judge(
    gate: Gate,
    figures: Mapping[str, Figure],
    baseline: Mapping[str, Figure],
    changes: Mapping[str, Figure] = NO_CHANGES,
    strictness: Strictness = USUAL,
) -> GateResult:
    """Hold one gate against the figures; `changes` are how much worse each is than the baseline's, as a share of it,
    where the two took turns or answered the same inputs.

    Pass: the whole interval is inside the limit. Fail: it is outside, as surely as the strictness asks. Else, and where
    the figure is missing, estimated or from an invalid run, inconclusive. A figure that is no finite number fails.
    """
    name, figure = gate.describe(), figures.get(gate.metric)
    if figure is None or not figure.is_valid:
        return GateResult(name, *_doubt(gate.metric, figure))
    shares = strictness.find_shares(gate.metric)
    if gate.max_regression is None:
        return GateResult(name, *_compare(gate, figure, shares))
    reference, change = baseline.get(gate.metric), changes.get(gate.metric)
    if reference is None or not reference.is_valid:
        return GateResult(name, INCONCLUSIVE, figure.value, f"no valid baseline figure for {gate.metric}")
    if change is None or not change.is_valid:
        change = _change_apart(figure, reference, gate.is_lower_better)
    return GateResult(name, *_compare_change(gate, (figure, reference), change, shares))


def _doubt(metric: str, figure: Figure | None) -> tuple[str, float | None, str]:
    """Why nothing follows from a figure, and what that makes of its gate."""
    if figure is None:
        return INCONCLUSIVE, None, f"{metric} was not measured"
    if figure.value is not None and not isfinite(figure.value):
        return FAIL, None, f"{metric} is {figure.value}, no finite number"
    if figure.origin not in EVIDENCE:
        return INCONCLUSIVE, figure.value, f"{figure.origin}, not measured"
    if figure.value is None:
        return INCONCLUSIVE, None, figure.problem or f"{metric} was not measured"
    return INCONCLUSIVE, figure.value, f"invalid run: {figure.problem}"


def _compare(gate: Gate, figure: Figure, shares: tuple[float, float]) -> tuple[str, float | None, str]:
    """A figure against a number: outcome, value, reason."""
    kind, limit = gate.limit
    below = kind == "at_most"
    outcome, text, sign = _place(figure, limit, below, shares), _show(figure), "<=" if below else ">="
    reasons = {
        PASS: f"{text} {sign} {show_number(limit)}",
        FAIL: f"{text} is not {sign} {show_number(limit)}",
        INCONCLUSIVE: f"{text} is too near to the limit {show_number(limit)} to tell{_advise(gate, figure, shares)}",
    }
    return outcome, figure.value, reasons[outcome]


def _compare_change(
    gate: Gate, pair: tuple[Figure, Figure], change: Figure, shares: tuple[float, float]
) -> tuple[str, float | None, str]:
    """How much worse a figure is than another against the share that is allowed."""
    figure, reference = pair
    limit = gate.max_regression or 0.0
    outcome = _place(change, limit, True, shares)
    figures = f"{show_number(figure.value or 0.0)} against {show_number(reference.value or 0.0)}"
    text, allowed = f"{figures}: {_show_change(change, gate.is_lower_better)}", f"{100 * limit:.3g} % worse"
    text += _describe_basis(figure, reference, change)
    reasons = {
        PASS: f"{text}, at most {allowed} is allowed",
        FAIL: f"{text}, and {allowed} is allowed",
        INCONCLUSIVE: f"{text}, too near to the {allowed} that is allowed to tell"
        f"{_advise(gate, replace(change, inputs=figure.inputs), shares)}",
    }
    return outcome, figure.value, reasons[outcome]


def _describe_basis(figure: Figure, reference: Figure, change: Figure) -> str:
    """By how much the two figures alone differ, and why the change does not, where it does not."""
    if not change.spread or not figure.value or not reference.value:
        return ""
    share = figure.value / reference.value - 1
    basis = explain_quotient(share, change.spread)
    return f" (the two figures alone {100 * share:+.3g} %: {basis})" if basis else ""


def _advise(gate: Gate, figure: Figure, shares: tuple[float, float]) -> str:
    """What would decide a figure, or a change, that is too near to its limit."""
    if gate.metric not in QUALITY_METRICS or figure.value is None:
        return ""
    kind, limit = gate.limit
    sign = -1.0 if kind == "at_least" else 1.0
    is_inside = sign * figure.value <= sign * limit
    low, high = figure.bound(shares[0] if is_inside else shares[1])
    is_change = gate.metric in RELATIVE or gate.max_regression is not None
    reach = max(high - figure.value, figure.value - low)
    return advise_inputs(figure.inputs, sign * figure.value, reach, sign * limit, is_change)


def _show_change(change: Figure, is_lower_better: bool) -> str:
    """By how much a figure rose, with the interval: `+1.2 % [-0.3, +2.7]`."""
    ends = sorted((end if is_lower_better else -end) for end in change.bound(TAIL))
    value = (change.value or 0.0) if is_lower_better else -(change.value or 0.0)
    low, high = (f"{100 * end:+.3g}" for end in ends)
    return f"{100 * value:+.3g} %" + (f" [{low}, {high}]" if ends[1] > ends[0] else "")


def _place(figure: Figure, limit: float, below: bool, shares: tuple[float, float]) -> str:
    """Whether a figure is inside a limit, outside, or too near to tell, by the shares of :meth:`find_shares`."""
    (low, high), (low_beyond, high_beyond) = (figure.bound(share) for share in shares)
    worst, best = (high, low_beyond) if below else (-low, -high_beyond)
    room = (limit if below else -limit) + ROUNDING * abs(limit)
    if worst <= room:
        return PASS
    return FAIL if best > room else INCONCLUSIVE


@dataclass(frozen=True)
class _ApartSpread:
    """How much worse one figure is than another, measured apart from it, as a share of the other: each may be off."""

    figure: Figure
    reference: Figure
    is_lower_better: bool

    def bound(self, share: float) -> tuple[float, float]:
        (low, high), (low_before, high_before) = (side.bound(share / 2) for side in (self.figure, self.reference))
        ends = (
            (low - high_before, high - low_before) if self.is_lower_better else (low_before - high, high_before - low)
        )
        least, most = (_share(end, self.reference) for end in ends)
        return least, most


def _change_apart(figure: Figure, reference: Figure, is_lower_better: bool) -> Figure:
    difference = (figure.value or 0.0) - (reference.value or 0.0)
    spread = _ApartSpread(figure, reference, is_lower_better)
    return Figure.of(_share(difference if is_lower_better else -difference, reference), spread)


def _share(difference: float, reference: Figure) -> float:
    """A difference as a share of a reference; of nothing, any difference is without bound."""
    if not reference.value:
        return copysign(inf, difference) if difference else 0.0
    return difference / abs(reference.value)


def _show(figure: Figure) -> str:
    """A figure with its interval where that is more than a point."""
    low, high = figure.bound(TAIL)
    return show_number(figure.value or 0.0) + (f" [{low:.4g}, {high:.4g}]" if high > low else "")


def decide(results: Sequence[GateResult]) -> str:
    """The verdict over all gates: one failure fails; else one doubt is inconclusive; no gate is inconclusive."""
    outcomes = {result.outcome for result in results}
    if FAIL in outcomes:
        return FAIL
    return PASS if outcomes == {PASS} else INCONCLUSIVE
