"""The command by which a user's tool brings a firmware onto a board: `flash` of a target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from edgeprune.core.text import suggest
from edgeprune.errors import TargetError

IMAGE, PORT = "image", "port"
_PLACE = re.compile(r"\{([^{}]*)\}")


def parse_flash(value: Any, where: str) -> tuple[str, ...]:
    """Read `flash = ["pyocd", "flash", "{image}"]`: a program and its words; `{image}` is the firmware's file, `{port}`
    the serial port.

    Raises:
        TargetError: no list of words, an unknown name in braces, or the firmware's file is nowhere in it.
    """
    if not isinstance(value, list) or not value or not all(isinstance(word, str) and word for word in value):
        raise TargetError(f'{where}: flash: expected a list of words, as ["pyocd", "flash", "{{image}}"]')
    names = [name for word in value for name in _PLACE.findall(word)]
    for name in names:
        if name not in (IMAGE, PORT):
            raise TargetError(f"{where}: flash: unknown name {{{name}}}{suggest(name, (IMAGE, PORT))}")
    if IMAGE not in names:
        raise TargetError(f"{where}: flash: {{image}} is missing; it stands for the firmware's file")
    return tuple(value)


def fill_flash(command: Sequence[str], image: str, port: str) -> list[str]:
    """The words of the command for a file and a serial port."""
    values = {IMAGE: image, PORT: port}
    return [_PLACE.sub(lambda match: values[match[1]], word) for word in command]
