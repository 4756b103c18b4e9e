"""The straight line from a model to a verdict; the only module that knows every stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from edgeprune.stages.artifacts import export
from edgeprune.stages.confirm import confirm
from edgeprune.stages.job import CHOSEN, Job, find_address, open_job, reach_board
from edgeprune.stages.latency import fit, plan, profile
from edgeprune.stages.measure import measure
from edgeprune.stages.model import prune, recover_accuracy, score, trace
from edgeprune.stages.verdict import gate, report

__all__ = ["LINE", "PLANNING", "deploy", "open_job", "restart_from"]

LINE: dict[str, Callable[[Job], Any]] = {
    "trace": trace,
    "profile": profile,
    "score": score,
    "plan": plan,
    "fit": fit,
    "prune": prune,
    "recover": recover_accuracy,
    "export": export,
    "measure": measure,
    "confirm": confirm,
    "gate": gate,
    "report": report,
}
"""Every stage in order."""
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
    for index, (name, stage) in enumerate(LINE.items(), 1):
        done = job.run.finished(name)
        job.say(f"[{index}/{len(LINE)}] {name}{' (done before)' if done else ''}")
        if done:
            job.run.check(name)
        else:
            _forget_from(job, name)
        if name not in PLANNING:
            job.require_measured()
        job.run.stage(name, partial(stage, job))
        if name == until:
            break


def restart_from(job: Job, stage: str) -> None:
    """Drop what a stage and all after it have made, also what an interrupted one has chosen."""
    _forget_from(job, stage)
    if not job.run.finished("profile"):
        job.run.path(CHOSEN).unlink(missing_ok=True)


def _forget_from(job: Job, stage: str) -> None:
    names = list(LINE)
    job.run.forget(*names[names.index(stage) :])
