"""What the agent writes: JSON lines on the standard output it was started with."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO


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
    """Writes events, each flushed at once.

    `watch`, where it is set, is called every few seconds while there are any, and may end the command by raising.
    """

    def __init__(self, stream: TextIO) -> None:
        self.watch: Callable[[], None] = lambda: None
        self._stream = stream
        self._last = self._told = self._watched = time.monotonic()

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event."""
        self._stream.write(json.dumps({"event": event, **fields}) + "\n")
        self._stream.flush()
        self._last = time.monotonic()

    def progress(self, text: str) -> None:
        """Say what is going on."""
        self._look()
        self.emit("progress", text=text)
        self._told = time.monotonic()

    def progress_slowly(self, text: str) -> None:
        """Say what is going on, where nothing was said of it for long."""
        if time.monotonic() - self._told > SAY_S:
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
