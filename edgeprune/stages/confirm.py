"""What ships is measured again, beside the unpruned file alone, in fresh processes: the figures that gates judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgeprune.core.cost import say_cost
from edgeprune.core.measuring.measurement import Measurement, pool_sessions
from edgeprune.core.releasing.document import Figures
from edgeprune.core.releasing.gate import INCONCLUSIVE, LOOKS, TIMED
from edgeprune.core.releasing.shipping import Candidates
from edgeprune.run import write_json
from edgeprune.stages.job import Job
from edgeprune.stages.measure import model_file
from edgeprune.stages.record import CONFIRMED, find_candidates, read_figures
from edgeprune.stages.results import Confirmed


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
    sessions: list[Mapping[str, Measurement]] = []
    again = dict[str, Figures]()
    while len(sessions) < LOOKS and (not again or _is_open(job, replace(candidates, again=again))):
        job.detail(f"measuring {result.artifact.path} again, beside {candidates.baseline.artifact.path}")
        sessions.append(job.board.time(models, job.target.threads, job.target.protocol, job.detail))
        pooled = pool_sessions(sessions, job.target.protocol)
        again = {name: _replace_times(figures, pooled[name]) for name, figures in first.items()}
    write_json(job.run.product(CONFIRMED), {name: figures.measurement.to_dict() for name, figures in again.items()})
    for name, figures in again.items():
        figure = "" if job.is_counted else "p50 "
        before = say_cost(first[name].latency.p50_ms)
        job.detail(f"{name}: {figure}{say_cost(figures.latency.p50_ms)}, {before} before")
    return Confirmed(artifact=result.artifact.name, sessions=len(sessions))


def _replace_times(figures: Figures, measurement: Measurement) -> Figures:
    """The figures with the times of another measurement; energy was measured in a run of its own."""
    before = figures.measurement
    return replace(figures, measurement=replace(measurement, energy=before.energy, power=before.power))


def _is_open(job: Job, candidates: Candidates) -> bool:
    """Whether more measuring may decide what is not decided yet: the last run was not valid, though the board ought to
    be quiet, or a timed figure is too near to its limit.
    """
    result = candidates.chosen
    if not all(figures.measurement.valid for figures in candidates.find_last(result)):
        return not job.allows_busy
    return any(
        judged.outcome == INCONCLUSIVE and gate.metric in TIMED
        for gate, judged in zip(candidates.gates, candidates.judge(result), strict=False)
    )
