"""Commands that judge a finished run and tell of it; they import neither torch nor a runtime."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.options import HOST_HELP, busy_option, history_option
from edgeprune.cli.output import json_option, print_result
from edgeprune.cli.progress import say, say_timed
from edgeprune.core.releasing.gate import EXIT_CODES, PASS
from edgeprune.core.stages import STEPS
from edgeprune.deployment import REQUEST
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.stages.against import Standing
    from edgeprune.stages.job import Job

REPORT_FILES = {"json": "report.json", "html": "report.html", "junit": "gates.junit.xml", "markdown": "gates.md"}
"""What the stage `report` writes into a run."""


@click.command()
@click.option("--run", "directory", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--gates", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Other gates: a TOML file.")
@click.option("--baseline", metavar="NAME|DIR|FILE", help="Hold it against this too (`edgeprune baseline list`).")
@click.option("--interleave", is_flag=True, help="Measure the baseline's file again, now, in turns with the run's.")
@click.option("--host", help=f"With --interleave: another board of the kind than the run's. {HOST_HELP}")
@busy_option
@history_option
@json_option
def gate(directory: Path, baseline: str | None, interleave: bool, host: str | None, **options: Any) -> None:
    """Judge a measured run again, this once perhaps by other gates, or against a baseline; writes its report anew.

    Against a baseline every metric that both have is compared, latencies as they were recorded unless --interleave
    measures both files again; docs/gates.md has the limits.
    """
    if interleave and baseline is None:
        raise UsageError("--interleave measures a baseline's file; name it by --baseline")
    if not interleave and (host is not None or options["allow_busy"]):
        name = "--host" if host is not None else "--allow-busy"
        raise UsageError(f"{name} is for --interleave: without it nothing is measured")
    other = None if baseline is None else partial(_hold_against, text=baseline, interleave=interleave, host=host)
    _judge_again(directory, ("gate", "report"), options, other)


def _hold_against(job: Job, text: str, interleave: bool, host: str | None) -> Standing:
    from edgeprune.stages.against import hold_against

    return hold_against(job, text, interleave, host)


@click.command()
@click.option("--run", "directory", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@history_option
@json_option
def report(directory: Path, history: str | None) -> None:
    """Write a run's report again and print its table."""
    _judge_again(directory, ("report",), {"history": history})


def _judge_again(
    directory: Path,
    stages: Sequence[str],
    options: Mapping[str, Any],
    compare: Callable[[Job], Standing] | None = None,
) -> None:
    """Make the last stages of a run anew, perhaps with how it compares; nothing heavy is imported for it."""
    from edgeprune.run import look_at_run
    from edgeprune.stages.job import open_job
    from edgeprune.stages.results import Confirmed, Judged, Measured, Reported, run_stage
    from edgeprune.stages.sources import describe_changes, note_sources
    from edgeprune.stages.verdict import gate as judge
    from edgeprune.stages.verdict import report as write_report

    look_at_run(directory)
    request = {**dict.fromkeys(REQUEST), "allow_busy": options.get("allow_busy")}
    gates = options["gates"].absolute() if options.get("gates") else None
    with open_job(directory, request, say_timed, gates, options["history"]) as job:
        for name in STEPS:
            if name not in stages and job.run.finished(name):
                job.run.check(name)
        for kind in (Measured, Confirmed) if "gate" in stages else (Judged,):
            job.read(kind)
        for change in describe_changes(job, stages):
            say_timed(change)
        standing = compare(job) if compare else None  # refused or not measured, the old verdict stays
        job.run.forget(*stages)
        for name in stages:
            say_timed(name)
            if name == "gate":
                run_stage(job.run, Judged, partial(judge, job, standing))
                note_sources(job, name)
            else:
                run_stage(job.run, Reported, partial(write_report, job))
        finish(job)


def finish(job: Job) -> None:
    """Print a run's result, and end with the exit code of its verdict."""
    from edgeprune.core.summary import name_next, render_result
    from edgeprune.run import read_json

    document, directory = read_json(job.run.file("report.json")), job.run.directory
    lines = [render_result(document), f"report: {directory / 'report.html'}"]
    if document["verdict"] == PASS:
        lines.append(f"next: {name_next(document, directory)}")
    files = {kind: directory / name for kind, name in REPORT_FILES.items()}
    verdict = {"run": directory, "verdict": document["verdict"], "files": files, "report": document}
    append_summary(files["markdown"])
    print_result(verdict, "\n".join(lines))
    sys.exit(EXIT_CODES[document["verdict"]])


def append_summary(path: Path) -> None:
    """Show the verdict on the page of a GitHub Actions job, which takes Markdown from the file it names."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary:
        return
    try:
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(f"{path.read_text(encoding='utf-8')}\n")
    except OSError as exc:
        say(f"GITHUB_STEP_SUMMARY={summary}: not written: {exc.strerror}")
    else:
        say(f"{path.name} appended to the job's summary ($GITHUB_STEP_SUMMARY)")


COMMANDS = (gate, report)
