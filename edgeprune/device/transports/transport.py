"""How a board is reached: run a command, put a file, get a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeprune.errors import RemoteError

AGAIN = "run the same command again"
SHELL_REMEDY = "give the user a login shell such as /bin/sh there"
MAX_OUTPUT_BYTES = 1 << 29
"""A command that prints more is broken or hostile."""


def plain(text: str) -> str:
    """Text from a board as it may be shown in a terminal.

    What could move the cursor, turn the order of what is shown, or not be written at all becomes a question mark.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text.replace("\r", ""))


@dataclass(frozen=True)
class Completed:
    """A command that has ended. A negative `exit_code` is the signal that killed it; `stderr` is made plain.

    `noise` is what a login shell printed before the command, which is no part of its output.
    """

    exit_code: int
    stdout: bytes
    stderr: str
    noise: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stderr", plain(self.stderr))


class Transport(Protocol):
    """A way to a board. Whatever fails in it is a DeviceError that names the host.

    `name` is the kind ("local", "ssh", "adb"), `host` the address for messages and reports, `host_key` the SHA256
    fingerprint of the SSH host key or the serial of a phone, empty here. Relative remote paths begin at its home.
    """

    name: str
    host: str
    host_key: str

    def run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float,
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run a command, its arguments quoted. `timeout_s` bounds its silence: the time without any output.

        `on_line` sees each line of standard output as it comes.

        Raises:
            ConnectionFailed: the link was lost, or the silence was too long.
        """

    def put(self, local: Path, remote: str) -> None:
        """Upload a file as 0600, whole or not at all; nothing is sent where a file of that sha256 is there.

        Raises:
            DeviceError: no space or no permission on the board, or damaged on the way.
        """

    def get(self, remote: str, local: Path) -> None:
        """Download a file, whole or not at all.

        Raises:
            DeviceError: it cannot be read.
        """

    def close(self) -> None:
        """Let go of the board."""


class OutputReader:
    """Gathers a command's standard output and hands it on line by line.

    `failure` is what went wrong with whoever takes the lines: no fault of the board's or of the link's.
    """

    def __init__(self, host: str, on_line: Callable[[str], None] | None) -> None:
        self.host = host
        self.failure: Exception | None = None
        self._on_line = on_line
        self._chunks: list[bytes] = []
        self._size = 0
        self._rest = b""

    @property
    def content(self) -> bytes:
        """Everything so far."""
        return b"".join(self._chunks)

    def feed(self, chunk: bytes) -> None:
        """Take what came.

        Raises:
            RemoteError: it is too much.
        """
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_OUTPUT_BYTES:
            raise RemoteError(f"{self.host}: a command printed more than {MAX_OUTPUT_BYTES >> 20} MiB; gave up")
        if self._on_line is None:
            return
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._hand_on(line)

    def finish(self) -> None:
        """Hand on a last line that has no end."""
        if self._rest:
            self._hand_on(self._rest)
        self._rest = b""

    def _hand_on(self, line: bytes) -> None:
        if self._on_line is None:
            return
        try:
            self._on_line(line.decode(errors="replace"))
        except Exception as exc:
            self.failure = exc
            raise


def hash_file(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_space(path: str, needed: int, free: int) -> str:
    """What to say when a file does not fit."""
    return f"no space for {path}: it needs {describe_size(needed)}, {describe_size(free)} are free; make room there"


def describe_size(count: int) -> str:
    """Bytes for people: MiB, or a smaller unit where a tenth would hide what is meant."""
    if count < 2**10 / 10:
        return f"{count} B"
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 / 10 else f"{count / 2**10:.1f} KiB"
