"""Which of the measured files ships: the fastest on the device among those that are accurate and within the limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from edgeprune.core.cost import find_cost_unit, show_cost
from edgeprune.core.measuring.pairing import find_ratio
from edgeprune.core.measuring.spread import CONFIDENCE, TAIL
from edgeprune.core.metric import HIGHER, Metric
from edgeprune.core.releasing.document import Figures, gate_changes, gate_figures, quality_figures
from edgeprune.core.releasing.gate import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    QUALITY,
    QUALITY_METRICS,
    Gate,
    GateResult,
    decide,
    judge,
    judge_all,
)

DEFAULT_LIMIT = Gate(QUALITY, max_regression=0.01)
"""Stands in where a target has no gate on quality: MLPerf asks 99 % of the float accuracy of most of its tasks
(Reddi et al., "MLPerf Inference Benchmark", 2020)."""

WORTH = 0.02
"""Share of the latency that int8 must save to be planned for: less may be noise, and float loses no accuracy."""


@dataclass(frozen=True)
class Candidates:
    """Files of the pruned net that the board runs, measured; `baseline` is the unpruned fp32 file.

    `gates` are those that what ships is judged by, settled, as surely as `confidence` says; `open` names the files
    among which the device decides. What was measured `again`, by name, is what is judged; it changes no choice.
    """

    files: tuple[Figures, ...]
    baseline: Figures
    gates: tuple[Gate, ...]
    open: Collection[str] = ()
    again: Mapping[str, Figures] = field(default_factory=dict)
    confidence: float = CONFIDENCE

    @property
    def limits(self) -> tuple[Gate, ...]:
        """What a file must keep of the quality to be accurate."""
        return quality_limits(self.gates, self.baseline.metric)

    @cached_property
    def accurate(self) -> tuple[Figures, ...]:
        """Those that pass every limit on quality, in the order given."""
        return tuple(file for file in self.files if self._is_accurate(file))

    @property
    def fastest(self) -> Figures | None:
        """The lowest median latency of the accurate files whose run is valid; None where there is none."""
        valid = [file for file in self.accurate if file.measurement.valid]
        return min(valid, key=lambda file: file.latency.p50_ms) if valid else None

    @cached_property
    def chosen(self) -> Figures:
        """Of the files that are open to the device, what ships.

        The fastest of the accurate ones whose run is valid that passes all gates; where none does, one that fails none
        before one that fails. Where no run is valid, the fastest of the accurate ones; where none is accurate, the best
        by the recipe's metric. No file at all is a ValueError.
        """
        files = [file for file in self.files if file.artifact.name in self.open]
        accurate = [file for file in files if file in self.accurate]
        if not accurate:
            return max(files, key=lambda file: (file.measurement.valid, _goodness(file)))
        order = (PASS, INCONCLUSIVE, FAIL)
        return min(
            accurate,
            key=lambda file: (
                not file.measurement.valid,
                order.index(decide(self._judge(file, self.baseline))),
                file.latency.p50_ms,
            ),
        )

    def find_last(self, figures: Figures) -> tuple[Figures, Figures]:
        """A file and the baseline, as they were measured last in turns with each other."""
        names = figures.artifact.name, self.baseline.artifact.name
        result, baseline = (self.again.get(name) for name in names)
        return (result, baseline) if result and baseline else (figures, self.baseline)

    def judge(self, figures: Figures) -> tuple[GateResult, ...]:
        """What each gate says of a file, as it was measured last; its quality must be a number at least."""
        return self._judge(*self.find_last(figures))

    def _judge(self, figures: Figures, baseline: Figures) -> tuple[GateResult, ...]:
        results = judge_figures(self.gates, figures, baseline, self.confidence)
        if figures.shown_quality is not None or any(gate.metric in QUALITY_METRICS for gate in self.gates):
            return results
        return (*results, GateResult(figures.metric.name, FAIL, None, "the recipe's metric gave no finite number"))

    def explain(self, shipped: Figures) -> tuple[str, ...]:
        """What a reader must know about `shipped` beside the others: too inaccurate, or slower than another."""
        limits = " and ".join(gate.describe() for gate in self.limits)
        if not self.accurate:
            best = max(self.files, key=_goodness)
            return (f"no file is within {limits}; the best by {best.metric.name} is {_name(best)}",)
        notes, fastest = [], self.fastest
        if shipped not in self.accurate:
            other = f"; the fastest that is: {_name(fastest)}" if fastest else ""
            notes.append(f"{_name(shipped)} is not within {limits}{other}")
        elif fastest and _is_slower(shipped, fastest):
            costs = [show_cost(file.latency.p50_ms, ".3g") for file in (shipped, fastest)]
            notes.append(
                f"{_name(shipped)} is slower than {_name(fastest)} here: {costs[0]} against {costs[1]} "
                f"{find_cost_unit()}; {self._say_why(shipped, fastest)}"
            )
        return tuple(notes)

    def _say_why(self, shipped: Figures, fastest: Figures) -> str:
        """Why the faster file does not ship, and what to do if it should."""
        if fastest.artifact.name in self.open:
            gates = [result.gate for result in self._judge(fastest, self.baseline) if result.outcome != PASS]
            return f"it does not pass {', '.join(gates)}"
        settings = {
            "runtime": (shipped.measurement.runtime, fastest.measurement.runtime),
            "precision": (shipped.artifact.precision, fastest.artifact.precision),
        }
        options = [f"--{name} {other}" for name, (own, other) in settings.items() if own != other]
        autos = [f"--{name} auto" for name, (own, other) in settings.items() if own != other]
        return f"a run with {' '.join(options)} ships it, one with {' '.join(autos)} the fastest"

    def _is_accurate(self, figures: Figures) -> bool:
        return is_within(self.limits, figures.quality, self.baseline.quality)


def judge_figures(
    gates: Sequence[Gate], figures: Figures, baseline: Figures, confidence: float
) -> tuple[GateResult, ...]:
    """What gates say of a file, beside another that it took turns with."""
    by_metric, reference = gate_figures(figures, baseline), gate_figures(baseline)
    by_metric |= {name: replace(by_metric[name], inputs=figures.samples) for name in QUALITY_METRICS & by_metric.keys()}
    return judge_all(gates, by_metric, reference, gate_changes(figures, baseline), confidence)


def is_within(limits: Sequence[Gate], quality: float | None, original: float | None) -> bool:
    """Whether a figure of the recipe's metric passes every limit (settled) beside that of the unpruned net."""
    return all(_passes(gate, quality, original) for gate in limits)


def _passes(gate: Gate, quality: float | None, original: float | None) -> bool:
    if gate.of is None:
        raise ValueError(f"{gate.describe()}: the recipe's metric is not known yet")
    by_metric, reference = quality_figures(gate.of, quality, original), quality_figures(gate.of, original)
    return judge(gate, by_metric, reference).outcome == PASS


def quality_limits(gates: Sequence[Gate], metric: Metric) -> tuple[Gate, ...]:
    """The gates on the recipe's metric, or DEFAULT_LIMIT where there is none."""
    own = tuple(gate for gate in gates if gate.metric in QUALITY_METRICS)
    return own or (replace(DEFAULT_LIMIT, of=metric),)


def _goodness(figures: Figures) -> float:
    """Higher for what is better by the recipe's metric; lowest where there is no number."""
    quality = figures.shown_quality
    if quality is None:
        return float("-inf")
    return quality if figures.metric.better == HIGHER else -quality


def _is_slower(first: Figures, second: Figures) -> bool:
    """Beyond the measuring noise: the 95 % interval of their ratio, as they took turns, is above 1."""
    return find_ratio(first.measurement, second.measurement).bound(TAIL)[0] > 1


def _name(figures: Figures) -> str:
    return f"{figures.artifact.format} {figures.artifact.precision}"


def choose_planned(latency_ms: Mapping[tuple[str, str], float], precisions: Collection[str]) -> tuple[str, str]:
    """The runtime and the precision, of those named, that are planned for where they are left open.

    `latency_ms` is of the unpruned net, by runtime and precision. The fastest is taken; int8 only where it is clearly
    faster on this board than the net in fp32 is in any runtime.
    """
    fastest = {
        precision: min((ms, runtime) for (runtime, own), ms in latency_ms.items() if own == precision)
        for precision in precisions
        if any(own == precision for _, own in latency_ms)
    }
    best = min(fastest, key=lambda precision: fastest[precision])
    if best == "int8" and "fp32" in fastest and fastest[best][0] >= (1 - WORTH) * fastest["fp32"][0]:
        best = "fp32"
    return fastest[best][1], best
