"""The command that says why a net was cut as it was; torch is imported only where nothing was explained yet."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from edgeprune.cli.output import json_option, print_result
from edgeprune.cli.progress import say_timed
from edgeprune.run import Run, look_at_run


@click.command()
@click.argument("place", metavar="[GROUP|LAYER|NAME:CHANNEL]", required=False)
@click.option("--run", "directory", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@json_option
def explain(place: str | None, directory: Path) -> None:
    """Say what was cut and why, what it bought, and where the ms went; of one group, layer or channel if it is named.

    The first call runs both nets on noisy inputs and keeps what it finds in the run directory.
    """
    from edgeprune.core.explaining.render import render_explanation
    from edgeprune.core.explaining.render_group import find_place, render_place, select

    run = look_at_run(directory)
    run.file("plan.json")
    document = _read_or_make(run)
    where = find_place(document["plan"], place) if place is not None else None
    if where is None:
        print_result(document, render_explanation(document))
    else:
        print_result(select(document, where), render_place(document, where))


def _read_or_make(run: Run) -> dict[str, Any]:
    from edgeprune.stages.explanation import read_explanation

    document = read_explanation(run)
    if document is not None:
        return document
    from edgeprune.explaining.document import make_explanation
    from edgeprune.stages.job import Job

    say_timed("explain")
    with ExitStack() as stack:
        return make_explanation(Job(run, say_timed, stack))


COMMANDS = (explain,)
