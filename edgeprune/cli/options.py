"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import click

from edgeprune.core.accelerators import ACCELERATORS
from edgeprune.core.formats import AUTO, MOST_THREADS, list_board_runtimes, list_precisions
from edgeprune.core.text import parse_bytes
from edgeprune.deployment import DEFAULT_RECIPE

TARGET_HELP = "Kind of board: a name (`edgeprune targets`) or a .toml file."
BUSY_HELP = "Go on though others are at work on the board; no latency measured so passes a gate."
HOST_HELP = "Address: user@host, adb:SERIAL, serial:PORT, a name of devices.toml, a Host of ~/.ssh/config, or local."
HOSTS_HELP = "Several boards at once: names, groups of devices.toml and addresses, with commas between."
RUN = click.Path(path_type=Path, exists=True, file_okay=False)
KEY_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
ACCELERATOR_HELP = "Where nets are trained: auto is this machine's accelerator, if torch finds one. Default: cpu."
FRESH_HELP = "Measure and score anew, though an earlier run has done the same (`edgeprune cache list`)."
HISTORY_HELP = 'File of the history of measurements, "" for none. Default: $EDGEPRUNE_HISTORY, or the user\'s own.'
RUN_HELP = "Run directory: a new one, or one to resume."
BENCHMARK_HELP = "TFLite's benchmark_model for the board: measure by it, where no Python is (docs/phones.md)."
GOVERNOR_HELP = "Set the frequency governor to performance meanwhile; it is set back, whatever happens."


class Finite(click.FloatRange):
    """A number within bounds, which infinity and no number at all are not."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; UsageError where it is none."""
        number = float(super().convert(value, param, ctx))
        if not isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


class Bytes(click.ParamType[int]):
    """A number of bytes above zero: 49152, 48KiB, 1.5MiB."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        try:
            size = value if isinstance(value, int) else parse_bytes(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        if size <= 0:
            self.fail(f"{value!r} must be above zero", param, ctx)
        return size


Option = Callable[[Any], Any]
Command = TypeVar("Command", bound=Callable[..., Any])
RUNNING = (
    click.option(
        "--runtime",
        type=click.Choice((*list_board_runtimes(), AUTO)),
        help="Runtime that ships; auto: the fastest here.",
    ),
    click.option(
        "--precision",
        type=click.Choice((*list_precisions(), AUTO)),
        help="Precision that ships; auto: the fastest here.",
    ),
    click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="Inference threads on the board."),
)


def board_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which board."""
    command = click.option("--host", help=HOST_HELP)(command)
    return click.option("--target", required=True, help=TARGET_HELP)(command)


def running_options(command: Command) -> Command:
    """The options that say how a net is run, where not as the target has it."""
    return with_options(command, RUNNING)


def governor_option(command: Command) -> Command:
    """The option that lets the governor be changed."""
    return click.option("--set-governor", is_flag=True, default=None, help=GOVERNOR_HELP)(command)


def benchmark_option(command: Command) -> Command:
    """The option that gives TFLite's native benchmark, for boards without Python."""
    path = click.Path(exists=True, dir_okay=False)
    return click.option("--benchmark-model", metavar="FILE", type=path, help=BENCHMARK_HELP)(command)


def busy_option(command: Command) -> Command:
    """The option that lets a run go on though others are at work on the board."""
    return click.option("--allow-busy", is_flag=True, default=None, help=BUSY_HELP)(command)


def accelerator_option(command: Command) -> Command:
    """The option that says where nets are trained."""
    return click.option("--accelerator", type=click.Choice(ACCELERATORS), help=ACCELERATOR_HELP)(command)


def fresh_option(command: Command) -> Command:
    """The option that measures and scores although an earlier run has done the same."""
    return click.option("--fresh", is_flag=True, default=None, help=FRESH_HELP)(command)


def history_option(command: Command) -> Command:
    """The option that says where the history is."""
    return click.option("--history", metavar="FILE", callback=_settle_history, help=HISTORY_HELP)(command)


def _settle_history(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """By its whole path, so that a run that is resumed from another folder goes on in it."""
    return str(Path(value).expanduser().absolute()) if value else value


def with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """A command with options, shown in that order."""
    for option in reversed(options):
        command = option(command)
    return command


ONE_BUDGET = (
    click.option("--latency-ms", type=Finite(0, min_open=True), help="Budget: median latency, ms."),
    click.option("--instructions", type=click.IntRange(1), help="Budget of a core in QEMU: of one inference."),
    click.option("--speedup", type=Finite(1), help="Budget: so many times as fast as the unpruned fp32 net."),
)


SIZES = (
    click.option(
        "--sram",
        "sram_bytes",
        type=Bytes(),
        help="Budget: memory of the interpreter that runs the TFLite file, such as 48KiB.",
    ),
    click.option("--flash", "flash_bytes", type=Bytes(), help="Budget: bytes of the model file, such as 256KiB."),
)
"""What a microcontroller has room for; beside a budget of time, or alone."""


def line_options(command: Command, budgets: Sequence[Option] = ONE_BUDGET, run_help: str = RUN_HELP) -> Command:
    """The options that every stage of the line takes, with those that say the budget."""
    options: tuple[Option, ...] = (
        click.option("--target", help=TARGET_HELP),
        click.option("--host", help=HOST_HELP),
        click.option("--recipe", help=f"Built-in name or a .py file (`edgeprune recipes`). Default: {DEFAULT_RECIPE}."),
        *budgets,
        *SIZES,
        click.option(
            "--confidence",
            type=Finite(0.5, 1, max_open=True),
            help="Plan so that the latency budget is met with this probability, such as 0.95, before any is measured.",
        ),
        *RUNNING,
        governor_option,
        benchmark_option,
        busy_option,
        accelerator_option,
        fresh_option,
        history_option,
        click.option("--gates", type=click.Path(exists=True, dir_okay=False), help="TOML file of [[gates]]."),
        click.option("--run", "directory", type=click.Path(path_type=Path), help=run_help),
    )
    return with_options(command, options)
