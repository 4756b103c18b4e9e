"""This machine as a board: commands as processes, files by copying."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

from edgeprune.device.transport import Completed, OutputReader, describe_space, hash_file
from edgeprune.errors import ConnectionFailed, DeviceError

CHUNK = 1 << 16


class LocalTransport:
    """Commands run in the user's home, each in a session of its own."""

    name = "local"
    host = "local"
    host_key = ""

    def run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float,
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run a command; see Transport."""
        try:
            process = subprocess.Popen(
                command,
                cwd=Path.home(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as exc:
            raise DeviceError(f"local: cannot run {command[0]}: {exc.strerror}") from exc
        with process:
            try:
                return _converse(process, stdin, timeout_s, OutputReader(self.host, on_line))
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def put(self, local: Path, remote: str) -> None:
        """Copy a file; see Transport."""
        place = Path.home() / remote
        partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
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
            raise DeviceError(f"{place}: cannot be written: {exc.strerror}") from exc
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
        """Nothing is held."""


def _check_space(local: Path, place: Path) -> None:
    needed, free = local.stat().st_size, shutil.disk_usage(place.parent).free
    if needed > free:
        raise DeviceError(f"local: {describe_space(str(place), needed, free)}")


def _converse(process: subprocess.Popen[bytes], stdin: bytes, timeout_s: float, reader: OutputReader) -> Completed:
    """Feed a process and read it until it ends."""
    assert process.stdout is not None
    assert process.stderr is not None
    Thread(target=_feed, args=(process, stdin), daemon=True).start()
    errors: list[bytes] = []
    takers: dict[int, Callable[[bytes], None]] = {
        process.stdout.fileno(): reader.feed,
        process.stderr.fileno(): errors.append,
    }
    with selectors.DefaultSelector() as selector:
        for descriptor in takers:
            selector.register(descriptor, selectors.EVENT_READ)
        heard = time.monotonic()
        while takers:
            for key, _ in selector.select(timeout=1.0):
                heard = time.monotonic()
                chunk = os.read(key.fd, CHUNK)
                if chunk:
                    takers[key.fd](chunk)
                else:
                    selector.unregister(key.fd)
                    del takers[key.fd]
            if time.monotonic() - heard > timeout_s:
                raise ConnectionFailed(f"local: no output for {timeout_s:g} s; the command was ended")
    reader.finish()
    return Completed(process.wait(), reader.content, b"".join(errors).decode(errors="replace"))


def _feed(process: subprocess.Popen[bytes], stdin: bytes) -> None:
    """Write all input; a process that does not want it may close it."""
    assert process.stdin is not None
    with suppress(OSError, ValueError):
        process.stdin.write(stdin)
    with suppress(OSError, ValueError):
        process.stdin.close()
