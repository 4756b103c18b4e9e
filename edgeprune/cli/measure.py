"""The commands that measure ready files on a board."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.options import HOST_HELP, TARGET_HELP, Command, governor_option
from edgeprune.cli.output import json_option, print_result
from edgeprune.cli.progress import say
from edgeprune.core.releasing.gate import EXIT_CODES, INCONCLUSIVE
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.core.measuring.measurement import Measurement
    from edgeprune.core.target import Target
    from edgeprune.device.board import ModelFile

COMPARE_PROCESSES = 12
COMPARE_S = 9.0
"""Least time of each artifact in a comparison."""
SHAPE_HELP = "Of a model whose input sizes are open: images=1,3,640,640, or 1,3,640,640 for an only input."


def shape_option(command: Command) -> Command:
    """The option that gives the shapes of inputs whose sizes are open."""
    return click.option("--shape", "shapes", multiple=True, metavar="[NAME=]SIZES", help=SHAPE_HELP)(command)


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by the name of their input, "" for the only one.

    Raises:
        UsageError: not such a shape.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        if not re.fullmatch(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", sizes):
            raise UsageError(f"--shape {text}: expected [NAME=]SIZES, as images=1,3,640,640")
        if name in shapes:
            raise UsageError(f"--shape {text}: the shape of {name or 'the input'} is given twice")
        shapes[name] = tuple(map(int, sizes.split(",")))
    return shapes


def file_options(command: Command) -> Command:
    """The options for a ready file."""
    command = shape_option(command)
    path = click.Path(path_type=Path, dir_okay=False)
    command = click.option("--output", type=path, help="With MODEL: where to write everything as JSON.")(command)
    return click.option(
        "--sustained",
        metavar="TIME",
        help="With MODEL: run it without a pause for so long (10m), and show it over time.",
    )(command)


def measure_file(
    path: Path, options: Mapping[str, Any], sustained: str | None, output: Path | None, shapes: Sequence[str] = ()
) -> None:
    """Measure a ready file on a board, or run it for long; `options` are those of the line."""
    from edgeprune.core.measuring.sustained import find_sustained_problems, render_sustained
    from edgeprune.device.board import Session, require
    from edgeprune.device.boards import measure_files, open_board
    from edgeprune.device.lease import parse_duration
    from edgeprune.history.measured import describe_file
    from edgeprune.history.writing import keep
    from edgeprune.run import write_json

    run_options = [name for name in ("recipe", "latency_ms", "speedup", "gates") if options.get(name) is not None]
    if run_options:
        raise UsageError(
            f"--{run_options[0].replace('_', '-')} is for a run; leave it out to measure {path.name} alone"
        )
    duration_s = parse_duration(sustained) if sustained is not None else None
    target = _find_target(options)
    model = _read_model(path)
    if options.get("runtime") not in (None, "auto", model.runtime):
        raise UsageError(f"--runtime {options['runtime']}: {path.name} is a file of {model.runtime}; leave it out")
    session = Session(bool(options.get("set_governor")), shapes=parse_shapes(shapes))
    if duration_s is not None:
        with open_board(target, options["host"], say, session) as board:
            require(board, "sustain")
            facts, run = board.facts, board.sustain(model, target, duration_s, say)
        text, figures, problems = render_sustained(run), run.to_dict(), find_sustained_problems(run)
    else:
        facts, measured = measure_files(target, options["host"], [model], session, say)
        measurement = measured[model.name]
        text, problems = _render_measurement(measurement), measurement.problems
        figures = {**measurement.to_dict(), "latency": measurement.latency.to_dict()}
        keep(options.get("history"), lambda: [describe_file(measurement, path, facts, target.name)], say)
    document = {
        "device": facts.to_dict(),
        "file": path.name,
        "sha256": model.sha256,
        **figures,
        "problems": list(problems),
    }
    lines = [f"{facts.host}: {facts.cpu}, {model.path.name} with {target.threads} thread(s)", text]
    if output is not None:
        write_json(output, document)
        lines.append(f"written to {output}")
    print_result(document, "\n".join([*lines, *(f"not valid: {problem}" for problem in problems)]))
    sys.exit(EXIT_CODES[INCONCLUSIVE] if problems else 0)


@click.command()
@click.argument("what", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--target", help=f"Measure two files A and B in turn on this board. {TARGET_HELP}")
@click.option("--host", help=HOST_HELP)
@click.option(
    "--margin", type=click.FloatRange(0, 50, min_open=True), default=2.0, show_default=True, help="Equivalence, in %."
)
@governor_option
@shape_option
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write everything as JSON.")
@json_option
def compare(what: Sequence[Path], target: str | None, margin: float, output: Path | None, **options: Any) -> None:
    """Show the shipped artifacts of several runs side by side; with --target, measure two files against each other.

    A and B are .onnx or .tflite files, or runs, of which it is what they ship. They take turns on the board, so that
    what changes there changes both. Exit code 4 where neither a difference nor equivalence is shown.
    """
    if target is None:
        if output is not None or any(options.values()):
            raise UsageError("--target is needed to measure on a board; without it runs are shown side by side")
        _show_side_by_side(what)
    elif len(what) != 2:
        raise UsageError(f"two files are compared on a board, A and B; found {len(what)}")
    else:
        _compare_on_board((what[0], what[1]), {"target": target, **options}, margin / 100, output)


def _show_side_by_side(runs: Sequence[Path]) -> None:
    from edgeprune.core.summary import render_comparison
    from edgeprune.run import look_at_run, read_json

    files = [run for run in runs if not run.is_dir()]
    if files:
        raise UsageError(f"{files[0]}: is no run directory; to measure two files on a board, give --target")
    reports = [read_json(look_at_run(run).file("report.json")) for run in runs]
    rows = [{"run": run, "report": report} for run, report in zip(runs, reports, strict=True)]
    print_result({"runs": rows}, render_comparison([run.name for run in runs], reports))


def _compare_on_board(paths: tuple[Path, Path], options: Mapping[str, Any], margin: float, output: Path | None) -> None:
    from edgeprune.core.measuring.comparison import compare_processes, render_comparison
    from edgeprune.core.measuring.windows import fit_common_speed
    from edgeprune.device.board import Session
    from edgeprune.device.boards import measure_files
    from edgeprune.run import write_json

    target = _find_target(options)
    protocol = target.protocol
    least_s = max(COMPARE_S, protocol.min_duration_s)
    processes = max(COMPARE_PROCESSES, protocol.processes)
    protocol = replace(protocol, processes=processes, min_duration_s=least_s)
    models = [replace(_read_model(path), name=name) for name, path in zip("AB", paths, strict=True)]
    comparison_target = replace(target, protocol=protocol)
    session = Session(bool(options["set_governor"]), shapes=parse_shapes(options["shapes"]))
    facts, measured = measure_files(comparison_target, options["host"], models, session, say)
    steady = fit_common_speed({name: measurement.windows for name, measurement in measured.items()})
    result = compare_processes(steady["A"].by_process_ms, steady["B"].by_process_ms, margin)
    problems = [f"{name}: {text}" for name, measurement in measured.items() for text in measurement.problems]
    lines = [f"{facts.host}: {facts.cpu}, {target.threads} thread(s)"]
    lines.append(render_comparison((str(paths[0]), str(paths[1])), result, problems))
    rows = {name: measurement.to_dict() for name, measurement in measured.items()}
    comparison = result.to_dict() | ({"verdict": INCONCLUSIVE, "problems": problems} if problems else {})
    document = {"device": facts.to_dict(), "comparison": comparison, "measurements": rows}
    if output is not None:
        write_json(output, document)
        lines.append(f"written to {output}")
    print_result(document, "\n".join(lines))
    sys.exit(EXIT_CODES[INCONCLUSIVE] if problems or result.verdict == INCONCLUSIVE else 0)


def _find_target(options: Mapping[str, Any]) -> Target:
    from edgeprune.shipped import load_target

    if options.get("target") is None:
        raise UsageError("--target is needed to measure a file; `edgeprune targets` lists them")
    changes = {name: options[name] for name in ("runtime", "precision", "threads") if options.get(name) is not None}
    return replace(load_target(options["target"]), **changes)


def _read_model(path: Path) -> ModelFile:
    """A file or a run, as it is sent to a board; what is copied lasts as long as the command."""
    from edgeprune.measuring import read_model

    folder = click.get_current_context().with_resource(tempfile.TemporaryDirectory())
    return read_model(path, Path(folder), say)


def _render_measurement(measurement: Measurement) -> str:
    latency, conditions = measurement.latency, measurement.conditions
    rows = [
        f"latency p50 {latency.p50_ms:.4g} ms (95 % interval {latency.median_low_ms:.4g} to "
        f"{latency.median_high_ms:.4g}), p95 {latency.p95_ms:.4g}, p99 {latency.p99_ms:.4g}, {latency.count} samples",
        f"load {measurement.init_ms:.3g} ms, first run {measurement.first_ms:.3g} ms",
    ]
    if measurement.peak_memory_mib is not None:
        rows.append(f"peak memory {measurement.peak_memory_mib:.1f} MiB")
    rows += [f"{100 * share:.1f} % of the nodes ran on {name}" for name, share in sorted(measurement.providers.items())]
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in measurement.inputs.items())
    rows += [f"inputs: {shapes}"] if shapes else []
    return "\n".join([*rows, f"conditions: {conditions.describe()}", f"processor: {measurement.describe_processor()}"])


COMMANDS = (compare,)
