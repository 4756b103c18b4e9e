"""This machine as a board: commands as processes, files by copying."""

from __future__ import annotations

import errno
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from edgeprune.device.transports.process import Processes
from edgeprune.device.transports.transport import Completed, OutputReader, describe_space, hash_file
from edgeprune.errors import DeviceError, NoSpace


class LocalTransport:
    """Commands run in the user's home, each in a session of its own."""

    name = "local"
    host = "local"
    host_key = ""

    def __init__(self) -> None:
        self._processes = Processes(self.host)

    def run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float,
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run a command; see Transport."""
        return self._processes.run(command, stdin, timeout_s, OutputReader(self.host, on_line))

    def put(self, local: Path, remote: str) -> None:
        """Copy a file; see Transport."""
        place = Path.home() / remote
        partial = place.with_name(f"{place.name}.{secrets.token_hex(4)}.partial")
        digest = hash_file(local)
        if place.is_file() and hash_file(place) == digest:
            return
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_space(local, place)
            partial.touch(mode=0o600)
            shutil.copyfile(local, partial)
            if hash_file(partial) != digest:
                raise DeviceError(f"{place}: was damaged while it was copied; is the disk failing?")
            partial.replace(place)
        except OSError as exc:
            full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
            raise (NoSpace if full else DeviceError)(f"{place}: cannot be written: {exc.strerror}") from exc
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def get(self, remote: str, local: Path) -> None:
        """Copy a file; see Transport."""
        partial = local.with_name(f"{local.name}.partial")
        try:
            shutil.copyfile(Path.home() / remote, partial)
            partial.replace(local)
        except OSError as exc:
            raise DeviceError(f"{remote}: cannot be fetched to {local}: {exc.strerror}") from exc

    def close(self) -> None:
        """End what runs."""
        self._processes.close()


def _check_space(local: Path, place: Path) -> None:
    needed, free = local.stat().st_size, shutil.disk_usage(place.parent).free
    if needed > free:
        raise NoSpace(f"local: {describe_space(str(place), needed, free)}")
