"""Gates: limits on measured figures, and the verdict over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
EXIT_CODES = {PASS: 0, FAIL: 3, INCONCLUSIVE: 4}

METRICS = {
    "latency_p50_ms": "lower",
    "latency_p90_ms": "lower",
    "latency_p95_ms": "lower",
    "latency_p99_ms": "lower",
    "init_ms": "lower",
    "first_ms": "lower",
    "peak_memory_mib": "lower",
    "file_bytes": "lower",
    "energy_mj": "lower",
    "speedup": "higher",
    "accuracy_percent": "higher",
    "accuracy_drop_points": "lower",
}
"""What a gate can look at, and which direction is better."""


@dataclass(frozen=True)
class Gate:
    """A limit on one metric of the shipped artifact.

    Exactly one of `at_most`, `at_least` and `max_regression` is set; `max_regression` is a fraction by which the
    metric may be worse than the baseline's.
    """

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    max_regression: float | None = None

    def describe(self) -> str:
        """For people: `latency_p95_ms at_most 12.0`."""
        kind, limit = self.limit
        return f"{self.metric} {kind} {limit:g}"

    @property
    def limit(self) -> tuple[str, float]:
        """The kind of limit and its value."""
        kinds = {"at_most": self.at_most, "at_least": self.at_least, "max_regression": self.max_regression}
        return next((kind, value) for kind, value in kinds.items() if value is not None)


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


def judge(gate: Gate, figures: Mapping[str, Figure], baseline: Mapping[str, Figure]) -> GateResult:
    """Hold one gate against the figures.

    Inconclusive: the figure is missing, estimated, from an invalid run, or its interval straddles the limit.
    """
    figure = figures.get(gate.metric)
    if figure is None:
        return GateResult(gate.describe(), INCONCLUSIVE, None, f"{gate.metric} was not measured")
    if figure.origin != "measured":
        return GateResult(gate.describe(), INCONCLUSIVE, figure.value, f"{figure.origin}, not measured")
    if figure.value is None:
        return GateResult(gate.describe(), INCONCLUSIVE, None, figure.problem or f"{gate.metric} was not measured")
    if figure.problem:
        return GateResult(gate.describe(), INCONCLUSIVE, figure.value, f"invalid run: {figure.problem}")
    bound = _bound(gate, baseline)
    if bound is None:
        return GateResult(gate.describe(), INCONCLUSIVE, figure.value, f"no baseline figure for {gate.metric}")
    return GateResult(gate.describe(), *_compare(figure, figure.value, *bound))


def _bound(gate: Gate, baseline: Mapping[str, Figure]) -> tuple[float, bool] | None:
    """The limit as a number, and whether the figure must stay below it."""
    kind, limit = gate.limit
    if kind != "max_regression":
        return limit, kind == "at_most"
    reference = baseline.get(gate.metric)
    if reference is None or reference.origin != "measured" or reference.problem or reference.value is None:
        return None
    lower_is_better = METRICS[gate.metric] == "lower"
    return reference.value * (1 + limit if lower_is_better else 1 - limit), lower_is_better


def _compare(figure: Figure, value: float, limit: float, below: bool) -> tuple[str, float, str]:
    low = value if figure.low is None else figure.low
    high = value if figure.high is None else figure.high
    best, worst = (low, high) if below else (-high, -low)
    bound = limit if below else -limit
    sign = "<=" if below else ">="
    shown = f"{value:.4g}" + (f" [{low:.4g}, {high:.4g}]" if high > low else "")
    if worst <= bound:
        return PASS, value, f"{shown} {sign} {limit:.4g}"
    if best > bound:
        return FAIL, value, f"{shown} is not {sign} {limit:.4g}"
    return INCONCLUSIVE, value, f"the interval of {shown} holds the limit {limit:.4g}"


def decide(results: Sequence[GateResult]) -> str:
    """The verdict over all gates: one failure fails; else one doubt is inconclusive; no gate is inconclusive."""
    outcomes = {result.outcome for result in results}
    if FAIL in outcomes:
        return FAIL
    return PASS if outcomes == {PASS} else INCONCLUSIVE
