"""The group that all commands hang on, and its call: what it prints of an error, and its exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

from edgeprune.cli import (
    baseline,
    boards,
    cache,
    catalog,
    compare,
    estimate,
    evaluate,
    explain,
    fit,
    history,
    judging,
    line,
    releases,
    sweep,
)  # fmt: skip
from edgeprune.cli.completion import add_completion, completion
from edgeprune.cli.output import JSON_FLAG, find_width, render_json, uses_colour
from edgeprune.cli.progress import clear_line, show_log
from edgeprune.cli.signals import Received, catch_signals
from edgeprune.core.text import WIDTH, wrap
from edgeprune.disk import describe_os_error
from edgeprune.errors import EdgepruneError, RunError

COMMANDS = (
    *line.COMMANDS,
    *judging.COMMANDS,
    *baseline.COMMANDS,
    *explain.COMMANDS,
    *sweep.COMMANDS,
    *compare.COMMANDS,
    *evaluate.COMMANDS,
    *estimate.COMMANDS,
    *fit.COMMANDS,
    *catalog.COMMANDS,
    *boards.COMMANDS,
    *cache.COMMANDS,
    *history.COMMANDS,
    *releases.COMMANDS,
    completion,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgeprune")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Prune, quantize and export a PyTorch model for a device, by that device's measured latency, and gate its release.

    \b
    Exit codes: 0 pass, 1 error, 2 wrong call or input, 3 a gate failed,
    4 inconclusive.
    """


for _command in COMMANDS:
    cli.add_command(_command)
add_completion(cli)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every foreseen error is one line, and `--debug` shows where it came from."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _fill_closed_streams()
    show_log()
    WIDTH.set(find_width(sys.stdout))
    with catch_signals() as received:
        _run(words, received)


def _run(words: Sequence[str], received: Received) -> None:
    try:
        cli.main(words, prog_name="edgeprune", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        _end_interrupted(received, words)
    except Exception as exc:
        if received:  # what was under way, or a terminal that is gone, has told it in its own way
            _end_interrupted(received, words)
        _end_failed(exc, words)


def _end_interrupted(received: Received, words: Sequence[str]) -> NoReturn:
    with suppress(OSError):
        clear_line()
        if received:
            click.echo(f"edgeprune: {received.describe()}", err=True)
    _end("Interrupted", received.describe(), received.exit_code, words)


def _end_failed(exc: Exception, words: Sequence[str]) -> NoReturn:
    """End with what an error says, in a line and as a document."""
    if isinstance(exc, EdgepruneError):
        _fail(exc, exc.exit_code, words)
    if isinstance(exc, click.ClickException):
        clear_line()
        exc.show()
        _end(type(exc).__name__, exc.format_message(), exc.exit_code, words)
    if isinstance(exc, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if isinstance(exc, OSError):
        _fail(RunError(describe_os_error(exc)), 1, words, exc)
    _fail(exc, 1, words)


def _fill_closed_streams() -> None:
    """What a caller has closed (`>&-`) takes what is printed, and nobody reads it."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  (as long as the process)


def _end(kind: str, message: str, code: int, words: Sequence[str]) -> NoReturn:
    """End with an exit code; where JSON was asked for, the error is the document."""
    if JSON_FLAG in words:
        with suppress(OSError):  # its disk is full: the exit code says the rest
            click.echo(render_json({"error": {"kind": kind, "message": message, "exit_code": code}}))
            sys.stdout.flush()
    sys.exit(code)


def _fail(exc: Exception, code: int, words: Sequence[str], cause: Exception | None = None) -> NoReturn:
    clear_line()
    if "--debug" in words:
        traceback.print_exception(cause or exc)
    foreseen = isinstance(exc, EdgepruneError)
    text = " ".join(str(exc).split()) if foreseen else _describe_unexpected(exc)
    colour = uses_colour(sys.stderr)
    shown = wrap(f"edgeprune: {text}", find_width(sys.stderr) if sys.stderr.isatty() else None)
    click.echo(shown.replace("edgeprune:", click.style("edgeprune:", fg="red"), 1), err=True, color=colour)
    _end(type(exc).__name__, text, code, words)


def _describe_unexpected(exc: Exception) -> str:
    from edgeprune.versions import describe_untried

    untried = describe_untried()
    return f"unexpected {type(exc).__name__}: {exc}; `edgeprune --debug` shows where" + f"; {untried}" * bool(untried)
