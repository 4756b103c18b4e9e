"""The commands that show a latency table and calibrate an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.options import TARGET_HELP, running_options
from edgeprune.cli.output import json_option, print_result
from edgeprune.core.cost import INSTRUCTIONS, costs_in
from edgeprune.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from edgeprune.core.latency.staircase import Staircase


@click.command("show")
@click.option("--run", "directory", type=click.Path(path_type=Path, exists=True, file_okay=False), help="A run.")
@click.option("--table", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A latency table alone.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Picture to write (PNG).")
@json_option
def show_profile(directory: Path | None, table: Path | None, output: Path | None) -> None:
    """Draw the staircases of a latency table: latency over the output channels, at several input channels.

    Bars in the terminal and a picture (staircases.png in the run, or beside the table).
    """
    from edgeprune.core.latency.staircase import find_staircases, render_staircase, render_table_facts
    from edgeprune.core.latency.table import parse_table
    from edgeprune.run import look_at_run

    if (directory is None) == (table is None):
        raise UsageError("give --run DIR or --table FILE, one of the two")
    path = table or Path(directory or ".") / "latency_table.json"
    if not path.exists():
        raise UsageError(f"{path}: no latency table there yet; `edgeprune profile --run {directory}` measures one")
    if directory is not None:
        look_at_run(directory).file(path.name)
    latency_table = parse_table(path.read_text(errors="replace"), str(path))
    click.get_current_context().with_resource(costs_in(latency_table.unit))
    staircases = find_staircases(latency_table)
    if not staircases:
        raise UsageError(f"{path}: no points in this table")
    profiled = look_at_run(directory).result("profile") if directory else None
    bars = "least to median window" if latency_table.origin == "measured" else "90 % interval"
    note = f"{latency_table.origin}; a dot is a shape of the table, its bar the {bars}"
    if latency_table.unit == INSTRUCTIONS:
        note = "instructions counted in QEMU; a dot is a shape of the table"
    picture = output or path.with_name("staircases.png" if directory else f"{path.stem}.png")
    drawn = _write_picture(picture, staircases, latency_table.key.describe(), note)
    parts = [render_table_facts(latency_table, profiled), *map(render_staircase, staircases), f"picture: {drawn}"]
    document = {
        "table": path,
        "unit": latency_table.unit,
        "of": asdict(latency_table.key),
        "origin": latency_table.origin,
        "correction": profiled["correction"] if profiled else None,
        "staircases": list(map(_staircase_row, staircases)),
        "picture": drawn,
    }
    print_result(document, "\n\n".join(parts))


def _staircase_row(staircase: Staircase) -> dict[str, Any]:
    lines = [
        {
            "fixed": line.fixed,
            "points": [
                {"channels": count, "latency_ms": point.latency_ms, "low_ms": point.low_ms, "high_ms": point.high_ms}
                for count, point in line.points
            ],
        }
        for line in staircase.lines
    ]
    return {"title": staircase.title, "over": staircase.over, "lines": lines}


def _write_picture(path: Path, staircases: Sequence[Staircase], title: str, note: str) -> str:
    """Where the picture lies, or why there is none."""
    from edgeprune.run import write_atomic

    try:
        from edgeprune.report.pictures import draw_staircases, render_png
    except MissingExtra as exc:
        return f"none: {exc}"
    write_atomic(path, render_png(draw_staircases(staircases, title, note)))
    return str(path)


@click.command("calibrate")
@click.option("--target", required=True, help=TARGET_HELP)
@click.option(
    "--measurements",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CSV with the columns model,ms (and threads, precision), or JSON rows of the same; 5 rows or more.",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the profile.")
@click.option("--start", help="Profile to start from: a board's name or a .json file. Default: the target's own.")
@running_options
@json_option
def calibrate_profile(target: str, measurements: Path, output: Path | None, start: str | None, **running: Any) -> None:
    """Correct an estimated profile by 5 to 50 whole nets measured on the board.

    A model is an .onnx file or a JSON list of layers, its path seen from the folder of the measurements. Rows of one
    precision correct the board in the others too. Errors are shown before and after; after is by cross-validation:
    each net is predicted by a fit that has not seen it.
    """
    from edgeprune.calibration import calibrate_target
    from edgeprune.core.estimating.calibrate import render_errors
    from edgeprune.shipped import load_target

    kind = replace(load_target(target), **{name: value for name, value in running.items() if value is not None})
    calibration, path = calibrate_target(kind, measurements, start, output)
    lines = [
        f"{kind.name}, {kind.runtime} {kind.precision}, {kind.threads} thread(s) where a row says none",
        render_errors(calibration),
        f"written to {path}: an estimate still; it plans and never passes a gate",
    ]
    errors = {"before": asdict(calibration.before), "after": asdict(calibration.after)}
    print_result({"target": kind.name, "file": path, **errors}, "\n".join(lines))
