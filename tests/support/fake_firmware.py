"""A microcontroller's firmware on a pseudo-terminal: it speaks the commands of docs/serial.md, and fails when asked."""

from __future__ import annotations

import os
import pty
import threading
import tty
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

TICK_HZ = 1_000_000
Fault = Callable[[bytes], bytes | None]
"""What becomes of a command: other bytes of it, or None where nothing at all answers."""


@dataclass
class FakeFirmware:
    """Its net takes `ticks` and gives the first output bytes of its input, each one more."""

    sha256: str = "a" * 64
    profile: str = "edgeprune 1"
    input_bytes: int = 100
    output_bytes: int = 4
    ticks: int = 2000
    fault: Fault = lambda command: command
    """Of commands on their way there."""
    echo: Fault = lambda answer: answer
    """Of answers on their way back."""
    commands: list[str] = field(default_factory=list)
    inputs: bytearray = field(default_factory=bytearray)

    def answer(self, command: str) -> str:
        """All lines of an answer, the last one too."""
        self.commands.append(command)
        name, _, rest = command.partition(" ")
        lines = {"name": self._tell_who, "results": self._tell_results}.get(name, lambda: self._work(name, rest))()
        return "".join(f"{line}\r\n" for line in [*lines, "m-ready"])

    def _tell_who(self) -> list[str]:
        return [
            "m-name-dut-[fake board]",
            f"m-profile-[{self.profile}]",
            f"m-model-[{self.sha256}]",
            "m-runtime-[a generator 1.0]",
            f"m-input-bytes-[{self.input_bytes}]",
            f"m-output-bytes-[{self.output_bytes}]",
            f"m-tick-hz-[{TICK_HZ}]",
        ]

    def _tell_results(self) -> list[str]:
        output = bytes((value + 1) % 256 for value in self.inputs[: self.output_bytes])
        return [f"m-results-[{output.hex()}]", f"m-crc-[{zlib.crc32(output)}]"]

    def _work(self, name: str, rest: str) -> list[str]:
        if name == "reset":
            self.inputs.clear()
            return ["m-init-done"]
        if name == "db":
            return self._take(rest)
        if name == "infer" and len(self.inputs) == self.input_bytes:
            times = [self.ticks + 3 * (number % 2) for number in range(int(rest))]
            data = b"".join(value.to_bytes(4, "little") for value in times)
            return [f"m-ticks-[{','.join(map(str, times))}]", f"m-crc-[{zlib.crc32(data)}]"]
        return [f"e-[unknown: {name}]"] if name else []

    def _take(self, rest: str) -> list[str]:
        if rest.startswith("load "):
            self.inputs.clear()
            return [f"m-load-[{rest[5:]}]"] if rest[5:] == str(self.input_bytes) else ["e-[expected bytes: 100]"]
        try:
            self.inputs += bytes.fromhex(rest)
        except ValueError:
            return ["e-[bytes in hexadecimal were expected]"]
        return [f"m-loaded-[{len(self.inputs)}]", f"m-crc-[{zlib.crc32(bytes(self.inputs))}]"]


@dataclass
class Wire:
    """The other end of a port: `path` is what a host opens."""

    path: str
    master: int
    slave: int

    def unplug(self) -> None:
        """Nothing is there any more."""
        os.close(self.master)
        self.master = -1


@contextmanager
def plug_in(firmware: FakeFirmware) -> Iterator[Wire]:
    """A board on a pseudo-terminal."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    wire = Wire(os.ttyname(slave), master, slave)
    thread = threading.Thread(target=_serve, args=(firmware, wire), daemon=True)
    thread.start()
    try:
        yield wire
    finally:
        for end in (wire.slave, wire.master):
            if end >= 0:
                os.close(end)
        thread.join(5)


def _serve(firmware: FakeFirmware, wire: Wire) -> None:
    pending = b""
    while True:
        try:
            came = os.read(wire.master, 4096)
            if not came:
                return
            pending += came
            while b"%" in pending:
                command, _, pending = pending.partition(b"%")
                arrived = firmware.fault(command)
                if arrived is None:
                    continue
                sent = firmware.echo(firmware.answer(arrived.decode(errors="replace")).encode())
                if sent:
                    os.write(wire.master, sent)
        except OSError:
            return
