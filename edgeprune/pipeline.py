"""The straight line from a model to a verdict; the only module that knows every stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from edgeprune.device.lookup import resolve_host
from edgeprune.run import open_run
from edgeprune.stages.artifacts import export
from edgeprune.stages.job import Job, check_request
from edgeprune.stages.latency import fit, plan, profile
from edgeprune.stages.measure import measure
from edgeprune.stages.model import prune, recover_accuracy, score, trace
from edgeprune.stages.verdict import gate, report

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
    "gate": gate,
    "report": report,
}
"""Every stage in order."""
PLANNING = ("trace", "profile", "score", "plan", "fit")
"""Stages that an estimated profile is good for."""


@contextmanager
def open_job(directory: Path, request: dict[str, Any], say: Callable[[str], None]) -> Iterator[Job]:
    """Open a run directory, and settle what can be settled before anything slow begins.

    Raises:
        EdgepruneError: the request does not fit the directory, or names what does not exist.
    """
    with open_run(directory, request) as run, ExitStack() as stack:
        job = Job(run, say, stack)
        check_request(job)
        yield job


def deploy(job: Job, until: str = "report") -> None:
    """The whole line; each stage's result is saved before the next begins, and a saved one is not made again.

    Raises:
        EdgepruneError: a stage cannot be done; a board that nothing says the address of, before any is begun.
    """
    if until != "trace" and not job.estimated and not job.run.finished("profile"):
        resolve_host(job.target.name, job.run.request["host"])
    for index, (name, stage) in enumerate(LINE.items(), 1):
        done = " (done before)" if job.run.finished(name) else ""
        job.say(f"[{index}/{len(LINE)}] {name}{done}")
        if name not in PLANNING:
            job.require_measured()
        job.run.stage(name, partial(stage, job))
        if name == until:
            break
