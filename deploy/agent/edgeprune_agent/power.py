"""Choosing a power meter, and reading it on a thread of its own while a model runs."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from edgeprune_agent.errors import AgentError, first_line
from edgeprune_agent.meter import Meter
from edgeprune_agent.meters_board import find_hwmon, find_jetson, find_rapl, find_rpi5
from edgeprune_agent.meters_phone import find_battery, find_odpm
from edgeprune_agent.power_parsers import parse_reading

METERS: dict[str, Callable[[str, str], Meter | None]] = {
    "jetson": find_jetson,
    "hwmon": find_hwmon,
    "rpi5": find_rpi5,
    "odpm": find_odpm,
    "battery": find_battery,
    "rapl": find_rapl,
}
"""How each kind is found; of those that are there, the first is taken."""
STOP_S = 5.0


class Log:
    """Readings as they come: when by our clock, their own time, both in s, and the value.

    `lost` says why they ended too soon.
    """

    def __init__(self) -> None:
        self.arrivals: list[tuple[float, float, float]] = []
        self.lost = ""


def find_meter(root: str) -> Meter | None:
    """The first meter that can be read."""
    for find in METERS.values():
        try:
            meter = find(root, "")
        except AgentError:
            continue
        if meter is not None:
            return meter
    return None


def choose_meter(root: str, name: str, sensor: str = "") -> Meter | None:
    """The meter of that name, or the first that can be read for "auto".

    Raises:
        AgentError: an unknown name, or one that several sensors answer to.
    """
    if name == "auto":
        return find_meter(root)
    if name not in METERS:
        raise AgentError("request", f"unknown meter {name!r}; expected auto, {', '.join(METERS)}")
    return METERS[name](root, sensor)


def sample(meter: Meter, log: Log, wait: Callable[[float], bool], clock: Callable[[], float]) -> None:
    """Read a meter until `wait` says that it is done, or until the meter is lost."""
    try:
        while True:
            begun = clock()
            value = meter.read()
            at_s = (begun + clock()) / 2
            log.arrivals.append((at_s, at_s, value))
            if wait(meter.poll_s):
                return
    except (OSError, ValueError) as exc:
        log.lost = first_line(exc)


@contextmanager
def sampling(meter: Meter | None) -> Iterator[Log]:
    """Read a meter on a thread while the body runs."""
    log, stop_event = Log(), threading.Event()
    if meter is None:
        yield log
        return
    sampler = threading.Thread(target=sample, args=(meter, log, stop_event.wait, time.perf_counter), daemon=True)
    sampler.start()
    try:
        yield log
    finally:
        stop_event.set()
        sampler.join(STOP_S)


@contextmanager
def following(command: Sequence[str]) -> Iterator[Log]:
    """Take the lines `seconds,watts` that a command prints while the body runs.

    Its seconds are of a clock of its own.

    Raises:
        AgentError: the command cannot be started.
    """
    log = Log()
    try:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError as exc:
        raise AgentError("meter", f"[power] command: {command[0]}: {exc.strerror}") from exc
    reader = threading.Thread(target=take_lines, args=(process, log.arrivals), daemon=True)
    reader.start()
    try:
        yield log
    finally:
        if process.poll() is not None:
            log.lost = f"{command[0]} ended with exit code {process.returncode}"
        stop(process, reader)


def take_lines(process: subprocess.Popen[str], arrivals: list[tuple[float, float, float]]) -> None:
    """Note when each reading came, its seconds and its watts."""
    for line in process.stdout or ():
        reading = parse_reading(line)
        if reading is not None:
            arrivals.append((time.perf_counter(), *reading))


def stop(process: subprocess.Popen[str], reader: threading.Thread) -> None:
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
