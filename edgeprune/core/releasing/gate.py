"""Gates: limits on measured figures, and the verdict over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

from edgeprune.core.metric import HIGHER, LOWER, Metric
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
    "energy_mj": LOWER,
    "speedup": HIGHER,
    ACCURACY: HIGHER,
    ACCURACY_DROP: LOWER,
    QUALITY: "",
    QUALITY_DROP: LOWER,
}
"""What a gate can look at, and which direction is better; of the quality itself the recipe's metric says so."""
RELATIVE = (QUALITY_DROP, ACCURACY_DROP, "speedup")
"""Metrics that are held against the original by themselves, so that they have no regression."""
LIMITS = {LOWER: "at_most", HIGHER: "at_least"}
"""The limit that can be meant, by the direction that is better."""
ROUNDING = 1e-9
"""A value is at its limit if they differ by less than this share of it: 98.7 - 97.2 is a drop of 1.5 points."""


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
    """A figure offered to a gate, with its interval where it has one.

    `origin` is "measured" or "estimated"; an estimate never passes. `problem` says why the run behind it is invalid,
    or why there is no value.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    origin: str = "measured"
    problem: str = ""


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


def judge(gate: Gate, figures: Mapping[str, Figure], baseline: Mapping[str, Figure]) -> GateResult:
    """Hold one gate against the figures.

    Inconclusive: the figure is missing, estimated, from an invalid run, or its interval straddles the limit. A figure
    that is no finite number fails.
    """
    name, figure = gate.describe(), figures.get(gate.metric)
    if figure is None:
        return GateResult(name, INCONCLUSIVE, None, f"{gate.metric} was not measured")
    if figure.value is not None and not isfinite(figure.value):
        return GateResult(name, FAIL, None, f"{gate.metric} is {figure.value}, no finite number")
    if figure.origin != "measured":
        return GateResult(name, INCONCLUSIVE, figure.value, f"{figure.origin}, not measured")
    if figure.value is None:
        return GateResult(name, INCONCLUSIVE, None, figure.problem or f"{gate.metric} was not measured")
    if figure.problem:
        return GateResult(name, INCONCLUSIVE, figure.value, f"invalid run: {figure.problem}")
    bound = _bound(gate, baseline)
    if bound is None:
        return GateResult(name, INCONCLUSIVE, figure.value, f"no valid baseline figure for {gate.metric}")
    return GateResult(name, *_compare(figure, figure.value, *bound))


def _bound(gate: Gate, baseline: Mapping[str, Figure]) -> tuple[float, bool] | None:
    """The limit as a number, and whether the figure must stay below it."""
    kind, limit = gate.limit
    if kind != "max_regression":
        return limit, kind == "at_most"
    reference = baseline.get(gate.metric)
    if reference is None or reference.origin != "measured" or reference.problem or reference.value is None:
        return None
    if not isfinite(reference.value):
        return None
    room = limit * abs(reference.value)
    return reference.value + (room if gate.is_lower_better else -room), gate.is_lower_better


def _compare(figure: Figure, value: float, limit: float, below: bool) -> tuple[str, float, str]:
    low = value if figure.low is None else figure.low
    high = value if figure.high is None else figure.high
    best, worst = (low, high) if below else (-high, -low)
    bound = (limit if below else -limit) + ROUNDING * abs(limit)
    sign = "<=" if below else ">="
    text = show_number(value) + (f" [{low:.4g}, {high:.4g}]" if high > low else "")
    if worst <= bound:
        return PASS, value, f"{text} {sign} {show_number(limit)}"
    if best > bound:
        return FAIL, value, f"{text} is not {sign} {show_number(limit)}"
    return INCONCLUSIVE, value, f"the interval of {text} holds the limit {show_number(limit)}"


def decide(results: Sequence[GateResult]) -> str:
    """The verdict over all gates: one failure fails; else one doubt is inconclusive; no gate is inconclusive."""
    outcomes = {result.outcome for result in results}
    if FAIL in outcomes:
        return FAIL
    return PASS if outcomes == {PASS} else INCONCLUSIVE
