"""Which of the measured files ships: the fastest on the device among those that are accurate enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeprune.core.document import Figures, accuracy_figures
from edgeprune.core.gate import PASS, Figure, Gate, judge

ACCURACY_METRICS = ("accuracy_percent", "accuracy_drop_points")
DEFAULT_LIMIT = Gate("accuracy_drop_points", at_most=1.0)
"""Stands in where a target has no accuracy gate: MLPerf asks 99 % of the float accuracy of most of its tasks
(Reddi et al., "MLPerf Inference Benchmark", 2020)."""

WORTH = 0.02
"""Share of the latency that int8 must save to be planned for: less may be noise, and float loses no accuracy."""


@dataclass(frozen=True)
class Candidates:
    """Files of the pruned net that the target's runtime can run, measured; `baseline` is the unpruned fp32 file."""

    files: tuple[Figures, ...]
    baseline: Figures
    limits: tuple[Gate, ...]

    @property
    def accurate(self) -> tuple[Figures, ...]:
        """Those that pass every accuracy limit, in the order given."""
        return tuple(one for one in self.files if self._is_accurate(one))

    @property
    def fastest(self) -> Figures:
        """The lowest median latency among the accurate, valid runs first; the most accurate file if none is accurate.

        No file at all is a ValueError.
        """
        if not self.accurate:
            return max(self.files, key=lambda one: one.accuracy_percent or 0.0)
        return min(self.accurate, key=lambda one: (bool(one.measurement.problems), one.latency.p50_ms))

    def explain(self, shipped: Figures) -> tuple[str, ...]:
        """What a reader must know about `shipped` beside the others: too inaccurate, or slower than another."""
        limits = " and ".join(gate.describe() for gate in self.limits)
        if not self.accurate:
            return (
                f"no {shipped.artifact.format} file is within {limits}; the most accurate is {_name(self.fastest)}",
            )
        notes = []
        if shipped not in self.accurate:
            notes.append(f"{_name(shipped)} is not within {limits}; the fastest that is: {_name(self.fastest)}")
        elif _is_slower(shipped, self.fastest):
            notes.append(
                f"{_name(shipped)} is slower than {_name(self.fastest)} here: "
                f"{shipped.latency.p50_ms:.3g} against {self.fastest.latency.p50_ms:.3g} ms"
            )
        return tuple(notes)

    def _is_accurate(self, figures: Figures) -> bool:
        looked_at, beside = accuracy_figures(figures, self.baseline), accuracy_figures(self.baseline)
        return all(judge(gate, looked_at, beside).outcome == PASS for gate in self.limits)


def is_within(limits: Sequence[Gate], accuracy_percent: float, baseline_percent: float) -> bool:
    """Whether an accuracy passes every limit beside that of the baseline."""
    drop = Figure(baseline_percent - accuracy_percent)
    looked_at = {"accuracy_percent": Figure(accuracy_percent), "accuracy_drop_points": drop}
    beside = {"accuracy_percent": Figure(baseline_percent)}
    return all(judge(gate, looked_at, beside).outcome == PASS for gate in limits)


def accuracy_limits(gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """The gates on accuracy, or DEFAULT_LIMIT where there is none."""
    return tuple(gate for gate in gates if gate.metric in ACCURACY_METRICS) or (DEFAULT_LIMIT,)


def _is_slower(one: Figures, other: Figures) -> bool:
    """Beyond the measuring noise: the 95 % intervals of the medians are apart."""
    return one.latency.median_low_ms > other.latency.median_high_ms


def _name(figures: Figures) -> str:
    return figures.artifact.precision


def choose_planned(latency_ms: Mapping[str, float]) -> str:
    """The precision that is planned for where it is left open: int8 only where this board runs the net faster in it.

    `latency_ms` is of the unpruned net, by precision: fp32 and int8.
    """
    return "int8" if latency_ms["int8"] < (1 - WORTH) * latency_ms["fp32"] else "fp32"
