"""The report document: every figure of a run in one versioned structure, and the figures that gates look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeprune.core.artifact import Artifact
from edgeprune.core.energy import Energy
from edgeprune.core.gate import Figure, Gate
from edgeprune.core.measurement import Measurement, find_ratio
from edgeprune.core.statistics import LatencySummary
from edgeprune.core.target import Budget

REPORT_VERSION = 1


@dataclass(frozen=True)
class Figures:
    """One artifact with everything that was measured of it on the device.

    `accuracy_percent` is the recipe's metric over `samples` evaluation inputs, computed in the runtime there.
    """

    artifact: Artifact
    measurement: Measurement
    accuracy_percent: float | None
    samples: int
    parameters: int
    macs: int
    predicted_ms: float | None = None

    @property
    def latency(self) -> LatencySummary:
        """Steady-state latency."""
        return self.measurement.latency

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; raw samples stay in the measurement's own file."""
        measurement = self.measurement
        return {
            "artifact": self.artifact.path,
            "accuracy_percent": self.accuracy_percent,
            "accuracy_samples": self.samples,
            "latency": self.latency.to_dict(),
            "init_ms": measurement.init_ms,
            "first_ms": measurement.first_ms,
            "warmup_runs": measurement.warmup_runs,
            "file_bytes": self.artifact.bytes,
            "peak_memory_mib": measurement.peak_memory_mib,
            "parameters": self.parameters,
            "macs": self.macs,
            "predicted_ms": self.predicted_ms,
            "energy_mj": measurement.energy_mj,
            "power": measurement.power,
            "energy": asdict(measurement.energy) if measurement.energy else None,
            "providers": dict(measurement.providers),
            "inputs": {name: list(shape) for name, shape in measurement.inputs.items()},
            "processor": measurement.processor,
            "cold_starts_ms": [list(pair) for pair in measurement.cold_starts_ms],
            "origin": "measured",
            "problems": list(measurement.problems),
        }


def gate_figures(figures: Figures, baseline: Figures | None = None) -> dict[str, Figure]:
    """What gates can look at, by metric. With a baseline, the speed-up and the accuracy drop against it."""
    measurement, latency = figures.measurement, figures.latency
    problem = "; ".join(measurement.problems)
    found = {
        "latency_p50_ms": Figure(latency.p50_ms, latency.median_low_ms, latency.median_high_ms, problem=problem),
        "latency_p90_ms": Figure(latency.p90_ms, problem=problem),
        "latency_p95_ms": Figure(latency.p95_ms, problem=problem),
        "latency_p99_ms": Figure(latency.p99_ms, problem=problem),
        "init_ms": Figure(measurement.init_ms),
        "first_ms": Figure(measurement.first_ms),
        "file_bytes": Figure(figures.artifact.bytes),
    }
    if measurement.peak_memory_mib is not None:
        found["peak_memory_mib"] = Figure(measurement.peak_memory_mib)
    if measurement.energy is not None:
        found["energy_mj"] = _energy(measurement.energy)
    found |= accuracy_figures(figures, baseline)
    return found | ({"speedup": _speedup(figures, baseline, problem)} if baseline else {})


def accuracy_figures(figures: Figures, baseline: Figures | None = None) -> dict[str, Figure]:
    """Those of :func:`gate_figures` that accuracy gates look at."""
    if figures.accuracy_percent is None:
        return {}
    found = {"accuracy_percent": Figure(figures.accuracy_percent)}
    if baseline is not None and baseline.accuracy_percent is not None:
        found["accuracy_drop_points"] = Figure(baseline.accuracy_percent - figures.accuracy_percent)
    return found


def _energy(energy: Energy) -> Figure:
    value, error = energy.energy_mj, energy.uncertainty_mj or 0.0
    if value is None:
        return Figure(None, problem=energy.reason)
    return Figure(value, value - error, value + error)


def _speedup(figures: Figures, baseline: Figures, problem: str) -> Figure:
    problem = problem or "; ".join(f"baseline: {text}" for text in baseline.measurement.problems)
    speedup, low, high = find_ratio(baseline.measurement, figures.measurement)
    return Figure(speedup, low, high, problem=problem)


def budget_gates(budget: Budget, gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """The gates with the budget itself among them: a release that misses its own budget does not ship."""
    own: list[Gate] = []
    if budget.speedup is not None:
        own.append(Gate("speedup", at_least=budget.speedup))
    if budget.latency_ms is not None:
        own.append(Gate("latency_p50_ms", at_most=budget.latency_ms))
    if budget.energy_mj is not None:
        own.append(Gate("energy_mj", at_most=budget.energy_mj))
    return (*own, *(gate for gate in gates if gate not in own))


def describe_conditions(measurement: Measurement) -> dict[str, Any]:
    """Conditions that the report shows."""
    return asdict(measurement.conditions)
