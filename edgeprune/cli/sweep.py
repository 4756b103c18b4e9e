"""The command that runs the line at several budgets, to choose one by."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from edgeprune.cli.compare import show_comparison
from edgeprune.cli.options import Command, line_options
from edgeprune.cli.output import json_option, print_result
from edgeprune.cli.progress import say_timed
from edgeprune.core.releasing.gate import EXIT_CODES

RUN_HELP = "Directory of the sweep: a new one, or one to resume or to add budgets to."


def _parse_budgets(_: click.Context, __: click.Parameter, text: str | None) -> tuple[float, ...]:
    """Numbers with commas between."""
    try:
        return tuple(float(word) for word in text.split(",")) if text is not None else ()
    except ValueError as exc:
        raise click.BadParameter(f"{text!r}: expected numbers with commas between, as 1.5,2,3") from exc


LISTS = (
    click.option("--speedup", metavar="X,X,...", callback=_parse_budgets, help="Budgets: so many times as fast."),
    click.option("--latency-ms", metavar="MS,MS,...", callback=_parse_budgets, help="Budgets: median latency, ms."),
)


def _sweep_options(command: Command) -> Command:
    return line_options(json_option(command), LISTS, RUN_HELP)


@click.command()
@_sweep_options
@click.option("--dry-run", is_flag=True, help="Check what is asked, say what would be done, and do nothing.")
def sweep(
    directory: Path | None,
    dry_run: bool,
    speedup: Sequence[float],
    latency_ms: Sequence[float],
    **options: Any,
) -> None:
    """Take a model to several budgets on one profile and one scoring, and compare: to choose a budget by.

    Each budget has a run directory of its own within that of the sweep. What all of them ship is measured in turns at
    the end. Repeat with --run DIR to resume after an interruption; with more budgets these are added.

    Exit code 3 where a run failed its gates or a budget is out of reach, 4 where one is inconclusive.
    """
    from edgeprune.sweeping import preview_sweep, run_sweep, settle_sweep

    plan = settle_sweep(directory, {"speedup": speedup, "latency_ms": latency_ms}, options)
    if dry_run:
        lines = preview_sweep(plan, say_timed)
        print_result({"preview": lines}, "\n".join(lines))
        return
    try:
        result = run_sweep(plan, say_timed)
    except KeyboardInterrupt:
        say_timed(f"interrupted; resume with `edgeprune sweep --run {plan.directory}`")
        raise click.Abort from None
    show_comparison(result.comparison, result.page)
    sys.exit(EXIT_CODES[result.verdict])


COMMANDS = (sweep,)
