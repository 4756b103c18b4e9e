"""A serial line to a microcontroller: commands that end with `%`, answers that end with a line `m-ready`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from edgeprune.device.transports.address import SerialAddress
from edgeprune.errors import ConnectionFailed, RemoteError
from edgeprune.extras import comes_with

if TYPE_CHECKING:
    from serial import Serial

READY, BEGUN = "m-ready", "m-init-done"
"""The line that ends an answer, and what a board says once it has started."""
ANSWER_S = 2.0
"""How long a board may take for a command that computes nothing, beside the time of its bytes."""
BITS = 10
"""Of a byte on the line: a start bit, eight and a stop bit."""
QUIET_S = 0.2
"""A line is at rest that has brought nothing for so long."""
ATTEMPTS = 3
LONGEST_LINE = 65_536
Value = TypeVar("Value")


class LineFault(ConnectionFailed):
    """Something went wrong on the line that may not go wrong again: silence, a reset, bytes that were lost."""


@dataclass
class Line:
    """An open line: `port` as pyserial has it, `name` for messages."""

    port: Serial
    name: str

    def ask(self, command: str, work_s: float = 0.0) -> list[str]:
        """The lines of the answer to a command that takes the board `work_s` at most, without the last one.

        Raises:
            LineFault: no answer in its time, or the board has begun anew.
            RemoteError: the firmware refuses the command.
            ConnectionFailed: the port is gone.
        """
        with self._open_end():
            self.port.write(f"{command}%".encode())
            answer = list(self._read_answer(command, work_s))
        refusals = [line for line in answer if line.startswith("e-")]
        if refusals:
            raise RemoteError(f"{self.name}: {shorten(command)!r} was refused: {refusals[0]}")
        return answer

    def restart(self, work_s: float) -> None:
        """Begin anew, as after power was off, which takes `work_s` at most.

        Raises:
            LineFault: it does not come back.
            ConnectionFailed: the port is gone.
        """
        with self._open_end():
            self.port.write(b"reset%")
            lines = list(self._read_answer("reset", work_s, may_begin=True))
        if BEGUN not in lines:
            raise LineFault(f"{self.name}: the board did not begin anew; its firmware knows no reset")

    def settle(self) -> None:
        """End what may be half there, wait for what that brings, and read until the line is at rest.

        Raises:
            LineFault: it never is: something else is sending.
            ConnectionFailed: the port is gone.
        """
        with self._open_end():
            self.port.write(b"%")
            self.port.timeout, end = ANSWER_S, time.monotonic() + 2 * ANSWER_S
            while self.port.read():
                self.port.timeout = QUIET_S
                self.port.read(self.port.in_waiting)
                if time.monotonic() > end:
                    raise LineFault(f"{self.name}: the line is never at rest: is this the firmware's port?")

    def _read_answer(self, command: str, work_s: float, may_begin: bool = False) -> Iterator[str]:
        """Lines up to the last one; the board's first words are a fault but after a reset."""
        end = time.monotonic() + ANSWER_S + work_s + len(command) * BITS / self.port.baudrate
        while (line := self._read_line(command, end)) != READY:
            if line == BEGUN and not may_begin:
                raise LineFault(f"{self.name}: the board began anew while it was at {shorten(command)!r}")
            end = max(end, time.monotonic() + ANSWER_S)
            yield line

    def _read_line(self, command: str, end: float) -> str:
        """One line, however slowly its bytes come; never beyond the `end` without one."""
        taken = bytearray()
        while not taken.endswith(b"\n"):
            self.port.timeout = max(0.0, end - time.monotonic())
            more = self.port.read_until(b"\n", LONGEST_LINE)
            taken += more
            if not more or len(taken) > LONGEST_LINE:
                heard = f"; the last it sent was {shorten(taken.decode(errors='replace'))!r}" if taken else ""
                raise LineFault(f"{self.name}: no answer to {shorten(command)!r} in its time{heard}")
            end = max(end, time.monotonic() + len(taken) * BITS / self.port.baudrate)
        return taken.decode("ascii", errors="replace").strip()

    @contextmanager
    def _open_end(self) -> Iterator[None]:
        """Turn whatever the port raises into one error."""
        try:
            yield
        except OSError as exc:  # pyserial's are of this kind
            raise ConnectionFailed(f"{self.name}: the line was lost: {exc}; plug it in again, and repeat") from exc


@contextmanager
def open_line(address: SerialAddress) -> Iterator[Line]:
    """Open a port for this process alone, and see that nothing is under way on it.

    Raises:
        MissingExtra: pyserial is not installed.
        ConnectionFailed: there is no such port, it may not be opened, or something else has it.
    """
    with comes_with("serial"):
        from serial import Serial, SerialException
    try:
        port = Serial(address.port, address.baud, timeout=ANSWER_S, write_timeout=ANSWER_S, exclusive=True)
    except (SerialException, ValueError, OSError) as exc:
        raise ConnectionFailed(f"{address}: {_explain(exc)}") from exc
    with port:
        line = Line(port, str(address))
        line.settle()
        yield line


def _explain(fault: Exception) -> str:
    """What to do about a port that cannot be opened."""
    text = str(fault)
    if "exclusively lock" in text or "busy" in text.lower():
        return "another program has it open (a monitor?); close that"
    if "Permission denied" in text or "Errno 13" in text:
        return "may not be opened; add yourself to its group (often dialout) and log in again"
    if "No such file" in text or "Errno 2" in text:
        return "there is no such port; is the board plugged in? `python -m serial.tools.list_ports` lists ports"
    return f"cannot be opened: {text}"


def persist(line: Line, action: Callable[[], Value]) -> Value:
    """What an action on a line gives, tried again after a fault, the line at rest; ATTEMPTS times at most.

    Raises:
        LineFault: that of the last attempt, with how many there were.
        DeviceError: whatever else the action raises.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except (LineFault, RemoteError) as exc:
            if attempt == ATTEMPTS:
                raise LineFault(f"{exc} ({ATTEMPTS} attempts); check cable, baud rate and power") from exc
            line.settle()
    raise AssertionError("unreachable")


def shorten(text: str) -> str:
    """The start of a long text."""
    return text if len(text) <= 40 else f"{text[:37]}..."
