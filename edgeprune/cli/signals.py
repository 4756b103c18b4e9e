"""Signals that end a command as Ctrl-C does, so that boards are let go of and locks are released."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGHUP)
BY_SIGNAL = 128
"""An exit code above it tells the signal."""


class Received(list[signal.Signals]):
    """Signals of ENDING that came; none where Ctrl-C was pressed."""

    @property
    def exit_code(self) -> int:
        """That of a command which a signal has ended, as shells tell it: 130 of Ctrl-C, 143 of SIGTERM."""
        return BY_SIGNAL + (self[0] if self else signal.SIGINT)

    def describe(self) -> str:
        """For people."""
        return f"interrupted by {self[0].name}" if self else "interrupted"


@contextmanager
def catch_signals() -> Iterator[Received]:
    """Let the first signal of ENDING raise KeyboardInterrupt here; further ones do not disturb what is let go of.

    One that is ignored, as `nohup` has it, stays so. Outside of the main thread nothing is caught.
    """
    received, before = Received(), dict[signal.Signals, Any]()

    def interrupt(number: int, _: FrameType | None) -> None:
        for name in before:
            signal.signal(name, signal.SIG_IGN)
        received.append(signal.Signals(number))
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        before.update({name: old for name in ENDING if (old := signal.getsignal(name)) != signal.SIG_IGN})
    for name in before:
        signal.signal(name, interrupt)
    try:
        yield received
    finally:
        for name, old in before.items():
            signal.signal(name, old)
