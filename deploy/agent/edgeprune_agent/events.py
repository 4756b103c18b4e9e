"""What the agent writes: JSON lines on the standard output it was started with."""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from edgeprune_agent.errors import AgentError


def claim_stdout() -> TextIO:
    """Keep standard output for events: whatever else a runtime prints goes to standard error."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return stream


ALIVE_S = 5.0
SAY_S = 10.0
WATCH_S = 5.0


class Events:
    """Writes events, each flushed at once; from several threads, one after the other.

    `watch`, where it is set, is called every few seconds while there are any, and may end the command by raising.
    """

    def __init__(self, stream: TextIO) -> None:
        self.watch: Callable[[], None] = lambda: None
        self._stream = stream
        self._last = self._last_progress = self._watched = time.monotonic()
        self._writing = threading.Lock()

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event."""
        with self._writing:
            self._stream.write(json.dumps({"event": event, **fields}) + "\n")
            self._stream.flush()
        self._last = time.monotonic()

    def progress(self, text: str) -> None:
        """Say what is going on."""
        self._look()
        self.emit("progress", text=text)
        self._last_progress = time.monotonic()

    def progress_slowly(self, text: str) -> None:
        """Say what is going on, where nothing was said of it for long."""
        if time.monotonic() - self._last_progress > SAY_S:
            self.progress(text)

    def _look(self) -> None:
        if time.monotonic() - self._watched > WATCH_S:
            self._watched = time.monotonic()
            self.watch()

    def alive(self) -> None:
        """Give a sign of life where nothing was written for a while."""
        self._look()
        if time.monotonic() - self._last > ALIVE_S:
            self.emit("alive")

    def keep_watch(self) -> None:
        """End this process when nobody reads any more, or what watches says so, also while nothing is written.

        As while a model loads, or runs for long: what is started here would go on for nobody, on a board that the next
        command takes for free. What this process has started ends by the same watch of its own.
        """
        if hasattr(select, "poll"):
            threading.Thread(target=self._keep_watch, daemon=True).start()

    def _keep_watch(self) -> None:
        poller = select.poll()
        poller.register(self._stream.fileno(), 0)  # that the other end has gone is always told
        while not poller.poll(WATCH_S * 1000):
            try:
                self.watch()
            except AgentError as exc:
                self.emit("error", kind=exc.kind, message=str(exc))
                self.emit("end")
                break
        os._exit(1)
