"""What ships is measured again, beside the unpruned file alone, in fresh processes: the figures that gates judge."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.core.measuring.measurement import Measurement, find_problems, pool_measurements
from edgeprune.core.releasing.document import Figures
from edgeprune.core.releasing.gate import INCONCLUSIVE
from edgeprune.core.releasing.shipping import Candidates
from edgeprune.run import write_json
from edgeprune.stages.job import Job
from edgeprune.stages.measure import model_file
from edgeprune.stages.record import CONFIRMED, find_candidates, read_figures
from edgeprune.stages.results import Confirmed

SESSIONS = 3
"""So many sessions at most, while the interval of a figure holds its limit."""


def confirm(job: Job) -> Confirmed:
    """Measure the chosen file and the baseline once more, and on while their figures decide nothing.

    Raises:
        DeviceError: the device cannot be reached or does not run them.
        RunError: a file is gone, or was changed since it was exported.
    """
    candidates = find_candidates(job, read_figures(job))
    result = candidates.chosen
    first = {figures.artifact.name: figures for figures in (candidates.baseline, result)}
    models = [model_file(job, figures.artifact) for figures in first.values()]
    again, sessions = dict[str, Figures](), 0
    while sessions < SESSIONS and (not again or _is_open(replace(candidates, again=again), result)):
        job.detail(f"measuring {result.artifact.path} again, beside {candidates.baseline.artifact.path}")
        measurements = job.board.time(models, job.target.threads, job.target.protocol, job.detail)
        pooled = {name: _pool(job, again.get(name), measurements[name]) for name in first}
        again = {name: _replace_times(figures, pooled[name]) for name, figures in first.items()}
        sessions += 1
    write_json(job.run.product(CONFIRMED), {name: figures.measurement.to_dict() for name, figures in again.items()})
    for name, figures in again.items():
        job.detail(f"{name}: p50 {figures.latency.p50_ms:.4g} ms, {first[name].latency.p50_ms:.4g} ms before")
    return Confirmed(artifact=result.artifact.name, sessions=sessions)


def _pool(job: Job, before: Figures | None, measurement: Measurement) -> Measurement:
    if before is None:
        return measurement
    pooled = pool_measurements(before.measurement, measurement)
    return replace(pooled, problems=find_problems(pooled, job.target.protocol))


def _replace_times(figures: Figures, measurement: Measurement) -> Figures:
    """The figures with the times of another measurement; energy was measured in a run of its own."""
    before = figures.measurement
    return replace(figures, measurement=replace(measurement, energy=before.energy, power=before.power))


def _is_open(candidates: Candidates, result: Figures) -> bool:
    """Whether more measuring may decide what is not decided yet: valid runs, and an interval that holds its limit."""
    if not all(figures.measurement.valid for figures in candidates.find_last(result)):
        return False
    return any(gate.outcome == INCONCLUSIVE and gate.value is not None for gate in candidates.judge(result))
