"""The report document: every figure of a run in one versioned structure, and the figures that gates look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from edgeprune.core.artifact import COUNTED, Artifact
from edgeprune.core.cost import MS, name_ratio
from edgeprune.core.measuring.energy import Energy
from edgeprune.core.measuring.measurement import Measurement
from edgeprune.core.measuring.paired_quality import QualitySpread
from edgeprune.core.measuring.pairing import find_ratio
from edgeprune.core.measuring.spread import TAIL, TableSpread, find_session_error, spread_over_processes
from edgeprune.core.measuring.statistics import LatencySummary
from edgeprune.core.metric import TOP1, Metric
from edgeprune.core.planning.budget import Budget
from edgeprune.core.planning.limits import Costs
from edgeprune.core.releasing.gate import ACCURACY, ACCURACY_DROP, PERCENTILES, QUALITY, QUALITY_DROP, Figure, Gate

REPORT_VERSION = 2
COUNTS = ("file_bytes", "parameters", "macs", "activation_bytes", "sram_bytes", "flash_bytes")
"""Limits of a budget that are gates by the same name."""
COLD_STARTS = ("init_ms", "first_ms")
"""In the order in which a cold start holds them."""


@dataclass(frozen=True)
class Figures:
    """One artifact with everything that was measured of it on the device.

    `quality` is the recipe's `metric` over `samples` evaluation inputs, computed in the runtime there: None where it
    was not computed, NaN where the metric gave no finite number; `spread` is that of the inputs. `costs` are those of
    the net that the file holds.
    """

    artifact: Artifact
    measurement: Measurement
    quality: float | None
    samples: int
    costs: Costs
    predicted_ms: float | None = None
    metric: Metric = TOP1
    spread: QualitySpread | None = None

    @cached_property
    def latency(self) -> LatencySummary:
        """Steady-state latency."""
        return self.measurement.latency

    @property
    def shown_quality(self) -> float | None:
        """The quality as a report can hold it: None where there is no finite number."""
        return None if self.quality is None or self.quality != self.quality else self.quality

    def _bound_quality(self) -> tuple[float | None, float | None]:
        return self.spread.quality.bound(TAIL) if self.spread else (None, None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; raw samples stay in the measurement's own file."""
        measurement = self.measurement
        return {
            "artifact": self.artifact.path,
            "quality": self.shown_quality,
            "quality_samples": self.samples,
            **dict(zip(("quality_low", "quality_high"), self._bound_quality(), strict=True)),
            "latency": measurement.describe_latency(),
            "latency_intervals_ms": {
                f"p{percent:g}": list(measurement.spread(percent).interval()[1:])
                for percent in (() if measurement.is_counted else PERCENTILES.values())
                if not measurement.find_lack(percent)
            },
            "init_ms": measurement.init_ms,
            "first_ms": measurement.first_ms,
            "warmup_runs": measurement.warmup_runs,
            "runs_per_sample": measurement.runs_per_sample,
            "file_bytes": self.artifact.bytes,
            "peak_memory_mib": measurement.peak_memory_mib,
            "parameters": self.costs.parameters,
            "macs": self.costs.macs,
            "activation_bytes": self.costs.activation_bytes,
            "sram_bytes": self.artifact.sram_bytes,
            "sram_counted": self.artifact.sram_counted,
            "predicted_ms": self.predicted_ms,
            "energy_mj": measurement.energy_mj,
            "power": measurement.power,
            "energy": asdict(measurement.energy) if measurement.energy else None,
            "providers": dict(measurement.providers),
            "inputs": {name: list(shape) for name, shape in measurement.inputs.items()},
            "processor": measurement.processor,
            "cold_starts_ms": [list(pair) for pair in measurement.cold_starts_ms],
            "origin": measurement.origin,
            "problems": list(measurement.problems),
        }


def gate_figures(figures: Figures, baseline: Figures | None = None) -> dict[str, Figure]:
    """What gates can look at, by metric. With a baseline, the speed-up and the drop of the quality against it.

    Whatever an invalid run gave carries its problem.
    """
    return {
        **_timed_figures(figures),
        **_cost_figures(figures),
        **quality_figures(figures.metric, figures.quality, baseline.quality if baseline else None, figures.spread),
        **({name_ratio(figures.measurement.unit): _speedup(figures, baseline)} if baseline else {}),
    }


def _timed_figures(figures: Figures) -> dict[str, Figure]:
    """Those that come from the run on the device."""
    measurement = figures.measurement
    problem = "; ".join(measurement.problems)
    if measurement.is_counted:
        figure = Figure.of(measurement.latency.p50_ms, measurement.spread(), problem)
        return {"instructions": replace(figure, origin=measurement.origin)}
    figures_by_metric = {name: _percentile(measurement, percent, problem) for name, percent in PERCENTILES.items()}
    for place, name in enumerate(COLD_STARTS):
        starts_ms = [start[place] for start in measurement.cold_starts_ms]
        spread = spread_over_processes(starts_ms, find_session_error()) if len(starts_ms) > 1 else None
        figures_by_metric[name] = Figure.of(getattr(measurement, name), spread, problem)
    if measurement.peak_memory_mib is not None:
        figures_by_metric["peak_memory_mib"] = Figure(measurement.peak_memory_mib, problem=problem)
    if measurement.energy is not None:
        figures_by_metric["energy_mj"] = _energy(measurement.energy, problem)
    return figures_by_metric


def _percentile(measurement: Measurement, percent: float, problem: str) -> Figure:
    if lack := measurement.find_lack(percent):
        return Figure(None, problem=lack)
    spread = measurement.spread(percent)
    return Figure.of(spread.center, spread, problem)


def gate_changes(figures: Figures, baseline: Figures) -> dict[str, Figure]:
    """How much worse each figure is than that of the baseline, as a share of it: of latencies, which took turns, and of
    the quality, over the same inputs. What gates on a regression look at.
    """
    changes, problem = {}, _pair_problem(figures, baseline)
    percentiles = {"instructions": 50.0} if figures.measurement.is_counted else PERCENTILES
    for name, percent in percentiles.items():
        spread = replace(find_ratio(figures.measurement, baseline.measurement, percent), shift=-1.0)
        changes[name] = Figure.of(spread.center - 1, spread, problem)
    drops = quality_figures(figures.metric, figures.quality, baseline.quality, figures.spread)
    for name, drop_name in ((QUALITY, QUALITY_DROP), (ACCURACY, ACCURACY_DROP)):
        drop = drops.get(drop_name)
        if drop is not None and drop.value is not None and baseline.quality:
            scaled = drop.spread.scale(1 / abs(baseline.quality)) if isinstance(drop.spread, TableSpread) else None
            changes[name] = Figure.of(drop.value / abs(baseline.quality), scaled)
    return changes


def _cost_figures(figures: Figures) -> dict[str, Figure]:
    """Those that were counted on the file and on the net that it holds: no run can spoil them."""
    counts = {name: getattr(figures.costs, name) for name in ("parameters", "macs", "activation_bytes")}
    size = figures.artifact.bytes
    costs = {name: Figure(value) for name, value in {**counts, "file_bytes": size, "flash_bytes": size}.items()}
    return {**costs, **_sram_figure(figures.artifact)}


def _sram_figure(artifact: Artifact) -> dict[str, Figure]:
    """The memory that the interpreter needs; an estimate where it did not count that itself."""
    if artifact.sram_bytes is None:
        return {}
    is_counted = artifact.sram_counted.startswith(COUNTED)
    return {"sram_bytes": Figure(artifact.sram_bytes, origin="measured" if is_counted else artifact.sram_counted)}


def quality_figures(
    metric: Metric, value: float | None, original: float | None = None, spread: QualitySpread | None = None
) -> dict[str, Figure]:
    """Those of :func:`gate_figures` that gates on the recipe's metric look at; of the `original` it is held against."""
    if value is None:
        return {}
    names = [(QUALITY, QUALITY_DROP), *([(ACCURACY, ACCURACY_DROP)] if metric.is_percent else [])]
    quality = Figure.of(value, spread.quality if spread else None, metric.doubt)
    drop = (
        None
        if original is None
        else Figure.of(metric.drop(value, original), spread.drop if spread else None, metric.doubt)
    )
    return {**{name: quality for name, _ in names}, **{name: drop for _, name in names if drop}}


def _energy(energy: Energy, problem: str) -> Figure:
    value, error = energy.energy_mj, energy.uncertainty_mj or 0.0
    if value is None:
        return Figure(None, problem=energy.reason)
    return Figure(value, value - error, value + error, problem=problem)


def _pair_problem(figures: Figures, baseline: Figures) -> str:
    """Why nothing follows from a file beside the baseline; empty where something does."""
    return "; ".join([*figures.measurement.problems, *(f"baseline: {text}" for text in baseline.measurement.problems)])


def _speedup(figures: Figures, baseline: Figures) -> Figure:
    spread = find_ratio(baseline.measurement, figures.measurement)
    return Figure.of(spread.center, spread, _pair_problem(figures, baseline))


def budget_gates(budget: Budget, gates: Sequence[Gate], unit: str = MS) -> tuple[Gate, ...]:
    """The gates with the whole budget among them: a release that misses its own budget does not ship.

    `unit` is that of the board: where it counts instructions, a speed-up is a ratio of these.
    """
    limits = {
        "latency_p50_ms": budget.latency_ms,
        "instructions": budget.instructions,
        "energy_mj": budget.energy_mj,
        **{name: getattr(budget, name) for name in COUNTS},
    }
    own = [Gate(name_ratio(unit), at_least=budget.speedup)] if budget.speedup is not None else []
    own += [Gate(metric, at_most=limit) for metric, limit in limits.items() if limit is not None]
    return (*own, *(gate for gate in gates if gate not in own))


def describe_conditions(measurement: Measurement) -> dict[str, Any]:
    """Conditions that the report shows."""
    return asdict(measurement.conditions)
