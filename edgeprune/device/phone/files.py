"""Hundreds of small files to a board and from it, each time by one archive."""

from __future__ import annotations

import hashlib
import io
import re
import secrets
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgeprune.device.transports.commands import DAMAGED, SHORT_S, cannot_write, parse_check
from edgeprune.device.transports.transport import AGAIN, Transport, describe_space
from edgeprune.errors import DeviceError, NoSpace, RemoteError

PUSH_S = 180.0
LOOK = """
umask 077
mkdir -p -- "$1" || exit 1
df -Pk -- "$1"
command -v tar >/dev/null && echo has-tar
ls -- "$1"
"""
SUMS = "SHA256SUMS"
UNPACK = """
umask 077
trap 'rm -rf -- "$1"' EXIT
trap 'exit 70' HUP INT TERM
mkdir -- "$1" || exit 71
tar -x -f - -C "$1" || exit 71
(cd -- "$1" && sha256sum -c SHA256SUMS >/dev/null && rm -- SHA256SUMS) || exit 72
mv -f -- "$1"/* "$2"/
"""
"""Unpacks standard input in folder $1, checks the hash of each file, and moves all of them into $2."""
JOIN = """
cd -- "$1" || exit 1
cat -- * || exit 2
cat -- * | sha256sum >&2
"""


def push_files(transport: Transport, folder: str, contents: Mapping[str, bytes]) -> None:
    """Bring files of these names into a folder of the board, those that are missing, whole or not at all.

    Raises:
        NoSpace: its disk is full.
        DeviceError: damaged on the way, or it cannot be written.
    """
    names, free, has_tar = _look(transport, folder)
    missing = {name: content for name, content in contents.items() if name not in names}
    needed = sum(map(len, missing.values()))
    if free is not None and needed > free:
        raise NoSpace(f"{transport.host}: {describe_space(folder, needed, free)}")
    if not has_tar:
        _push_singly(transport, folder, missing)
    elif missing:
        _push_archive(transport, folder, missing)


def _look(transport: Transport, folder: str) -> tuple[set[str], int | None, bool]:
    completed = transport.run(["sh", "-c", LOOK, "sh", folder], timeout_s=SHORT_S)
    if completed.exit_code != 0:
        raise cannot_write(transport.host, folder, completed.stderr)
    text = completed.stdout.decode(errors="replace")
    return set(text.splitlines()), parse_check(text)[1], "has-tar" in text.splitlines()


def _push_archive(transport: Transport, folder: str, contents: Mapping[str, bytes]) -> None:
    partial = f"{folder}/incoming-{secrets.token_hex(4)}"
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items())
    packed = pack_files({**contents, SUMS: sums.encode()})
    completed = transport.run(["sh", "-c", UNPACK, "sh", partial, folder], stdin=packed, timeout_s=PUSH_S)
    if completed.exit_code == DAMAGED:
        raise RemoteError(f"{transport.host}: files in {folder} were damaged on the way; {AGAIN}")
    if completed.exit_code != 0:
        raise cannot_write(transport.host, folder, completed.stderr)


def _push_singly(transport: Transport, folder: str, contents: Mapping[str, bytes]) -> None:
    """Without `tar` there, one file after the other."""
    with tempfile.TemporaryDirectory() as place:
        for name, content in contents.items():
            path = Path(place) / name
            path.write_bytes(content)
            transport.put(path, f"{folder}/{name}")


def pack_files(contents: Mapping[str, bytes]) -> bytes:
    """Files as a tar archive that every `tar` reads."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in contents.items():
            row = tarfile.TarInfo(name)
            row.size, row.mode = len(content), 0o600
            archive.addfile(row, io.BytesIO(content))
    return packed.getvalue()


def join_files(transport: Transport, folder: str) -> bytes:
    """What all files of a folder of the board hold, one after the other by their names.

    Raises:
        DeviceError: they cannot be read, or were damaged on the way.
    """
    completed = transport.run(["sh", "-c", JOIN, "sh", folder], timeout_s=PUSH_S)
    if completed.exit_code != 0:
        raise DeviceError(f"{transport.host}: {folder} cannot be read: {completed.stderr[-200:]}")
    digest = re.search(r"\b[0-9a-f]{64}\b", completed.stderr)
    if digest is None or digest.group() != hashlib.sha256(completed.stdout).hexdigest():
        raise RemoteError(f"{transport.host}: {folder} was damaged on the way; {AGAIN}")
    return completed.stdout


def remove_folder(transport: Transport, folder: str) -> None:
    """Remove a folder of the board with what it holds; one that is not there is no fault."""
    transport.run(["rm", "-rf", "--", folder], timeout_s=SHORT_S)
