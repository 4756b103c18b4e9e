"""The straight line from a model to a verdict; the only module that knows every stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from edgeprune.stages.artifacts import export
from edgeprune.stages.confirm import confirm
from edgeprune.stages.job import CHOSEN, Job, find_address, open_job, reach_board
from edgeprune.stages.latency import fit, plan, profile
from edgeprune.stages.measure import measure
from edgeprune.stages.model import prune, recover_accuracy, score, trace
from edgeprune.stages.results import (
    Confirmed,
    Exported,
    Fitted,
    Judged,
    Measured,
    Planned,
    Profiled,
    Pruned,
    Recovery,
    Reported,
    Result,
    Scored,
    Traced,
    run_stage,
)
from edgeprune.stages.sources import describe_changes, note_sources
from edgeprune.stages.verdict import gate, report

__all__ = ["LINE", "PLANNING", "deploy", "open_job", "restart_from"]


@dataclass(frozen=True)
class Stage:
    """A stage of the line: what it makes, and the results of others that it reads."""

    function: Callable[[Job], Result]
    makes: type[Result]
    reads: tuple[type[Result], ...] = ()


STAGES = (
    Stage(trace, Traced),
    Stage(profile, Profiled, (Traced,)),
    Stage(score, Scored, (Traced, Profiled)),
    Stage(plan, Planned, (Traced, Profiled, Scored)),
    Stage(fit, Fitted, (Traced, Profiled, Scored, Planned)),
    Stage(prune, Pruned),
    Stage(recover_accuracy, Recovery),
    Stage(export, Exported, (Traced, Profiled, Fitted)),
    Stage(measure, Measured, (Profiled, Exported)),
    Stage(confirm, Confirmed, (Traced, Profiled, Fitted, Exported, Measured)),
    Stage(gate, Judged, (Traced, Profiled, Fitted, Exported, Measured)),
    Stage(report, Reported, (Traced, Profiled, Fitted, Recovery, Exported, Measured, Judged)),
)
"""Every stage in order."""
LINE = {stage.makes.stage: stage for stage in STAGES}
PLANNING = ("trace", "profile", "score", "plan", "fit")
"""Stages that an estimated profile is good for."""


def deploy(job: Job, until: str = "report") -> None:
    """The whole line; each stage's result is saved before the next begins, and a saved one is not made again, unless
    one before it is.

    Raises:
        EdgepruneError: a stage cannot be done; a board that nothing says the address of, before any is begun; a file
            that a finished stage has made is gone or was changed.
    """
    find_address(job, until)
    reach_board(job, until)
    for change in describe_changes(job):
        job.say(change)
    for index, (name, stage) in enumerate(LINE.items(), 1):
        finished = job.run.finished(name)
        job.say(f"[{index}/{len(LINE)}] {name}{' (done before)' if finished else ''}")
        if finished:
            job.run.check(name)
        else:
            _forget_from(job, name)
        if name not in PLANNING:
            job.require_measured()
        run_stage(job.run, stage.makes, partial(stage.function, job))
        if not finished:
            note_sources(job, name)
        if name == until:
            break


def restart_from(job: Job, stage: str) -> None:
    """Drop what a stage and all after it have made, also what an interrupted one has chosen."""
    _forget_from(job, stage)
    job.anew.update(_from(stage))
    if not job.run.finished("profile"):
        job.run.path(CHOSEN).unlink(missing_ok=True)


def _forget_from(job: Job, stage: str) -> None:
    job.run.forget(*_from(stage))


def _from(stage: str) -> list[str]:
    """The stage and all after it."""
    names = list(LINE)
    return names[names.index(stage) :]
