"""The commands that run the line, whole or as far as one stage."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.judging import finish
from edgeprune.cli.mcu import export_file, form_options
from edgeprune.cli.measure import file_options, measure_file
from edgeprune.cli.options import Command, Finite, busy_option, line_options
from edgeprune.cli.output import json_option, print_result
from edgeprune.cli.profile import calibrate_profile, show_profile
from edgeprune.cli.progress import say_timed
from edgeprune.core.cost import MS
from edgeprune.core.stages import STEPS
from edgeprune.deployment import prepare, settle_request
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.stages.job import Job

EVERY = "all"
NOT_CHECKED = (
    "the model, the data and `widths`: nothing is built or trained here; `edgeprune recipes check {recipe}` does that"
)
"""What a dry run leaves out of a recipe, whose functions may train for hours."""


def stage_options(command: Command) -> Command:
    """The options that every stage of the line takes, and what it prints."""
    return line_options(json_option(command))


def stage_command(name: str, until: str, text: str) -> click.Command:
    """A command that runs the line as far as one stage."""

    @click.command(name, help=f"{text}\n\nRuns the line as far as that, or resumes the run in --run.")
    @stage_options
    def command(directory: Path | None, **options: Any) -> None:
        if until == "fit" and _is_unreachable(directory, options):
            options["estimate"] = True
        with _open(directory, options) as job:
            _run_line(job, until)
            _show(job, until)

    return command


plan = stage_command(
    "plan",
    "fit",
    "Choose the widths of least loss within the budget, and try them on the device. "
    "Where no address of a board is known, plan on its estimated profile.",
)
prune = stage_command("prune", "recover", "Cut the net by the plan and fine-tune it.")
quantize = stage_command(
    "quantize", "export", "Export the pruned net to ONNX and TFLite in fp32, fp16 and int8, and check each file."
)


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@stage_options
@form_options
@click.option(
    "--bisect",
    "bisected",
    metavar="[ARTIFACT]",
    is_flag=False,
    flag_value=EVERY,
    help="Compare files of --run layer by layer; name the first bad layer, its figures and why. Exit code 1 if any.",
)
def export(
    model: Path | None,
    directory: Path | None,
    bisected: str | None,
    form: str | None,
    core: str | None,
    output: Path | None,
    **options: Any,
) -> None:
    """Export the pruned net to ONNX and TFLite, as `quantize` does; find the layer that makes a file wrong.

    Runs the line as far as that, or resumes the run in --run. --bisect also serves a run that stopped at a broken link:
    it takes all files, or one such as pruned-onnx-int8.

    With MODEL, a static int8 .tflite file, and --format c or tflm: writes a project for microcontrollers, in plain C or
    around TensorFlow Lite Micro, with a self-test.
    """
    if model is not None or form is not None:
        export_file(model, form, core, output, options)
        return
    if core is not None or output is not None:
        raise UsageError("--core and --output are for a ready file: edgeprune export MODEL.tflite --format c")
    with _open(directory, options) as job:
        if bisected is None:
            _run_line(job, "export")
            _show(job, "export")
        else:
            _bisect(job, "" if bisected == EVERY else bisected)


def _bisect(job: Job, name: str) -> None:
    from edgeprune.core.text import render_columns
    from edgeprune.stages.bisect import bisect

    findings, lines = bisect(job, name), []
    for finding in findings:
        rows = [
            (row.layer, row.operator, f"{row.sqnr_db:.1f}", row.reference.describe(), row.other.describe())
            for row in (finding.bisection.layers if name else ())
        ]
        if rows:
            lines.append(render_columns([("layer", "operator", "SQNR dB", "reference", "here"), *rows]))
        lines.append(finding.describe())
    print_result({"run": job.run.directory, "links": [asdict(finding) for finding in findings]}, "\n".join(lines))
    sys.exit(any(finding.bisection.first for finding in findings))


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path, exists=True))
@stage_options
@file_options
def measure(
    model: Path | None,
    directory: Path | None,
    sustained: str | None,
    output: Path | None,
    shapes: Sequence[str],
    image: Path | None,
    **options: Any,
) -> None:
    """Measure every exported file of a run on the device, or MODEL alone: a file, or what a run ships.

    Without MODEL it runs the line as far as that, or resumes the run in --run.
    """
    if model is not None:
        measure_file(model, options, sustained, output, shapes, image)
    elif sustained is not None or output is not None or shapes or image is not None:
        raise UsageError(
            "--sustained, --output, --shape and --image are for a ready file: edgeprune measure MODEL --target ..."
        )
    else:
        with _open(directory, options) as job:
            _run_line(job, "confirm")
            _show(job, "measure")


@click.group(invoke_without_command=True)
@stage_options
@click.option("--minutes", type=Finite(0, min_open=True), help="Time for single layers. Default: 10.")
@click.option(
    "--table", type=click.Path(exists=True, dir_okay=False), help="A latency table, in place of measuring one."
)
@click.option("--insist", is_flag=True, default=None, help="Use that table though it was made for something else.")
@click.pass_context
def profile(context: click.Context, /, directory: Path | None, **options: Any) -> None:
    """Measure what the layers of a net cost on a device; show it; calibrate an estimate.

    Without a command it runs the line as far as that, or resumes the run in --run.
    """
    if context.invoked_subcommand is None:
        with _open(directory, options) as job:
            _run_line(job, "profile")
            _show(job, "profile")
    elif directory is not None or any(value is not None for value in options.values()):
        raise UsageError(f"write the options behind the command: edgeprune profile {context.invoked_subcommand} ...")


@profile.command("layers")
@click.option("--run", "directory", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@busy_option
@json_option
def show_layers(directory: Path, allow_busy: bool | None) -> None:
    """Run the unpruned net under ONNX Runtime's profiler, and say which layer the table predicts wrongly."""
    from edgeprune.core.latency.breakdown import render_breakdown
    from edgeprune.stages.breakdown import break_down_net

    with _open(directory, {"allow_busy": allow_busy}) as job:
        layers, measured_ms = break_down_net(job)
    rows = [asdict(layer) for layer in layers]
    print_result({"run": directory, "measured_ms": measured_ms, "layers": rows}, render_breakdown(layers, measured_ms))


@click.command()
@stage_options
@click.option("--dry-run", is_flag=True, help="Check what is asked, say what would be done, and do nothing.")
@click.option(
    "--from",
    "first",
    metavar="STAGE",
    type=click.Choice(tuple(STEPS)),
    help=f"Make this stage of --run and all after it anew: {', '.join(STEPS)}.",
)
def deploy(directory: Path | None, dry_run: bool, first: str | None, **options: Any) -> None:
    """Take a model to a device: prune, fine-tune, quantize, export, push, measure, judge.

    Repeat with --run DIR to resume after an interruption.
    """
    from edgeprune.pipeline import restart_from

    if first is not None and (directory is None or not (directory / "request.json").exists()):
        raise UsageError(f"--from {first}: there is no run yet to make it anew in; give the --run that was begun")
    if dry_run:
        _say_plan(directory, options, first)
        return
    with _open(directory, options) as job:
        if first is not None:
            restart_from(job, first)
        _run_line(job, "report")
        finish(job)


def _is_unreachable(directory: Path | None, options: Mapping[str, Any]) -> bool:
    """Whether a new run is for a board that nothing says the address of."""
    from edgeprune.device.mcu.board import EMULATED
    from edgeprune.device.transports.lookup import is_known

    new = directory is None or not (directory / "request.json").exists()
    return (
        new
        and options["host"] is None
        and options["target"] is not None
        and not Path(options["target"]).stem.startswith(EMULATED)
        and not is_known(Path(options["target"]).stem)
    )


def _show(job: Job, until: str) -> None:
    document, lines = {"run": job.run.directory, "stage": until}, list[str]()
    if until == "fit":
        more, lines = _tell_plan(job)
        document |= more
    elif until in ("export", "measure"):
        more, lines = _tell_files(job)
        document |= more
    print_result(document, "\n".join([*lines, f"run: {job.run.directory}"]))


def _tell_plan(job: Job) -> tuple[dict[str, Any], list[str]]:
    """What was planned, as a document and as lines."""
    from edgeprune.core.summary import render_front, render_plan
    from edgeprune.run import read_json
    from edgeprune.stages.results import Fitted

    front, plan = read_json(job.run.file("front.json")), job.read(Fitted).plan.to_dict()
    drawn = job.run.directory / "front.png"
    picture = drawn if drawn.exists() else None
    lines = [render_front(front), "", render_plan(plan), *([f"picture: {picture}"] if picture else [])]
    named = {"origin": front["origin"], "unit": front.get("unit", MS), "front": front["front"]}
    return {**named, "plan": plan, "picture": picture}, lines


def _tell_files(job: Job) -> tuple[dict[str, Any], list[str]]:
    """What was exported, as a document and as lines."""
    from edgeprune.core.text import render_columns
    from edgeprune.stages.results import Exported

    exported = job.read(Exported)
    rows = [
        (file.path, f"{file.bytes:,}", file.sha256[:16], "refused" if file.name in exported.refused else "")
        for file in exported.artifacts
    ]
    files = [
        {"path": file.path, "bytes": file.bytes, "sha256": file.sha256, "refused": exported.refused.get(file.name)}
        for file in exported.artifacts
    ]
    return {"artifacts": files}, [render_columns([("file", "bytes", "sha256", ""), *rows])]


def _open(directory: Path | None, options: Mapping[str, Any]) -> AbstractContextManager[Job]:
    """Open the job of a call."""
    from edgeprune.stages.job import open_job

    place, request = settle_request(directory, options)
    prepare(place, directory, say_timed)
    return open_job(place, request, say_timed)


def _say_plan(directory: Path | None, options: Mapping[str, Any], first: str | None) -> None:
    """Say what a call would do, refused where it would be refused."""
    from edgeprune.stages.job import find_address, preview_job
    from edgeprune.stages.sources import describe_changes

    place, request = settle_request(directory, options)
    with preview_job(place, request, say_timed) as job:
        again = list(STEPS)[list(STEPS).index(first) :] if first else []
        address = find_address(job, "report", again)
        job.require_measured()
        has_request, target = (place / "request.json").exists(), job.target
        begun = (
            " (resumed)" if has_request else f" (a new scope of {directory})" if directory not in (None, place) else ""
        )
        gates, recipe = [gate.describe() for gate in job.asked_gates], job.run.request["recipe"]
        metric = job.metric.label
        finished = [name for name in STEPS if job.run.finished(name) and name not in again]
        for name in finished:
            job.run.check(name)
        for change in describe_changes(job, again):
            say_timed(change)
    unchecked = "" if "trace" in finished else NOT_CHECKED.format(recipe=recipe)
    lines = [
        f"run directory: {place}{begun}",
        f"target: {target.name}, {target.description}, {target.runtime} {target.precision}",
        "judged by: " + "; ".join(gates),
        f"recipe: {recipe}, metric {metric}; board: {address}",
        *(f"  {'done' if name in finished else 'will'} {name:8} {text}" for name, text in STEPS.items()),
        *([f"not checked: {unchecked}"] if unchecked else []),
    ]
    facts = {
        "target": target.name,
        "recipe": recipe,
        "metric": metric,
        "board": address,
        "gates": gates,
        "not_checked": unchecked,
    }
    stages = [{"name": name, "finished": name in finished, "text": text} for name, text in STEPS.items()]
    print_result({"run": place, "resumed": has_request, **facts, "stages": stages}, "\n".join(lines))


def _run_line(job: Job, until: str) -> None:
    from edgeprune.pipeline import deploy as run_line

    try:
        run_line(job, until)
    except KeyboardInterrupt:
        say_timed(f"interrupted; resume with `edgeprune deploy --run {job.run.directory}`")
        raise click.Abort from None


profile.add_command(show_profile)
profile.add_command(calibrate_profile)
COMMANDS = (plan, prune, quantize, export, measure, profile, deploy)
