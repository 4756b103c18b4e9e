"""A process on this machine, fed and read until it ends; what it prints is handed on as it comes."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from edgeprune.device.transports.transport import Completed, OutputReader
from edgeprune.errors import ConnectionFailed, DeviceError

CHUNK = 1 << 16


class Processes:
    """The processes on this machine that serve one board; nothing of one outlives its call."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self._closed = False

    def run(self, command: Sequence[str], stdin: bytes, timeout_s: float, reader: OutputReader) -> Completed:
        """Run a command in the user's home and in a session of its own.

        `timeout_s` bounds its silence: the time in which it neither prints nor takes input.

        Raises:
            DeviceError: it cannot be run.
            ConnectionFailed: the silence was too long, or all was closed meanwhile.
        """
        with self._start(command) as process:
            try:
                completed = _converse(process, stdin, timeout_s, reader)
            finally:
                self._end(process.pid)
        if self._closed:
            raise self._was_closed()
        return completed

    def close(self) -> None:
        """End what runs, and run nothing more."""
        with self._lock:
            self._closed = True
            for pid in self._running:
                _kill(pid)

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise self._was_closed()
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
                raise DeviceError(f"{self._host}: cannot run {command[0]}: {exc.strerror}") from exc
            self._running.add(process.pid)
            return process

    def _end(self, pid: int) -> None:
        with self._lock:
            _kill(pid)
            self._running.discard(pid)

    def _was_closed(self) -> ConnectionFailed:
        return ConnectionFailed(f"{self._host}: was let go of; run the same command again")


def _kill(pid: int) -> None:
    """End a process and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


class _Feeder:
    """Writes all input in a thread of its own; a process that does not want it may close it."""

    def __init__(self, process: subprocess.Popen[bytes], content: bytes) -> None:
        assert process.stdin is not None
        self.written = time.monotonic()
        self._pipe = process.stdin
        self._content = memoryview(content)
        threading.Thread(target=self._feed, daemon=True).start()

    def _feed(self) -> None:
        with suppress(OSError, ValueError):
            for start in range(0, len(self._content), CHUNK):
                self._pipe.write(self._content[start : start + CHUNK])
                self.written = time.monotonic()
        with suppress(OSError, ValueError):
            self._pipe.close()


def _converse(process: subprocess.Popen[bytes], stdin: bytes, timeout_s: float, reader: OutputReader) -> Completed:
    assert process.stdout is not None
    assert process.stderr is not None
    feeder = _Feeder(process, stdin)
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
            for key, _ in selector.select(timeout=min(1.0, timeout_s / 4)):
                heard = time.monotonic()
                chunk = os.read(key.fd, CHUNK)
                if chunk:
                    takers[key.fd](chunk)
                else:
                    selector.unregister(key.fd)
                    del takers[key.fd]
            if time.monotonic() - max(heard, feeder.written) > timeout_s:
                raise ConnectionFailed(f"{reader.host}: no output for {timeout_s:g} s; the command was ended")
    reader.finish()
    return Completed(process.wait(), reader.content, b"".join(errors).decode(errors="replace"))
