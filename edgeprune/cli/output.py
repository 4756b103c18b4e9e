"""What commands print: text that fits the terminal, in colour where that is wanted, or one JSON document."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import click

from edgeprune.cli.options import Command
from edgeprune.cli.progress import clear_line
from edgeprune.core.cost import name_costs
from edgeprune.core.text import wrap

JSON_VERSION = 1
"""Of the documents: raised when a field goes or changes its meaning, not when one is added (docs/json.md)."""
JSON_HELP = "Print one JSON document in place of text (docs/json.md)."
JSON_FLAG = "--json"
_ASKED = "edgeprune.json"

COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
OUTCOME = re.compile(r"(?m)(^(?:verdict:|gate) +|^(?=\w+:)|  )(pass|fail|inconclusive)\b(?=$|:| )")
"""Of a line: behind its head, as its head, or in a column."""
DOUBT = re.compile(r"NOT VALID|\bnot valid\b|\bINCONCLUSIVE\b")


def json_option(command: Command) -> Command:
    """The option that asks for JSON; :func:`print_result` minds it, so that no command has to take it."""
    return click.option(JSON_FLAG, is_flag=True, expose_value=False, callback=_note_json, help=JSON_HELP)(command)


def _note_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.meta[_ASKED] = True


def wants_json() -> bool:
    """Whether the command under way was asked for JSON."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(_ASKED))


def print_result(document: Mapping[str, Any], text: str) -> None:
    """Print what a command has to tell, once: the document where JSON is asked for, else the text."""
    clear_line()
    if wants_json():
        click.echo(render_json(document))
    else:
        click.echo(paint(wrap(text, find_width(sys.stdout))), color=uses_colour(sys.stdout))


def render_json(document: Mapping[str, Any]) -> str:
    """A document with its version; a number that is not finite is null, as JSON has none."""
    return json.dumps({"version": JSON_VERSION, **name_costs(_plain(document))}, indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def find_width(stream: TextIO) -> int | None:
    """Columns that a text may take: $COLUMNS, or the terminal's; None where neither is, as in a pipe or in CI."""
    if os.environ.get("COLUMNS", "").isdigit() or stream.isatty():
        return shutil.get_terminal_size().columns
    return None


def uses_colour(stream: TextIO) -> bool:
    """Whether colours are wanted: never with $NO_COLOR, always with $FORCE_COLOR, else on a terminal outside CI.

    In this order, as Python itself decides (https://no-color.org, https://force-color.org); $TERM may say `dumb`.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


def paint(text: str) -> str:
    """The text with verdicts and doubts in colour."""
    text = OUTCOME.sub(lambda match: match[1] + click.style(match[2], COLOURS[match[2]], bold=True), text)
    return DOUBT.sub(lambda match: click.style(match[0], "yellow"), text)
