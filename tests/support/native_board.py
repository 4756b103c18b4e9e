"""Boards without Python, which have TFLite's benchmark_model or a stand-in for it."""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import subprocess
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


def bare_server(folder: Path, userland: str = "debian", without: Sequence[str] = ()) -> SshServer:
    """An SSH server whose sessions find the programs of a small system alone; not started yet."""
    server = SshServer(folder)
    server.prelude = f"export PATH='{lay_programs(folder / 'bin', userland, without)}';"
    return server


def lay_programs(place: Path, userland: str, without: Sequence[str] = ()) -> Path:
    """A folder with the programs of a small system: `busybox` (ash), `toybox` (mksh, as Android has it) or `debian`."""
    place.mkdir()
    shells, box = {"busybox": "busybox", "toybox": "mksh", "debian": "dash"}, userland != "debian"
    missing = [name for name in {userland, shells[userland]} - {"debian"} if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {missing[0]}: run deploy/setup/test_packages.sh as root")
    for name in set(_list_applets(userland) if box else (*TOOLS, "flock")) & {*TOOLS, "flock"} - {"sh", *without}:
        (place / name).symlink_to(str(shutil.which(userland if box else name)))
    (place / "sh").symlink_to(str(shutil.which(shells[userland])))
    return place


def _list_applets(box: str) -> list[str]:
    """The programs that busybox or toybox is; `--list` is known to the one, no word at all to the other."""
    words = [box, "--list"] if box == "busybox" else [box]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


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
