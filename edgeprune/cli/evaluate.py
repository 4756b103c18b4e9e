"""The command that prints the card of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from edgeprune.cli.options import RUN
from edgeprune.cli.output import json_option, print_result


@click.command()
@click.option(
    "--run",
    "directories",
    required=True,
    multiple=True,
    type=RUN,
    help="A run or a sweep; more of them give the curve over budgets, and the spread over seeds.",
)
@json_option
def evaluate(directories: Sequence[Path]) -> None:
    """Print the card of a run: quality at ms, mJ and kB, speed-up, area under the curve, robustness, seeds.

    The card is of the first --run, of a sweep of the run to choose. Of the others, those of the same plan with other
    seeds give mean and spread, those of other budgets the area. Markdown, or JSON.
    """
    from edgeprune.comparing import gather_evidence
    from edgeprune.core.choosing.card import build_card, render_card

    card = build_card(gather_evidence(directories))
    print_result(card, render_card(card))


COMMANDS = (evaluate,)
