"""Commands that judge a finished run and tell of it; they import neither torch nor a runtime."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.options import history_option
from edgeprune.cli.progress import say_timed
from edgeprune.core.releasing.gate import EXIT_CODES, PASS
from edgeprune.core.stages import STEPS
from edgeprune.deployment import REQUEST

if TYPE_CHECKING:
    from edgeprune.stages.job import Job


@click.command()
@click.option("--run", "directory", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--gates", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Other gates: a TOML file.")
@history_option
def gate(directory: Path, gates: Path | None, history: str | None) -> None:
    """Judge a measured run again, this once perhaps by other gates; writes its report anew."""
    _judge_again(directory, ("gate", "report"), history, gates)


@click.command()
@click.option("--run", "directory", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@history_option
def report(directory: Path, history: str | None) -> None:
    """Write a run's report again and print its table."""
    _judge_again(directory, ("report",), history)


def _judge_again(directory: Path, stages: Sequence[str], history: str | None, gates: Path | None = None) -> None:
    """Make the last stages of a run anew; nothing heavy is imported for it."""
    from edgeprune.stages.job import open_job
    from edgeprune.stages.results import Confirmed, Judged, Measured, Reported, run_stage
    from edgeprune.stages.verdict import gate as judge
    from edgeprune.stages.verdict import report as write_report

    request = {**dict.fromkeys(REQUEST), "history": history}
    with open_job(directory, request, say_timed, gates and gates.absolute()) as job:
        for name in STEPS:
            if name not in stages and job.run.finished(name):
                job.run.check(name)
        for kind in (Measured, Confirmed) if "gate" in stages else (Judged,):
            job.read(kind)
        job.run.forget(*stages)
        for name in stages:
            say_timed(name)
            if name == "gate":
                run_stage(job.run, Judged, partial(judge, job))
            else:
                run_stage(job.run, Reported, partial(write_report, job))
        finish(job)


def finish(job: Job) -> None:
    """Print a run's result, and end with the exit code of its verdict."""
    from edgeprune.core.summary import render_result
    from edgeprune.run import read_json

    document = read_json(job.run.file("report.json"))
    click.echo(render_result(document))
    click.echo(f"report: {job.run.directory / 'report.html'}")
    if document["verdict"] == PASS:
        click.echo(f"next: edgeprune release push --run {job.run.directory} --activate")
    sys.exit(EXIT_CODES[document["verdict"]])


COMMANDS = (gate, report)
