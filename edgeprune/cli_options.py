"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from edgeprune.cli_boards import BUSY_HELP
from edgeprune.core.formats import RUNTIMES, list_precisions
from edgeprune.core.target import AUTO, MOST_THREADS

GOVERNOR_HELP = "Set the frequency governor to performance meanwhile; it is set back, whatever happens."

Command = TypeVar("Command", bound=Callable[..., Any])
RUNNING = (
    click.option("--runtime", type=click.Choice((*RUNTIMES, AUTO)), help="Runtime that ships; auto: the fastest here."),
    click.option(
        "--precision",
        type=click.Choice((*list_precisions(), AUTO)),
        help="Precision that ships; auto: the fastest here.",
    ),
    click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="Inference threads on the board."),
)


def running_options(command: Command) -> Command:
    """The options that say how a net is run, where not as the target has it."""
    return with_options(command, RUNNING)


def governor_option(command: Command) -> Command:
    """The option that lets the governor be changed."""
    return click.option("--set-governor", is_flag=True, default=None, help=GOVERNOR_HELP)(command)


def busy_option(command: Command) -> Command:
    """The option that lets a run go on though others are at work on the board."""
    return click.option("--allow-busy", is_flag=True, default=None, help=BUSY_HELP)(command)


def with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """A command with options, shown in that order."""
    for option in reversed(options):
        command = option(command)
    return command
