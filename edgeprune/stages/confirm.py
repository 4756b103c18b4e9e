"""What ships is measured again, beside the unpruned file alone, in fresh processes: the figures that gates judge."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.core.cost import say_cost
from edgeprune.core.measuring.measurement import Measurement
from edgeprune.core.releasing.document import Figures
from edgeprune.core.releasing.gate import INCONCLUSIVE, TIMED
from edgeprune.core.releasing.shipping import Candidates
from edgeprune.run import write_json
from edgeprune.stages.job import Job
from edgeprune.stages.measure import model_file
from edgeprune.stages.record import CONFIRMED, find_candidates, read_figures
from edgeprune.stages.results import Confirmed
from edgeprune.stages.sessions import Measurements, measure_until_decided


def confirm(job: Job) -> Confirmed:
    """Measure the chosen file and the baseline once more, and on while their figures decide nothing.

    Of sessions in which the board was not their own nothing is used, if another one was better.

    Raises:
        DeviceError: the device cannot be reached or does not run them.
        RunError: a file is gone, or was changed since it was exported.
    """
    candidates = find_candidates(job, read_figures(job))
    result = candidates.chosen
    first = {figures.artifact.name: figures for figures in (candidates.baseline, result)}
    models = [model_file(job, figures.artifact) for figures in first.values()]

    def measure() -> Measurements:
        job.detail(f"measuring {result.artifact.path} again, beside {candidates.baseline.artifact.path}")
        return job.board.time(models, job.target.threads, job.target.protocol, job.detail)

    def find_again(pooled: Measurements) -> dict[str, Figures]:
        return {name: _replace_times(figures, pooled[name]) for name, figures in first.items()}

    pooled, sessions = measure_until_decided(
        job, measure, lambda pooled: _is_undecided(replace(candidates, again=find_again(pooled)))
    )
    again = find_again(pooled)
    write_json(job.run.product(CONFIRMED), {name: figures.measurement.to_dict() for name, figures in again.items()})
    for name, figures in again.items():
        figure = "" if job.is_counted else "p50 "
        before = say_cost(first[name].latency.p50_ms)
        job.detail(f"{name}: {figure}{say_cost(figures.latency.p50_ms)}, {before} before")
    return Confirmed(artifact=result.artifact.name, sessions=sessions)


def _replace_times(figures: Figures, measurement: Measurement) -> Figures:
    """The figures with the times of another measurement; energy was measured in a run of its own."""
    before = figures.measurement
    return replace(figures, measurement=replace(measurement, energy=before.energy, power=before.power))


def _is_undecided(candidates: Candidates) -> bool:
    """Whether a timed figure is too near to its limit."""
    return any(
        judged.outcome == INCONCLUSIVE and gate.metric in TIMED
        for gate, judged in zip(candidates.gates, candidates.judge(candidates.chosen), strict=False)
    )
