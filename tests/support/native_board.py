"""Boards without Python, which have TFLite's benchmark_model or a stand-in for it."""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from places import SUPPORT
from ssh_server import SshServer

from edgeprune.device.transports.commands import FilesByCommands
from edgeprune.device.transports.process import Processes
from edgeprune.device.transports.transport import Completed, OutputReader

TOOLS = (
    *(
        "sh",
        "cat",
        "chmod",
        "cut",
        "date",
        "df",
        "grep",
        "head",
        "ls",
        "mkdir",
        "mv",
        "printf",
        "rm",
        "sed",
        "sha256sum",
    ),
    *("sleep", "tar", "taskset", "test", "touch", "tr", "true", "uname", "wc", "echo"),
)
"""What a small Linux system has; no python3 is among it."""


def write_stand_in(path: Path) -> Path:
    """The stand-in as a program."""
    path.write_text(f"#!{sys.executable} -I\n{(SUPPORT / 'benchmark_model.py').read_text()}")
    path.chmod(0o755)
    return path


def bare_server(folder: Path, tools: tuple[str, ...] = TOOLS) -> SshServer:
    """An SSH server whose sessions find these tools alone; not started yet."""
    server = SshServer(folder)
    place = folder / "bin"
    place.mkdir()
    for name in tools:
        if program := shutil.which(name):
            (place / name).symlink_to(program)
    server.prelude = f"export PATH='{place}';"
    return server


def lay_programs(place: Path, userland: str, without: Sequence[str] = ()) -> Path:
    """A folder with the programs of a small system: `busybox` (ash), `toybox` (mksh, as Android has it) or `debian`."""
    place.mkdir()
    shells = {"busybox": "busybox", "toybox": "mksh", "debian": "dash"}
    for name in (*TOOLS, "flock"):
        source = shells[userland] if name == "sh" else name if userland == "debian" else userland
        program = shutil.which(source)
        if program is None:
            pytest.skip(f"no {source}: run deploy/setup/test_packages.sh as root")
        if name not in without:
            (place / name).symlink_to(program)
    return place


def elf_head(machine: int, big: bool = False) -> bytes:
    """The head of a program for a machine (e_machine)."""
    order = ">" if big else "<"
    return b"\x7fELF" + bytes([2, 2 if big else 1, 1]) + bytes(9) + struct.pack(f"{order}HH", 2, machine)


class FolderBoard(FilesByCommands):
    """A board whose home is a folder here, without a link in between. What `broken` says of a command that is run
    happens in its place; `commands` are those that were run; `path` is where it has its programs, if not this one's."""

    name, host, host_key = "ssh", "board", "SHA256:folder"

    def __init__(
        self, home: Path, broken: Callable[[Sequence[str]], str | None] = lambda _: None, path: str = ""
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.broken, self.path = home, broken, path or os.environ["PATH"]
        self.commands: list[Sequence[str]] = []
        self._processes = Processes(self.host)

    def run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float,
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        self.commands.append(command)
        enter = f'cd -- "$1" && export HOME="$1" PATH={shlex.quote(self.path)} && shift && exec "$@"'
        words = ["sh", "-c", self.broken(command) or enter, "sh", str(self.home), *command]
        return self._processes.run(words, stdin, timeout_s, OutputReader(self.host, on_line))

    def close(self) -> None:
        self._processes.close()
