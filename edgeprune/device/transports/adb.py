"""A phone over adb, through the adb client. A lost phone can look like a success: commands have an end marker."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress

from edgeprune.device.transports.address import AdbAddress
from edgeprune.device.transports.commands import FilesByCommands
from edgeprune.device.transports.frames import Framed, FramedReader
from edgeprune.device.transports.process import Processes
from edgeprune.device.transports.transport import Completed
from edgeprune.errors import ConnectionFailed

HOME = "/data/local/tmp"
"""What adb's user may write to and run from, on every phone."""
CONNECT_S = 15.0
NETWORK = re.compile(r".+:[0-9]{1,5}")
PRELUDE = f"cd {HOME} && export HOME={HOME} && "
CAUSES = {
    "unauthorized": "it does not let this machine in; unlock it and allow USB debugging on its screen",
    "offline": "it is offline; plug it in again, or: adb reconnect offline",
    "not found": "no such phone; `adb devices` lists those that are there",
    "no devices": "no such phone; `adb devices` lists those that are there",
    "failed to connect": "cannot be reached; is wireless debugging on, and the phone in this network?",
    "failed to authenticate": "it does not let this machine in; allow wireless debugging on its screen",
    "no permissions": "this user may not use the USB device; on Debian: apt install android-sdk-platform-tools-common",
}
"""What the adb client says, and what it means."""


class AdbTransport(FilesByCommands):
    """A phone that lets this machine debug it; see Transport. Relative paths begin at /data/local/tmp."""

    name = "adb"

    def __init__(self, address: AdbAddress, adb: str) -> None:
        """Use the adb client at a path."""
        self.host = str(address)
        self.host_key = f"adb serial {address.serial}"
        self._adb = adb
        self._serial = address.serial
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
        framed = Framed(command, PRELUDE)
        output, errors = framed.frames()
        words = [self._adb, "-s", self._serial, "shell", "-T", framed.script]
        try:
            completed = self._processes.run(words, stdin, timeout_s, FramedReader(self.host, on_line, output))
        except ConnectionFailed:
            self._let_go()
            raise
        stderr = errors.feed(completed.stderr.encode()) + errors.finish()
        if output.exit_code is None:
            self._let_go()
            raise ConnectionFailed(f"{self.host}: {explain(completed)}")
        return Completed(output.exit_code, completed.stdout, stderr.decode(errors="replace"), output.noise)

    def close(self) -> None:
        """End what runs there; the link itself is kept by the adb server."""
        self._processes.close()

    def _let_go(self) -> None:
        """Have the adb server forget a link over the network that broke; it would go on waiting for it."""
        if NETWORK.fullmatch(self._serial):
            call_adb([self._adb, "disconnect", self._serial])


def connect_adb(address: AdbAddress) -> AdbTransport:
    """Find a phone, over USB or the network.

    Raises:
        ConnectionFailed: no adb here, no such phone, or it does not let this machine in.
    """
    adb = shutil.which("adb")
    if adb is None:
        raise ConnectionFailed(f"{address}: adb is not installed here; on Debian: apt install adb")
    call_adb([adb, "start-server"], subprocess.DEVNULL)
    if NETWORK.fullmatch(address.serial):
        completed = call_adb([adb, "connect", address.serial])
        if "connected to" not in completed.stdout.decode(errors="replace"):
            raise ConnectionFailed(f"{address}: {explain(completed)}")
    features = call_adb([adb, "-s", address.serial, "features"])
    if features.exit_code != 0:
        raise ConnectionFailed(f"{address}: {explain(features)}")
    if "shell_v2" not in features.stdout.decode(errors="replace").split():
        raise ConnectionFailed(f"{address}: its adb tells no exit codes; Android 7 or newer is needed")
    return AdbTransport(address, adb)


def call_adb(words: Sequence[str], output: int = subprocess.PIPE) -> Completed:
    """Ask the adb client itself; no answer in time is an exit code of 1. A server that it starts keeps its output."""
    with suppress(subprocess.TimeoutExpired):
        process = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=CONNECT_S, check=False
        )
        return Completed(process.returncode, process.stdout or b"", (process.stderr or b"").decode(errors="replace"))
    return Completed(1, b"", f"no answer within {CONNECT_S:g} s")


def explain(completed: Completed) -> str:
    """What the adb client means, with what to do."""
    output = " ".join(f"{completed.stdout[-300:].decode(errors='replace')} {completed.stderr[-300:]}".split())
    for words, meaning in CAUSES.items():
        if words in output:
            return meaning
    return f"the connection was lost; check the phone and run the same command again ({output or 'nothing was said'})"
