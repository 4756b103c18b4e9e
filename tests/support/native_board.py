"""Boards without Python, which have TFLite's benchmark_model or a stand-in for it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from places import SUPPORT
from ssh_server import SshServer

TOOLS = (
    *("sh", "cat", "chmod", "cut", "df", "grep", "head", "ls", "mkdir", "mv", "printf", "rm", "sed", "sha256sum"),
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
