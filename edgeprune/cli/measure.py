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

from edgeprune.cli.options import Command
from edgeprune.cli.output import print_result
from edgeprune.cli.progress import say
from edgeprune.core.measuring.spread import TAIL
from edgeprune.core.releasing.gate import EXIT_CODES, INCONCLUSIVE
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.core.measuring.energy import Energy
    from edgeprune.core.measuring.measurement import Measurement
    from edgeprune.core.target import Target
    from edgeprune.device.board import ModelFile

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
    firmware = click.Path(path_type=Path, exists=True, dir_okay=False)
    text = "With MODEL: firmware to bring onto the board first, by `flash` of the target (docs/serial.md)."
    command = click.option("--image", type=firmware, metavar="FIRMWARE", help=text)(command)
    return click.option(
        "--sustained",
        metavar="TIME",
        help="With MODEL: run it without a pause for so long (10m), and show it over time.",
    )(command)


def measure_file(
    path: Path,
    options: Mapping[str, Any],
    sustained: str | None,
    output: Path | None,
    shapes: Sequence[str] = (),
    image: Path | None = None,
) -> None:
    """Measure a ready file on a board, or run it for long; `options` are those of the line."""
    from edgeprune.cli.mcu import print_counts
    from edgeprune.core.measuring.sustained import find_sustained_problems, render_sustained
    from edgeprune.device.board import Session, require
    from edgeprune.device.boards import is_counted, measure_files, open_board
    from edgeprune.device.lease import parse_duration
    from edgeprune.device.serial.flashing import flash_image
    from edgeprune.history.measured import describe_file
    from edgeprune.history.writing import keep
    from edgeprune.run import write_json

    _refuse_run_options(path, options)
    duration_s = parse_duration(sustained) if sustained is not None else None
    target = find_target(options)
    if is_counted(target, options.get("host")):
        _refuse_board_options(target, (duration_s, shapes, image, options.get("set_governor")))
        print_counts(path, target, output)
        return
    model = read_model_file(path)
    if options.get("runtime") not in (None, "auto", model.runtime):
        raise UsageError(f"--runtime {options['runtime']}: {path.name} is a file of {model.runtime}; leave it out")
    governor, benchmark = bool(options.get("set_governor")), options.get("benchmark_model")
    session = Session(governor, shapes=parse_shapes(shapes), benchmark_model=benchmark)
    if image is not None:
        flash_image(target, options["host"], image, say)
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


def _refuse_run_options(path: Path, options: Mapping[str, Any]) -> None:
    run_options = [
        name for name in ("recipe", "latency_ms", "instructions", "speedup", "gates") if options.get(name) is not None
    ]
    if run_options:
        raise UsageError(
            f"--{run_options[0].replace('_', '-')} is for a run; leave it out to measure {path.name} alone"
        )


def _refuse_board_options(target: Target, values: Sequence[object]) -> None:
    if any(values):
        raise UsageError(f"target {target.name}: an emulator is counted; give --target and --output alone")


def find_target(options: Mapping[str, Any]) -> Target:
    """The target that is named, with what the options override.

    Raises:
        UsageError: none is named, or it cannot be found.
    """
    from edgeprune.shipped import load_target

    if options.get("target") is None:
        raise UsageError("--target is needed to measure a file; `edgeprune targets` lists them")
    changes = {name: options[name] for name in ("runtime", "precision", "threads") if options.get(name) is not None}
    return replace(load_target(options["target"]), **changes)


def read_model_file(path: Path) -> ModelFile:
    """A file or a run, as it is sent to a board; what is copied lasts as long as the command."""
    from edgeprune.measuring import read_model

    folder = click.get_current_context().with_resource(tempfile.TemporaryDirectory())
    return read_model(path, Path(folder), say)


def _describe_percentile(measurement: Measurement, rank: int) -> str:
    spread = measurement.spread(rank)
    low, high = spread.bound(TAIL)
    return f"p{rank} {spread.center:.4g} [{low:.4g}, {high:.4g}]"


def _describe_energy(energy: Energy) -> str:
    if energy.energy_mj is None or energy.uncertainty_mj is None:
        return energy.describe()
    return f"{energy.energy_mj:.4g} ± {energy.uncertainty_mj:.2g} mJ of one inference above idle ({energy.meter})"


def _render_measurement(measurement: Measurement) -> str:
    from edgeprune.core.measuring.measurement import TAIL_PERCENTS

    lacks = {percent: measurement.find_lack(percent) for percent in (50, *TAIL_PERCENTS)}
    conditions, processes = measurement.conditions, len(measurement.samples_by_process)
    rows = [
        "latency in ms, with 95 % intervals:",
        *(f"  {_describe_percentile(measurement, percent)}" for percent, lack in lacks.items() if not lack),
        *(f"  not told: {lack}" for lack in dict.fromkeys(filter(None, lacks.values()))),
        f"{measurement.latency.count} samples of {processes} process{'es' * (processes > 1)}",
        f"load {measurement.init_ms:.3g} ms, first run {measurement.first_ms:.3g} ms",
    ]
    if measurement.energy is not None:
        rows.append(f"energy {_describe_energy(measurement.energy)}")
    if measurement.peak_memory_mib is not None:
        rows.append(f"peak memory {measurement.peak_memory_mib:.1f} MiB")
    rows += [f"{100 * share:.1f} % of the nodes ran on {name}" for name, share in sorted(measurement.providers.items())]
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in measurement.inputs.items())
    rows += [f"inputs: {shapes}"] if shapes else []
    return "\n".join([*rows, f"conditions: {conditions.describe()}", f"processor: {measurement.describe_processor()}"])
