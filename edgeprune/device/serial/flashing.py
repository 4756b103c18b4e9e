"""A firmware brought onto a board by a tool of the user's, before the board is asked anything."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from edgeprune.core.boards.flashing import fill_flash
from edgeprune.core.target import Target
from edgeprune.device.board import Progress
from edgeprune.device.transports.address import SerialAddress
from edgeprune.device.transports.lookup import resolve_host
from edgeprune.errors import DeviceError, TargetError, UsageError

FLASH_S = 300.0
"""How long a tool may take."""
RETURN_S = 10.0
"""How long the port may be away afterwards: a board that begins anew is found by the system again."""


def flash_image(target: Target, host: str | None, image: Path, progress: Progress) -> None:
    """Run the target's `flash` command for a firmware; what it prints is told where it fails.

    Raises:
        TargetError: the target has no such command, or no address is known.
        UsageError: the address is no serial line.
        DeviceError: the tool is not there, fails, or takes too long.
    """
    address = resolve_host(target.name, host)
    if not isinstance(address, SerialAddress):
        raise UsageError(f"--image {image}: firmware is for a board on a serial line; expected --host serial:PORT")
    if not target.flash:
        raise TargetError(
            f"target {target.name}: 'flash' is missing, which brings {image} there; write the command of your tool, as "
            'flash = ["pyocd", "flash", "{image}"], or flash it yourself and leave --image out'
        )
    words = fill_flash(target.flash, str(image.absolute()), address.port)
    progress(f"{address}: {' '.join(words)}")
    _run(words, target, progress)
    await_port(address)


def _run(words: list[str], target: Target, progress: Progress) -> None:
    with tempfile.TemporaryFile() as printed:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as exc:
            raise DeviceError(
                f"target {target.name}: flash: cannot run {words[0]}: {exc.strerror}; install it, or change the command"
            ) from exc
        fault = _wait(process)
        if fault:
            printed.seek(0)
            for line in printed.read().decode(errors="replace").splitlines():
                progress(f"  {line}")
            raise DeviceError(f"target {target.name}: flash: {words[0]} {fault}; see what it printed above")


def _wait(process: subprocess.Popen[bytes]) -> str:
    """What went wrong with a tool; empty where it ended well. Nothing that it started outlives it."""
    try:
        status = process.wait(FLASH_S)
    except subprocess.TimeoutExpired:
        return f"did not end within {FLASH_S:g} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return f"ended with status {status}" if status else ""


def await_port(address: SerialAddress) -> None:
    """Wait until the port is there again; where it never is, opening it says so."""
    end = time.monotonic() + RETURN_S
    while not Path(address.port).exists() and time.monotonic() < end:
        time.sleep(0.1)
