"""Files over commands (`cat`, `sha256sum`, `mv`), whole or not at all: for every transport that runs commands."""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from edgeprune.device.transports.transport import Completed, describe_size, describe_space, hash_file
from edgeprune.disk import describe_os_error
from edgeprune.errors import DeviceError, NoSpace

SHORT_S = 60.0
"""Longest silence of a command that has little to do."""
CHECK = """
umask 077
mkdir -p -- "$2" || exit 1
if [ -f "$1" ]; then sha256sum < "$1"; else echo none; fi
df -Pk -- "$2"
"""
"""Says the hash of file $1, and the space where it shall lie, in folder $2."""
UPLOAD = """
umask 077
trap 'rm -f -- "$2"' EXIT
trap 'exit 70' HUP INT TERM
cat > "$2" || exit 71
[ "$(sha256sum < "$2" | cut -c 1-64)" = "$3" ] || exit 72
mv -f -- "$2" "$1"
"""
"""Writes standard input as $2, checks its hash $3, and renames it to $1."""
DAMAGED = 72
FULL = re.compile("No space left on device|Disk quota exceeded")
"""What programs say of a full disk."""


class FilesByCommands(ABC):
    """Puts and gets files; who derives from it runs the commands. See Transport."""

    host: str

    @abstractmethod
    def run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float,
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run a command; see Transport."""

    def put(self, local: Path, remote: str) -> None:
        """Upload a file; see Transport."""
        digest, needed = hash_file(local), local.stat().st_size
        remote_digest, free = self._check(remote)
        if remote_digest == digest:
            return
        if free is not None and needed > free:
            raise NoSpace(f"{self.host}: {describe_space(remote, needed, free)}")
        partial = f"{remote}.{secrets.token_hex(4)}.partial"
        command = ["sh", "-c", UPLOAD, "sh", remote, partial, digest]
        completed = self.run(command, stdin=local.read_bytes(), timeout_s=SHORT_S)
        if completed.exit_code == DAMAGED:
            raise DeviceError(f"{self.host}: {remote} was damaged on the way; run the same command again")
        if completed.exit_code != 0:
            _, free = self._check(remote)
            space = "" if free is None else f" ({describe_size(free)} free, {describe_size(needed)} needed)"
            raise cannot_write(self.host, remote, completed.stderr, space)

    def _check(self, remote: str) -> tuple[str, int | None]:
        """The hash of a remote file, and the bytes that are free beside it."""
        command = ["sh", "-c", CHECK, "sh", remote, str(PurePosixPath(remote).parent)]
        completed = self.run(command, timeout_s=SHORT_S)
        if completed.exit_code != 0:
            raise cannot_write(self.host, remote, completed.stderr)
        return parse_check(completed.stdout.decode(errors="replace"))

    def get(self, remote: str, local: Path) -> None:
        """Download a file; see Transport."""
        completed = self.run(["cat", "--", remote], timeout_s=SHORT_S)
        if completed.exit_code != 0:
            raise DeviceError(f"{self.host}: {remote} cannot be read: {last_line(completed.stderr)}")
        partial = local.with_name(f"{local.name}.partial")
        try:
            partial.write_bytes(completed.stdout)
            partial.replace(local)
        except OSError as exc:
            raise DeviceError(describe_os_error(exc, local)) from exc


def parse_check(text: str) -> tuple[str, int | None]:
    """Read what CHECK prints: a sha256 (empty where there is no file), and free bytes where `df` says them."""
    digest = re.search(r"^[0-9a-f]{64}\b", text, re.MULTILINE)
    space = re.search(r"\s(\d+)\s+(\d+)\s+(\d+)\s+\d+%", text)
    return digest.group() if digest else "", int(space.group(3)) * 1024 if space else None


def cannot_write(host: str, path: str, stderr: str, space: str = "") -> DeviceError:
    """A file that could not be written there, from what a command said of it; a full disk is one of its own."""
    kind = NoSpace if FULL.search(stderr) else DeviceError
    return kind(f"{host}: {path} cannot be written: {last_line(stderr)}{space}")


def last_line(text: str) -> str:
    """What a command said last."""
    lines = text.strip().splitlines()
    return lines[-1][-300:] if lines else "no reason given"
