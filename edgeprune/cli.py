"""The command line: parse, call the pipeline, print, exit code. Imports nothing heavy at the top."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgeprune.cli_boards import TARGET_HELP, devices, fleet, release
from edgeprune.cli_catalog import recipes, targets
from edgeprune.cli_measure import compare, file_options, measure_file
from edgeprune.cli_options import RUNNING, Command, busy_option, governor_option, with_options
from edgeprune.cli_profile import calibrate_profile, show_profile
from edgeprune.core.gate import EXIT_CODES, PASS
from edgeprune.deployment import DEFAULT_RECIPE, REQUEST, prepare, settle_request
from edgeprune.disk import describe_os_error
from edgeprune.errors import EdgepruneError, RunError, UsageError

STEPS = {
    "trace": "build the model, find channels that live and die together",
    "profile": "measure its layers and some whole variants on the board",
    "score": "measure how the loss rises as each group is narrowed",
    "plan": "choose the widths within the budget, proven",
    "fit": "measure the cut net untrained, plan again if it misses the budget",
    "prune": "cut the channels, prove the cut",
    "recover": "fine-tune with distillation from the original",
    "export": "ONNX and TFLite, fp32 and int8, each checked",
    "measure": "push, measure latency and quality on the board",
    "confirm": "measure what ships again beside the unpruned file, in fresh processes",
    "gate": "judge by the gates",
    "report": "report.json, report.html, gates.junit.xml",
}
"""What each stage does, in the order of the line."""
INTERRUPTED = 130
EVERY = "all"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgeprune")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Prune, quantize and export a PyTorch model for a device, by that device's measured latency, and gate its release.

    \b
    Exit codes: 0 pass, 1 error, 2 wrong call or input, 3 a gate failed, 4 inconclusive.
    """


def line_options(command: Command) -> Command:
    """The options that every stage of the line takes."""
    options = (
        click.option("--target", help=TARGET_HELP),
        click.option("--host", help="Address of the board: user@host, or a Host of ~/.ssh/config."),
        click.option("--recipe", help=f"Built-in name or a .py file (`edgeprune recipes`). Default: {DEFAULT_RECIPE}."),
        click.option("--latency-ms", type=click.FloatRange(0, min_open=True), help="Budget: median latency, ms."),
        click.option(
            "--speedup", type=click.FloatRange(1), help="Budget: so many times as fast as the unpruned fp32 net."
        ),
        click.option(
            "--confidence",
            type=click.FloatRange(0.5, 1, max_open=True),
            help="Plan so that the latency budget is met with this probability, such as 0.95, before any is measured.",
        ),
        *RUNNING,
        governor_option,
        busy_option,
        click.option("--gates", type=click.Path(exists=True, dir_okay=False), help="TOML file of [[gates]]."),
        click.option(
            "--run", "directory", type=click.Path(path_type=Path), help="Run directory: a new one, or one to resume."
        ),
    )
    return with_options(command, options)


def stage_command(name: str, until: str, text: str) -> None:
    """Add a command that runs the line as far as one stage."""

    @cli.command(name, help=text)
    @line_options
    def command(directory: Path | None, **asked: Any) -> None:
        if until == "fit" and _is_unreachable(directory, asked):
            asked["estimate"] = True
        with _open(directory, asked) as job:
            _run_line(job, until)
            _show(job, until)


def _is_unreachable(directory: Path | None, asked: Mapping[str, Any]) -> bool:
    """Whether a new run is for a board that nothing says the address of."""
    from edgeprune.device.lookup import is_known

    new = directory is None or not (directory / "request.json").exists()
    return new and asked["host"] is None and asked["target"] is not None and not is_known(Path(asked["target"]).stem)


def _show(job: Any, until: str) -> None:
    from edgeprune.core.artifact import parse_artifact
    from edgeprune.core.summary import render_columns, render_front, render_plan
    from edgeprune.run import read_json

    if until == "fit":
        click.echo(render_front(read_json(job.run.file("front.json"))) + "\n")
        click.echo(render_plan(job.run.result("fit")["plan"]))
        click.echo(f"picture: {job.run.directory / 'front.png'}")
    elif until in ("export", "measure"):
        exported = job.run.result("export")
        refused = dict.fromkeys(exported.get("refused", ()), "refused")
        rows = [
            (row["path"], f"{row['bytes']:,}", row["sha256"][:16], refused.get(parse_artifact(row).name, ""))
            for row in exported["artifacts"]
        ]
        click.echo(render_columns([("file", "bytes", "sha256", ""), *rows]))
    click.echo(f"run: {job.run.directory}")


for _name, _until, _text in (
    (
        "plan",
        "fit",
        "Choose the widths of least loss within the budget, and try them on the device. "
        "Where no address of a board is known, plan on its estimated profile.",
    ),
    ("prune", "recover", "Cut the net by the plan and fine-tune it."),
    ("quantize", "export", "Export the pruned net to ONNX and TFLite in fp32, fp16 and int8, and check each file."),
):
    stage_command(_name, _until, f"{_text}\n\nRuns the line as far as that, or resumes the run in --run.")


@cli.command()
@line_options
@click.option(
    "--bisect",
    "bisected",
    metavar="[ARTIFACT]",
    is_flag=False,
    flag_value=EVERY,
    help="Compare files of --run layer by layer; name the first bad layer, its figures and why. Exit code 1 if any.",
)
def export(directory: Path | None, bisected: str | None, **asked: Any) -> None:
    """Export the pruned net to ONNX and TFLite, as `quantize` does; find the layer that makes a file wrong.

    Runs the line as far as that, or resumes the run in --run. --bisect also serves a run that stopped at a broken link:
    it takes all files, or one such as pruned-onnx-int8.
    """
    with _open(directory, asked) as job:
        if bisected is None:
            _run_line(job, "export")
            _show(job, "export")
        else:
            _bisect(job, "" if bisected == EVERY else bisected)


def _bisect(job: Any, name: str) -> None:
    from edgeprune.core.summary import render_columns
    from edgeprune.stages.bisect import bisect

    findings = bisect(job, name)
    for one in findings:
        rows = [
            (row.layer, row.operator, f"{row.sqnr_db:.1f}", row.reference.describe(), row.other.describe())
            for row in (one.bisection.layers if name else ())
        ]
        if rows:
            click.echo(render_columns([("layer", "operator", "SQNR dB", "reference", "here"), *rows]))
        click.echo(one.describe())
    sys.exit(any(one.bisection.first for one in findings))


@cli.command()
@click.argument("model", required=False, type=click.Path(path_type=Path, exists=True))
@line_options
@file_options
def measure(
    model: Path | None,
    directory: Path | None,
    sustained: str | None,
    output: Path | None,
    shapes: Sequence[str],
    **asked: Any,
) -> None:
    """Measure every exported file of a run on the device, or MODEL alone: a file, or what a run ships.

    Without MODEL it runs the line as far as that, or resumes the run in --run.
    """
    if model is not None:
        measure_file(model, asked, sustained, output, shapes)
    elif sustained is not None or output is not None or shapes:
        raise UsageError("--sustained, --output and --shape are for a ready file: edgeprune measure MODEL --target ...")
    else:
        with _open(directory, asked) as job:
            _run_line(job, "confirm")
            _show(job, "measure")


@cli.group(invoke_without_command=True)
@line_options
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Time for single layers. Default: 10.")
@click.option(
    "--table", type=click.Path(exists=True, dir_okay=False), help="A latency table, in place of measuring one."
)
@click.option("--insist", is_flag=True, default=None, help="Use that table though it was made for something else.")
@click.pass_context
def profile(context: click.Context, /, directory: Path | None, **asked: Any) -> None:
    """Measure what the layers of a net cost on a device; show it; calibrate an estimate.

    Without a command it runs the line as far as that, or resumes the run in --run.
    """
    if context.invoked_subcommand is None:
        with _open(directory, asked) as job:
            _run_line(job, "profile")
            _show(job, "profile")
    elif directory is not None or any(value is not None for value in asked.values()):
        raise UsageError(f"write the options behind the command: edgeprune profile {context.invoked_subcommand} ...")


@profile.command("layers")
@click.option("--run", "directory", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
def show_layers(directory: Path) -> None:
    """Run the unpruned net under ONNX Runtime's profiler, and say which layer the table predicts wrongly."""
    from edgeprune.core.breakdown import render_breakdown
    from edgeprune.stages.breakdown import break_down_net

    with _open(directory, {}) as job:
        click.echo(render_breakdown(*break_down_net(job)))


@cli.command()
@line_options
@click.option("--dry-run", is_flag=True, help="Check what is asked, say what would be done, and do nothing.")
@click.option(
    "--from", "first", type=click.Choice(tuple(STEPS)), help="Make this stage of --run and all after it anew."
)
def deploy(directory: Path | None, dry_run: bool, first: str | None, **asked: Any) -> None:
    """Take a model to a device: prune, fine-tune, quantize, export, push, measure, judge.

    Repeat with --run DIR to resume after an interruption.
    """
    from edgeprune.pipeline import restart_from

    if first is not None and (directory is None or not (directory / "request.json").exists()):
        raise UsageError(f"--from {first}: there is no run yet to make it anew in; give the --run that was begun")
    if dry_run:
        _say_plan(directory, asked, first)
        return
    with _open(directory, asked) as job:
        if first is not None:
            restart_from(job, first)
        _run_line(job, "report")
        _finish(job)


@cli.command()
@click.option("--run", "directory", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--gates", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Other gates: a TOML file.")
def gate(directory: Path, gates: Path | None) -> None:
    """Judge a measured run again, this once perhaps by other gates; writes its report anew."""
    _judge_again(directory, ("gate", "report"), gates)


@cli.command()
@click.option("--run", "directory", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
def report(directory: Path) -> None:
    """Write a run's report again and print its table."""
    _judge_again(directory, ("report",))


def _judge_again(directory: Path, stages: Sequence[str], gates: Path | None = None) -> None:
    """Make the last stages of a run anew; nothing heavy is imported for it."""
    from edgeprune.stages import verdict
    from edgeprune.stages.job import open_job

    with open_job(directory, dict.fromkeys(REQUEST), _say, gates and gates.absolute()) as job:
        for name in STEPS:
            if name not in stages and job.run.finished(name):
                job.run.check(name)
        for name in ("measure", "confirm") if "gate" in stages else ("gate",):
            job.run.result(name)
        job.run.forget(*stages)
        for name in stages:
            _say(name)
            job.run.stage(name, partial({"gate": verdict.gate, "report": verdict.report}[name], job))
        _finish(job)


@cli.command()
@click.option("--run", "directory", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
def explain(directory: Path) -> None:
    """Say what was cut from each group of channels, and why."""
    from edgeprune.core.summary import render_plan
    from edgeprune.run import look_at_run, read_json

    click.echo(render_plan(read_json(look_at_run(directory).file("plan.json"))))


profile.add_command(show_profile)
profile.add_command(calibrate_profile)
cli.add_command(compare)
cli.add_command(recipes)
cli.add_command(targets)
cli.add_command(devices)
cli.add_command(fleet)
cli.add_command(release)


def _open(directory: Path | None, asked: Mapping[str, Any]) -> Any:
    """Open the job of a call."""
    from edgeprune.stages.job import open_job

    place, request = settle_request(directory, asked)
    prepare(place, directory, _say)
    return open_job(place, request, _say)


def _say_plan(directory: Path | None, asked: Mapping[str, Any], first: str | None) -> None:
    """Say what a call would do, refused where it would be refused."""
    from edgeprune.stages.job import find_address, preview_job

    place, request = settle_request(directory, asked)
    with preview_job(place, request, _say) as job:
        if not job.run.finished("trace") or first == "trace":
            from edgeprune.stages.model import look_at_recipe

            _say("checking the recipe and what can be cut")
            look_at_recipe(job.recipe)
        again = list(STEPS)[list(STEPS).index(first) :] if first else []
        address = find_address(job, "report", again)
        job.require_measured()
        known, target = (place / "request.json").exists(), job.target
        begun = " (resumed)" if known else f" (a new scope of {directory})" if directory not in (None, place) else ""
        click.echo(f"run directory: {place}{begun}")
        click.echo(f"target: {target.name}, {target.description}, {target.runtime} {target.precision}")
        click.echo("judged by: " + "; ".join(gate.describe() for gate in job.asked_gates))
        click.echo(f"recipe: {job.run.request['recipe']}, metric {job.metric.label}; board: {address}")
        done = [name for name in STEPS if job.run.finished(name) and name not in again]
        for name in done:
            job.run.check(name)
    for name, text in STEPS.items():
        click.echo(f"  {'done' if name in done else 'will'} {name:8} {text}")


def _run_line(job: Any, until: str) -> None:
    from edgeprune.pipeline import deploy as run_line

    try:
        run_line(job, until)
    except KeyboardInterrupt:
        _say(f"interrupted; resume with `edgeprune deploy --run {job.run.directory}`")
        sys.exit(INTERRUPTED)


def _finish(job: Any) -> None:
    from edgeprune.core.summary import render_result
    from edgeprune.run import read_json

    document = read_json(job.run.file("report.json"))
    click.echo(render_result(document))
    click.echo(f"report: {job.run.directory / 'report.html'}")
    if document["verdict"] == PASS:
        click.echo(f"next: edgeprune release push --run {job.run.directory} --activate")
    sys.exit(EXIT_CODES[document["verdict"]])


_STARTED = time.monotonic()


def _say(text: str) -> None:
    """Progress, with the seconds since the start; where nobody takes it any more, what it is about goes on."""
    with suppress(OSError):
        click.echo(f"{time.monotonic() - _STARTED:6.1f} s  {text}", err=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every foreseen error is one line, and `--debug` shows where it came from."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        cli.main(given, prog_name="edgeprune", standalone_mode=False)
    except EdgepruneError as exc:
        _fail(exc, exc.exit_code, given)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as exc:
        _fail(RunError(describe_os_error(exc)), 1, given, exc)
    except Exception as exc:
        _fail(exc, 1, given)


def _fail(exc: Exception, code: int, given: Sequence[str], cause: Exception | None = None) -> None:
    if "--debug" in given:
        traceback.print_exception(cause or exc)
    foreseen = isinstance(exc, EdgepruneError)
    text = " ".join(str(exc).split()) if foreseen else _describe_unexpected(exc)
    click.echo(f"edgeprune: {text}", err=True)
    sys.exit(code)


def _describe_unexpected(exc: Exception) -> str:
    from edgeprune.versions import describe_untried

    untried = describe_untried()
    return f"unexpected {type(exc).__name__}: {exc}; `edgeprune --debug` shows where" + f"; {untried}" * bool(untried)


if __name__ == "__main__":
    main()
