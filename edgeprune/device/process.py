"""A process on this machine, fed and read until it ends; what it prints is handed on as it comes."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

from edgeprune.device.transport import Completed, OutputReader
from edgeprune.errors import ConnectionFailed, DeviceError

CHUNK = 1 << 16


def run_process(command: Sequence[str], stdin: bytes, timeout_s: float, reader: OutputReader) -> Completed:
    """Run a command in the user's home and in a session of its own; nothing of it outlives this call.

    `timeout_s` bounds its silence: the time in which it neither prints nor takes input.

    Raises:
        DeviceError: it cannot be run.
        ConnectionFailed: the silence was too long.
    """
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
        raise DeviceError(f"{reader.host}: cannot run {command[0]}: {exc.strerror}") from exc
    with process:
        try:
            return _converse(process, stdin, timeout_s, reader)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class _Feeder:
    """Writes all input in a thread of its own; a process that does not want it may close it."""

    def __init__(self, process: subprocess.Popen[bytes], content: bytes) -> None:
        assert process.stdin is not None
        self.written = time.monotonic()
        self._pipe = process.stdin
        self._content = memoryview(content)
        Thread(target=self._feed, daemon=True).start()

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
