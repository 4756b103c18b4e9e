"""Power meters that this machine reads, beside the board: a Shelly or Tasmota plug, or a command of the user's."""

from __future__ import annotations

import http.client
import json
import math
import os
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from edgeprune.core.measuring.energy import Meter
from edgeprune.core.measuring.readings import Arrival, find_problem, is_enough
from edgeprune.core.target import COMMAND, ON_DEVICE, PLUGS, PowerSource, Target
from edgeprune.errors import DeviceError, TargetError

PLUG_VARIABLE = "EDGEPRUNE_PLUG"
PLUG_POLL_S = 1.0
"""Plugs take a new reading about once a second."""
PLUG_WINDOW_S = 30.0
PLUG_TIMEOUT_S = 3.0
COMMAND_WINDOW_S = 5.0
STOP_S = 5.0


@dataclass
class Log:
    """Readings as they come, in s and W; `lost` says why they ended too soon."""

    arrivals: list[Arrival] = field(default_factory=list)
    lost: str = ""

    @property
    def readings(self) -> list[tuple[float, float]]:
        """Readings by our clock: the one that came with the least delay tells how the meter's relates to it."""
        delay = min((arrival.came_s - arrival.at_s for arrival in self.arrivals), default=0.0)
        return [(arrival.at_s + delay, arrival.value) for arrival in self.arrivals]


@dataclass(frozen=True)
class Plug:
    """A kind of plug: where it tells its power, how to read that, and its steps in W."""

    path: str
    parse: Callable[[str], float]
    step_w: float


def parse_shelly(text: str) -> float:
    """Watts of `Switch.GetStatus` (Shelly of the second generation and later).

    Raises:
        ValueError: no power in it.
    """
    return _watts(_at(text, "apower"), "apower")


def parse_tasmota(text: str) -> float:
    """Watts of `Status 8`.

    Raises:
        ValueError: no power in it, or that of several outlets.
    """
    return _watts(_at(text, "StatusSNS", "ENERGY", "Power"), "StatusSNS.ENERGY.Power")


def _at(text: str, *names: str) -> Any:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"the plug's answer is no JSON: {text[:80]!r}") from exc
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _watts(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"the plug's answer has no single power at {name}: {value!r}")
    return float(value)


PLUG_KINDS = {
    "shelly": Plug("/rpc/Switch.GetStatus?id=0", parse_shelly, 0.1),
    "tasmota": Plug("/cm?cmnd=Status%208", parse_tasmota, 1.0),
}
"""How each of :data:`edgeprune.core.target.PLUGS` is asked. Tasmota tells whole watts unless PowerRes says more."""


def parse_reading(line: str) -> tuple[float, float] | None:
    """Seconds and watts of a line `12.50,3.41`; what follows a second comma does not matter; None for other lines."""
    try:
        seconds, watts = (float(text) for text in line.split(",")[:2])
    except ValueError:
        return None
    return (seconds, watts) if math.isfinite(seconds) and math.isfinite(watts) else None


def describe_command(command: Sequence[str]) -> Meter:
    """The meter behind a command, wherever it runs."""
    return Meter(f"command {command[0]}", COMMAND, "W", 0.0, True, 0.0, COMMAND_WINDOW_S)


def is_external(source: PowerSource) -> bool:
    """Whether this machine reads the meter, and not the board."""
    return source.meter in PLUGS or (source.meter == COMMAND and source.where != ON_DEVICE)


def find_demand(target: Target) -> str:
    """What of a target needs a power meter, in words; empty where nothing does."""
    if any(gate.metric == "energy_mj" for gate in target.gates):
        return "a gate on energy_mj"
    return "a budget of energy_mj" if target.budget.energy_mj else ""


def open_external(source: PowerSource) -> tuple[Meter, Callable[[], Any]]:
    """The meter that this machine reads, and what makes the context in which it is read.

    Raises:
        TargetError: a plug without an address.
    """
    if source.meter == COMMAND:
        return describe_command(source.command), lambda: following(source.command)
    address, plug = plug_address(source.meter), PLUG_KINDS[source.meter]
    meter = Meter(f"{source.meter} plug", "plug", "W", PLUG_POLL_S, True, plug.step_w, PLUG_WINDOW_S)
    return meter, lambda: polling(lambda: read_plug(address, plug))


def plug_address(meter: str) -> str:
    """Where the plug is: $EDGEPRUNE_PLUG, as http://192.0.2.7.

    Raises:
        TargetError: not set, or no such address.
    """
    address = os.environ.get(PLUG_VARIABLE, "").rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise TargetError(
            f"[power] meter = {meter!r}: {PLUG_VARIABLE} is {'no http address' if address else 'not set'}; expected "
            f"where the plug is, as {PLUG_VARIABLE}=http://192.0.2.7"
        )
    if "@" in address:
        raise TargetError(f"[power] meter = {meter!r}: {PLUG_VARIABLE} has a user or password in it; give it without")
    return address


def read_plug(address: str, plug: Plug) -> float:
    """Watts that a plug tells now.

    Raises:
        OSError: it does not answer.
        ValueError: its answer has no power in it.
    """
    try:
        with urllib.request.urlopen(address + plug.path, timeout=PLUG_TIMEOUT_S) as answer:
            return plug.parse(answer.read(1 << 16).decode(errors="replace"))
    except http.client.HTTPException as exc:
        raise ValueError(f"the plug's answer is not whole: {type(exc).__name__}") from exc


def try_external(source: PowerSource) -> Meter:
    """Read the meter for a moment, before anything slow begins, and see whether it can be believed.

    Raises:
        TargetError: it cannot be read, or not be believed; says what to do.
    """
    meter, enter = open_external(source)
    try:
        with enter() as log:
            deadline = time.monotonic() + STOP_S
            while not is_enough(log.arrivals) and not log.lost and time.monotonic() < deadline:
                time.sleep(PLUG_POLL_S / 20)
    except DeviceError as exc:
        raise TargetError(str(exc)) from exc
    if not log.arrivals:
        expected = "lines of seconds,watts on standard output" if source.meter == COMMAND else "a plug at that address"
        raise TargetError(f"[power] {meter.name}: no reading: {log.lost or 'it says nothing'}; expected {expected}")
    problem = find_problem(log.arrivals, meter.unit)
    if problem:
        raise TargetError(f"[power] {meter.name}: {problem}")
    return meter


@contextmanager
def polling(read: Callable[[], float]) -> Iterator[Log]:
    """Read a meter on a thread, every PLUG_POLL_S, while the body runs."""
    log, stop = Log(), threading.Event()

    def poll() -> None:
        while not stop.is_set():
            begun = time.perf_counter()
            try:
                value = read()
            except (OSError, ValueError) as exc:
                log.lost = str(exc)[:200]
                return
            ended = time.perf_counter()
            log.arrivals.append(Arrival((begun + ended) / 2, (begun + ended) / 2, value))
            stop.wait(max(0.0, PLUG_POLL_S - (ended - begun)))

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield log
    finally:
        stop.set()
        thread.join(PLUG_TIMEOUT_S + STOP_S)


@contextmanager
def following(command: Sequence[str]) -> Iterator[Log]:
    """Take the lines `seconds,watts` that a command prints while the body runs.

    Its seconds are of a clock of its own.

    Raises:
        DeviceError: the command cannot be started.
    """
    log = Log()
    try:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError as exc:
        raise DeviceError(f"[power] command: {command[0]}: {exc.strerror}") from exc
    reader = threading.Thread(target=_take_lines, args=(process, log), daemon=True)
    reader.start()
    try:
        yield log
    finally:
        ended = process.poll() is not None
        _stop(process, reader)
        log.lost = log.lost if ended else ""


def _take_lines(process: subprocess.Popen[str], log: Log) -> None:
    for line in process.stdout or ():
        reading = parse_reading(line)
        if reading is not None:
            log.arrivals.append(Arrival(time.perf_counter(), *reading))
    log.lost = f"the command ended with exit code {process.wait()}"


def _stop(process: subprocess.Popen[str], reader: threading.Thread) -> None:
    """End a command, kindly first."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    reader.join(STOP_S)
    if process.stdout and not reader.is_alive():
        process.stdout.close()
