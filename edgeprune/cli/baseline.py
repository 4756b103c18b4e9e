"""The commands that keep baselines: releases that passed, which later runs are held against."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.options import RUN
from edgeprune.cli.output import json_option, print_result
from edgeprune.cli.progress import say
from edgeprune.core.cost import costs_in, say_cost
from edgeprune.core.text import render_columns
from edgeprune.errors import BaselineError

if TYPE_CHECKING:
    from edgeprune.stages.baseline import StoredBaseline

DEFAULT_FOLDER = "baselines"
FOLDER_TYPE = click.Path(path_type=Path, file_okay=False)


@click.group()
def baseline() -> None:
    """Keep releases that passed, for `edgeprune gate --run DIR --baseline NAME`.

    A baseline is a file for each kind of device, with a copy of what shipped, in `baselines/NAME/` here: commit it.
    """


@baseline.command("set")
@click.argument("name")
@click.option("--run", "directory", required=True, type=RUN, help="A run that passed its gates.")
@click.option(
    "--to", "folder", type=FOLDER_TYPE, default=DEFAULT_FOLDER, show_default=True, help="Folder of baselines."
)
@json_option
def set_(name: str, directory: Path, folder: Path) -> None:
    """Keep what a run shipped as baseline NAME for its kind of device; replaces that of before."""
    from edgeprune.stages.baseline import set_baseline

    stored = set_baseline(name, directory, folder, say)
    lines = [
        f"baseline {name}: {_describe(stored)}",
        f"written to {stored.place} and {stored.artifact.name} beside it; commit both",
    ]
    print_result({"name": name, **_row(stored)}, "\n".join(lines))


@baseline.command("show")
@click.argument("name", metavar="NAME|DIR|FILE")
@json_option
def show(name: str) -> None:
    """Show a baseline's figures, each kind of device's."""
    from edgeprune.stages.baseline import describe_run, find_baselines, read_baseline

    places = find_baselines(name)
    stored = [describe_run(place, name, say) if place.is_dir() else read_baseline(place) for place in places]
    print_result({"baselines": list(map(_row, stored))}, "\n".join(map(_render, stored)))


@baseline.command("list")
@click.argument("folder", type=FOLDER_TYPE, default=DEFAULT_FOLDER)
@json_option
def list_(folder: Path) -> None:
    """List the baselines in FOLDER, by default `baselines` here. Exit code 1 where one cannot be read."""
    from edgeprune.core.releasing.baseline import describe_device
    from edgeprune.stages.baseline import list_baselines

    stored, problems = list_baselines(folder)
    rows = [("name", "kind", "set", "file", "p50")]
    for own in stored:
        old, figures = own.baseline, own.baseline.figures
        rows.append((own.place.parent.name, old.kind, old.created[:10], figures.artifact.name, _say_median(own)))
    lines = []
    if len(rows) > 1:
        kinds = {own.baseline.kind: describe_device(own.baseline.device) for own in stored}
        lines = [render_columns(rows), "", *kinds.values()]
    elif not problems:
        lines = [f"{folder}: no baselines; `edgeprune baseline set NAME --run DIR` makes one"]
    named = [{"name": own.place.parent.name, **_row(own)} for own in stored]
    print_result({"folder": folder, "baselines": named, "problems": list(map(str, problems))}, "\n".join(lines))
    for problem in problems:
        click.echo(f"edgeprune: {problem}", err=True)
    sys.exit(1 if problems else 0)


@baseline.command("remove")
@click.argument("name", metavar="NAME|DIR|FILE")
@json_option
def remove(name: str) -> None:
    """Remove a baseline with its copies; of a FILE only that kind of device's."""
    from edgeprune.stages.baseline import find_baselines, remove_baseline

    places = find_baselines(name)
    if any(place.is_dir() for place in places):
        raise BaselineError(f"{name}: is a run directory, no baseline; a run is not removed by this")
    for place in places:
        remove_baseline(place)
    print_result({"removed": places}, "\n".join(f"removed {place}" for place in places))


def _row(stored: StoredBaseline) -> dict[str, Any]:
    """A baseline for --json."""
    from edgeprune.core.releasing.baseline import collect_figures

    old = stored.baseline
    facts = {"kind": old.kind, "created": old.created, "target": old.target, "recipe": old.recipe}
    figures = {metric: asdict(figure) for metric, figure in collect_figures(old).items()}
    return {"file": stored.place, "artifact": stored.artifact, **facts, "verdict": old.verdict, "figures": figures}


def _say_median(stored: StoredBaseline) -> str:
    """The median of a baseline's file, in the unit of its board."""
    measurement = stored.baseline.figures.measurement
    with costs_in(measurement.unit):
        return say_cost(measurement.latency.p50_ms)


def _describe(stored: StoredBaseline) -> str:
    from edgeprune.core.releasing.baseline import describe_device

    old, figures = stored.baseline, stored.baseline.figures
    return (
        f"{figures.artifact.name}, p50 {_say_median(stored)}, {figures.metric.name} "
        f"{figures.metric.describe(figures.shown_quality)}, on {describe_device(old.device)}"
    )


def _render(stored: StoredBaseline) -> str:
    """A baseline for people: what it is, its figures with their intervals, where it came from."""
    from edgeprune.core.releasing.baseline import collect_figures
    from edgeprune.core.releasing.gate import show_number

    old, measurement = stored.baseline, stored.baseline.figures.measurement
    rows = [("metric", "figure", "95 % interval")]
    for metric, figure in collect_figures(old).items():
        interval = "" if figure.low is None or figure.high is None else f"{figure.low:.4g} to {figure.high:.4g}"
        value = f"- ({figure.problem})" if figure.value is None else show_number(figure.value)
        rows.append((metric, value, interval))
    lines = [
        f"{stored.place}: {_describe(stored)}",
        f"set {old.created} by edgeprune {old.edgeprune} from target {old.target}, recipe {old.recipe}: {old.verdict}",
        f"{measurement.runtime} {measurement.runtime_version}, {measurement.conditions.describe()}",
        "",
        render_columns(rows),
        *(["", f"{stored.artifact}: is gone; --interleave needs it"] if not stored.artifact.exists() else []),
    ]
    return "\n".join([*lines, ""])


COMMANDS = (baseline,)
