"""What a command says while it works."""

from __future__ import annotations

import time
from contextlib import suppress

import click

_STARTED = time.monotonic()


def say(text: str) -> None:
    """Progress; where nobody takes it any more, what it is about goes on."""
    with suppress(OSError):
        click.echo(text, err=True)


def say_timed(text: str) -> None:
    """Progress, with the seconds since the start."""
    say(f"{time.monotonic() - _STARTED:6.1f} s  {text}")
