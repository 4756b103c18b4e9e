"""The command that shows the history of measurements, draws it, hands it out, and takes old runs in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.options import Command, history_option, with_options
from edgeprune.cli.output import json_option, print_result, wants_json
from edgeprune.cli.progress import say
from edgeprune.core.text import WIDTH, make_printable, render_columns
from edgeprune.errors import RunError, UsageError
from edgeprune.history.row import METRICS

if TYPE_CHECKING:
    from edgeprune.core.measuring.trend import Trend
    from edgeprune.history.filters import Filters
    from edgeprune.history.row import HistoryRow

SHOWN = 50
"""So many rows at most are shown where no limit is said."""
MOST_PANELS = 12
STAGES = ("measure", "confirm", "gate", "sweep", "file")


def filter_options(command: Command) -> Command:
    """The options that say which measurements."""
    options = (
        click.option("--recipe", help="Of this recipe, by name."),
        click.option("--target", help="For this target, by name."),
        click.option("--device", help="On this device: its fingerprint, or its host."),
        click.option("--artifact", help="Of this file, such as pruned-onnx-int8."),
        click.option("--stage", type=click.Choice(STAGES), help="Taken in this stage, or of a ready file."),
        click.option("--since", metavar="DATE", help="Since a day or time, UTC: 2026-11-21 or 2026-11-21T10:00."),
        click.option("--limit", type=click.IntRange(1, 10**9), help="The newest so many."),
        history_option,
    )
    return with_options(command, options)


@click.group(invoke_without_command=True)
@filter_options
@json_option
@click.pass_context
def history(context: click.Context, /, **options: Any) -> None:
    """Show what was measured here over all runs; draw it over time, export it, take in old runs.

    Its file: --history, $EDGEPRUNE_HISTORY, else edgeprune/history.sqlite in $XDG_DATA_HOME or ~/.local/share.
    """
    if context.invoked_subcommand is not None:
        if any(value is not None for value in options.values()):
            raise UsageError(
                f"write the options behind the command: edgeprune history {context.invoked_subcommand} ..."
            )
        return
    _show(options)


def _show(options: dict[str, Any]) -> None:
    if not wants_json() and options["limit"] is None:
        options = {**options, "limit": SHOWN}
    path, rows = _find_rows(options)
    head = f"{path}: {_count(len(rows))}{'' if path.exists() else '; there is no file yet'}"
    lines = [head, *(render_rows([HEAD, *map(_cells, rows)], WIDTH.get()) if rows else [])]
    print_result({"file": path, "measurements": [row.to_dict() for row in rows]}, "\n".join(lines))


HEAD = ("measured (UTC)", "recipe", "target", "file", "stage", "host", "p50 ms", "95 % interval", "p95 ms", "speed-up",
        "instructions", "quality", "verdict", "")  # fmt: skip


def render_rows(table: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """A table of measurements; within a width, what all rows agree in stands above it once."""
    if width is None or len(table) < 3:
        return [render_columns(table)]
    columns = list(zip(*table, strict=True))
    shared = [(name, cells[0]) for name, *cells in columns if len(set(cells)) == 1]
    others = [column for column in columns if len(set(column[1:])) > 1]
    told = ", ".join(f"{name} {cell}".strip() for name, cell in shared if cell)
    return [*([f"all: {told}"] if told else []), render_columns(list(zip(*others, strict=True)))]


def _cells(row: HistoryRow) -> tuple[str, ...]:
    interval = "" if row.latency_low_ms is None else f"{row.latency_low_ms:.4g} to {row.latency_high_ms or 0:.4g}"
    texts = (row.recipe, row.target, row.artifact, row.stage, row.host or row.device)
    figures = (_figure(row.latency_p50_ms), interval, _figure(row.latency_p95_ms), _figure(row.speedup))
    when = row.created.removesuffix("+00:00").replace("T", " ")
    count = "" if row.instructions is None else f"{row.instructions:,.0f}"
    ends = (count, _figure(row.quality), row.verdict or "", "" if row.valid else "not valid")
    return (when, *(make_printable(text or "") for text in texts), *figures, *ends)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _count(measurements: int) -> str:
    return f"{measurements} measurement{'' if measurements == 1 else 's'}"


@history.command("take-in")
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@history_option
@json_option
def take_in_runs(directories: Sequence[Path], history: str | None) -> None:
    """Take in run directories, also unfinished ones and those of earlier versions, at and below DIRECTORIES.

    Taking one in again changes nothing, but for what had not been known. Exit code 1 where one could not be read.
    """
    from edgeprune.history.address import require_history
    from edgeprune.history.writing import take_in

    path = require_history(history)
    runs = list(take_in(path, directories, say))
    unread = sum(bool(run.problem) for run in runs)
    lines = [f"{run.directory}: " + (run.problem or f"{run.new} of {_count(run.rows)} new") for run in runs]
    new, ending = _count(sum(run.new for run in runs)), f"; {unread} could not be read" * bool(unread)
    lines.append(f"{path}: {new} new; run directories: {len(runs)}{ending}")
    rows = [
        {"directory": run.directory, "measurements": run.rows, "new": run.new, "problem": run.problem} for run in runs
    ]
    print_result({"file": path, "runs": rows}, "\n".join(lines))
    sys.exit(1 if unread else 0)


@history.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@filter_options
@json_option
def export_rows(file: Path, **options: Any) -> None:
    """Write measurements to FILE.csv, or FILE.parquet (with pyarrow), all columns."""
    from edgeprune.history.exporting import find_renderer
    from edgeprune.run import write_atomic

    render = find_renderer(file)
    path, rows = _find_rows(options)
    write_atomic(file, render(rows))
    text = f"{_count(len(rows))} written to {file}" if rows else f"{_say_empty(path)}; {file} has column names alone"
    print_result({"file": file, "measurements": len(rows)}, text)


def _say_empty(path: Path) -> str:
    """Why there is no measurement."""
    if not path.exists():
        return f"{path}: no measurements; there is no file yet"
    return f"{path}: no measurement agrees with what is asked; `edgeprune history` lists them"


@history.command("plot")
@filter_options
@click.option(
    "--metric",
    metavar="METRIC",
    type=click.Choice(METRICS),
    default="latency_p50_ms",
    show_default=True,
    help=f"What to draw: {', '.join(METRICS)}.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The PNG file.")
@json_option
def plot(metric: str, output: Path, **options: Any) -> None:
    """Draw a figure over time, a panel for each file on each device, and mark where its level changed."""
    from edgeprune.history.series import find_trends
    from edgeprune.report.pictures import render_png
    from edgeprune.report.trends import draw_trends
    from edgeprune.run import write_atomic

    if output.suffix != ".png":
        raise UsageError(f"--output {output}: expected a name that ends in .png")
    path, rows = _find_rows(options)
    trends = find_trends(rows, metric)
    if not trends:
        raise RunError(
            f"{path}: no measurement with {metric} agrees with what is asked; `edgeprune history` lists them"
        )
    write_atomic(output, render_png(draw_trends(trends[:MOST_PANELS], metric)))
    print_result(_plot_document(output, metric, trends), _render_trends(output, trends))


def _render_trends(output: Path, trends: Sequence[Trend]) -> str:
    lines = []
    for trend in trends[:MOST_PANELS]:
        lines.append(f"{trend.title}: {_count(len(trend.points))}")
        lines += [f"  {change.at:%Y-%m-%d %H:%M} UTC: {change.describe()}" for change in trend.changes]
    left_out = len(trends) - MOST_PANELS
    ending = f"; {left_out} shorter series left out, filters choose" if left_out > 0 else ""
    return "\n".join([*lines, f"picture: {output}{ending}"])


def _plot_document(output: Path, metric: str, trends: Sequence[Trend]) -> dict[str, Any]:
    rows = [
        {
            "title": trend.title,
            "points": len(trend.points),
            "changes": [{"at": change.at.isoformat(), "text": change.describe()} for change in trend.changes],
        }
        for trend in trends
    ]
    return {"picture": output, "metric": metric, "drawn": min(len(trends), MOST_PANELS), "trends": rows}


def _find_rows(options: dict[str, Any]) -> tuple[Path, list[HistoryRow]]:
    from edgeprune.history.address import require_history
    from edgeprune.history.store import read_rows

    path = require_history(options["history"])
    return path, read_rows(path, _filters(options))


def _filters(options: dict[str, Any]) -> Filters:
    from edgeprune.history.filters import Filters, parse_since

    values = {name: value for name, value in options.items() if name != "history"}
    return Filters(**{**values, "since": parse_since(values["since"]) if values["since"] is not None else None})


COMMANDS = (history,)
