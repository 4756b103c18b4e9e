"""Files in the agent's own folder: named by their sha256 and checked against it.

models/SHA256.FORMAT    models that were pushed
incoming/SHA256.zip     an archive of models, on its way
arrays/SHA256.npy       inputs that were pushed, and outputs to fetch
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeprune_agent.errors import AgentError, first_line
from edgeprune_agent.events import Events
from edgeprune_agent.runtimes import list_formats

KEEP_S = 3 * 86400
"""Files that no request named for so long are removed."""
NAME = re.compile(r"[0-9a-f]{64}\.([a-z0-9]{1,16})")
FOLDERS = {"npy": "arrays", "zip": "incoming"}
"""Suffix to the folder of such files, beside those of models."""


def home() -> Path:
    """The folder that this agent lies in."""
    return Path(sys.argv[0]).resolve().parent


def find_place(name: object) -> Path:
    """Path of a file named by its hash.

    Raises:
        AgentError: the name is no such name.
    """
    match = NAME.fullmatch(name) if isinstance(name, str) else None
    folders = {**dict.fromkeys(list_formats(), "models"), **FOLDERS}
    if match is None or match.group(1) not in folders:
        raise AgentError("request", f"{name!r} is no file name; expected SHA256.{' or .'.join(folders)}")
    return home() / folders[match.group(1)] / match.group()


def check_hash(content: bytes, name: str) -> bytes:
    """The content, if it is what its name says.

    Raises:
        AgentError: it is not.
    """
    digest = hashlib.sha256(content).hexdigest()
    if digest != name[:64]:
        raise AgentError("hash", f"{name} has sha256 {digest} on the board: damaged or changed; push it again")
    return content


def read_checked(name: str) -> bytes:
    """A file of the board, verified.

    Raises:
        AgentError: missing, or not what its name says.
    """
    path = find_place(name)
    try:
        content = check_hash(path.read_bytes(), name)
    except OSError as exc:
        raise AgentError("hash", f"{name} cannot be read on the board: {exc.strerror}; push it again") from exc
    os.utime(path)
    return content


def has_file(name: str) -> bool:
    """Whether a file is there and whole."""
    try:
        read_checked(name)
    except AgentError as exc:
        if exc.kind != "hash":
            raise
        return False
    return True


def have(request: dict[str, Any], root: str, events: Events) -> None:
    """Which of the named files are here and whole."""
    events.emit("result", have=[name for name in request["files"] if has_file(name)])


def write_whole(name: str, content: bytes) -> None:
    """Write a file under another name, then rename it."""
    path = find_place(name)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def read_archive(archive: str, sizes: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    """Names and verified contents of an archive's members; only the named ones are looked at, none is extracted.

    `sizes` are the bytes of each member, so that a bomb is refused unopened.

    Raises:
        AgentError: a name that is none; a member missing, of another size, or damaged.
    """
    try:
        with zipfile.ZipFile(find_place(archive)) as packed:
            for name, size in sizes.items():
                find_place(name)
                if packed.getinfo(name).file_size != size:
                    raise AgentError("hash", f"{name} in the pushed archive is not of {size} bytes")
                yield name, check_hash(packed.read(name), name)
    except (KeyError, OSError, zipfile.BadZipFile) as exc:
        raise AgentError("hash", f"the pushed archive cannot be read: {first_line(exc)}; push it again") from exc


def remove(name: str) -> None:
    """Remove a file, if it is there."""
    find_place(name).unlink(missing_ok=True)


def sweep() -> None:
    """Remove what no request named for long."""
    os.utime(sys.argv[0])
    for path in (*home().glob("*/*"), *home().glob("agent-*")):
        if path.is_file() and time.time() - path.stat().st_mtime > KEEP_S:
            path.unlink()
