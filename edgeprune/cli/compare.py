"""The command that holds runs, or two files on a board, against each other."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edgeprune.cli.measure import find_target, parse_shapes, read_model_file, shape_option
from edgeprune.cli.options import HOST_HELP, TARGET_HELP, Finite, benchmark_option, governor_option
from edgeprune.cli.output import json_option, print_result
from edgeprune.cli.progress import say
from edgeprune.core.releasing.gate import EXIT_CODES, INCONCLUSIVE
from edgeprune.errors import UsageError

FILE = click.Path(path_type=Path, dir_okay=False)
COMPARE_PROCESSES = 12
COMPARE_S = 9.0
"""Least time of each artifact in a comparison."""


@click.command()
@click.argument("what", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--html", type=FILE, help="Where to write the page of the runs.")
@click.option("--target", help=f"Measure two files A and B in turn on this board. {TARGET_HELP}")
@click.option("--host", help=HOST_HELP)
@click.option("--margin", type=Finite(0, 50, min_open=True), default=2.0, show_default=True, help="Equivalence, in %.")
@governor_option
@benchmark_option
@shape_option
@click.option("--output", type=FILE, help="With --target: where to write everything as JSON.")
@json_option
def compare(
    what: Sequence[Path],
    html: Path | None,
    target: str | None,
    margin: float,
    output: Path | None,
    **options: Any,
) -> None:
    """Show runs and sweeps side by side, with the front of those that no other beats; with --target, measure two files.

    A front for each device, runtime and number of threads. A and B are .onnx or .tflite files, or runs, of which it is
    what they ship. They take turns on the board, so that what changes there changes both. Exit code 4 where neither a
    difference nor equivalence is shown.
    """
    if target is None:
        if output is not None or any(options.values()):
            raise UsageError("--target is needed to measure on a board; without it runs are shown side by side")
        _show_side_by_side(what, html)
    elif html is not None:
        raise UsageError("--html is for runs side by side; leave it out, or --target")
    elif len(what) != 2:
        raise UsageError(f"two files are compared on a board, A and B; found {len(what)}")
    else:
        _compare_on_board((what[0], what[1]), {"target": target, **options}, margin / 100, output)


def _show_side_by_side(directories: Sequence[Path], html: Path | None) -> None:
    from edgeprune.comparing import read_comparison
    from edgeprune.report.comparison import render_comparison_page
    from edgeprune.run import write_atomic

    document = read_comparison(directories).to_dict()
    if html is not None:
        write_atomic(html, render_comparison_page(document))
    show_comparison(document, html)


def show_comparison(document: Mapping[str, Any], page: Path | None) -> None:
    """Print a comparison, and where its page is."""
    from edgeprune.core.choosing.table import render_table

    text = render_table(document)
    print_result(document, text if page is None else f"{text}\npage: {page}")


def _compare_on_board(paths: tuple[Path, Path], options: Mapping[str, Any], margin: float, output: Path | None) -> None:
    from edgeprune.core.measuring.comparison import compare_processes, render_comparison
    from edgeprune.core.measuring.windows import fit_common_speed
    from edgeprune.device.board import Session
    from edgeprune.device.boards import measure_files
    from edgeprune.run import write_json

    target = find_target(options)
    protocol = target.protocol
    least_s = max(COMPARE_S, protocol.min_duration_s)
    processes = max(COMPARE_PROCESSES, protocol.processes)
    protocol = replace(protocol, processes=processes, min_duration_s=least_s)
    models = [replace(read_model_file(path), name=name) for name, path in zip("AB", paths, strict=True)]
    comparison_target = replace(target, protocol=protocol)
    session = Session(
        bool(options["set_governor"]),
        shapes=parse_shapes(options["shapes"]),
        benchmark_model=options["benchmark_model"],
    )
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


COMMANDS = (compare,)
