"""Energy of one inference on a board: find the meter, let the agent loop the models, relate the readings to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.core.answers import number, read_fields
from edgeprune.core.formats import AUTO
from edgeprune.core.measuring.energy import METER, Energy, Meter, find_energies, make_readings, parse_windows
from edgeprune.core.measuring.measurement import NO_POWER_SENSOR
from edgeprune.core.measuring.readings import Arrival, find_problem
from edgeprune.core.target import COMMAND, PowerSource, Target
from edgeprune.device.agent.client import ask_agent, understood
from edgeprune.device.agent.measure import push_models
from edgeprune.device.board import ModelFile
from edgeprune.device.connect import Device
from edgeprune.device.meters import Log, describe_command, find_demand, is_external, open_external, try_external
from edgeprune.errors import TargetError

ELSEWHERE = "elsewhere"
REMEDY = (
    "on x86 let RAPL be read (sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj); on a Raspberry Pi 5 put the "
    'user into the group "video"; name one of several sensors ([power] sensor), a plug ([power] meter = "shelly" or '
    '"tasmota") or a command ([power] meter = "command"); or leave energy_mj out of gates and budget'
)
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Alignment:
    """Moments at which the board told its clock: pairs of its time and ours, both in s."""

    pairs: list[tuple[float, float]]

    @property
    def ahead_s(self) -> float:
        """What to take off our time to get the board's: from the mark that came with the least delay."""
        return min((ours - theirs for theirs, ours in self.pairs), default=0.0)


def check_meter(device: Device, target: Target) -> str:
    """Make sure, before anything slow begins, that there is the meter that the target, its gates or its budget need.

    Gives the meter's name, or "no power sensor" where nothing asks for one.

    Raises:
        TargetError: a gate or budget of energy without a meter, or a named meter that cannot be read; says what to do.
    """
    demand, meter = find_demand(target), device.facts.power_meter
    if target.power.meter == AUTO and not demand:
        return meter
    if target.power.meter == AUTO and meter == NO_POWER_SENSOR:
        raise TargetError(f"target {target.name}: {demand}, but {device.facts.host} has {meter}: {REMEDY}")
    return try_external(target.power).name if is_external(target.power) else _try_on_board(device, target)


def _try_on_board(device: Device, target: Target) -> str:
    source = target.power
    own = describe_command(source.command) if source.meter == COMMAND else None
    request = {"command": "meter", "meter": source.meter, "sensor": source.sensor, "run": list(source.command)}
    row = ask_agent(device.agent, request)
    where = f"target {target.name}: [power] meter = {source.meter!r}: {device.facts.host}"
    missing = row.get("problem") or ("" if own or row.get("meter") else NO_POWER_SENSOR)
    if missing:
        raise TargetError(f"{where}: {missing}; {REMEDY}")
    meter = own or _parse_meter(device, row.get("meter"))
    problem = find_problem(_parse_arrivals(device, row), meter.unit)
    if problem:
        raise TargetError(f"{where}: {meter.name}: {problem}")
    return meter.name


def _parse_arrivals(device: Device, row: Mapping[str, Any]) -> list[Arrival]:
    with understood(device.facts.host, "its power meter's readings"):
        return [Arrival(number(came), number(at), number(value)) for came, at, value in row.get("arrivals") or ()]


def measure_energy(
    device: Device, models: Sequence[ModelFile], target: Target, progress: Progress
) -> dict[str, Energy]:
    """Energy of one inference by model name, from a run of its own; empty where there is no power sensor.

    Raises:
        RuntimeMissing: the board lacks a runtime.
        TargetError: the meter that the target names cannot be read.
        DeviceError: anything else that goes wrong there.
    """
    source = target.power
    if not models or (source.meter == AUTO and device.facts.power_meter == NO_POWER_SENSOR):
        return {}
    request = {
        "command": "energy",
        **push_models(device, models),
        "threads": target.threads,
        "seconds": target.protocol.min_duration_s,
        "meter": source.meter,
        "sensor": source.sensor,
        "run": list(source.command),
    }
    if is_external(source):
        return _measure_elsewhere(device, source, request, progress)
    own = describe_command(source.command) if source.meter == COMMAND else None
    row = ask_agent(device.agent, request | (_pace(own) if own else {}), progress)
    meter = own or _parse_meter(device, row.get("meter"))
    log = Log(_parse_arrivals(device, row), str(row.get("lost") or ""))
    return _find(device, meter, row, log)


def _pace(meter: Meter) -> dict[str, float]:
    """What an agent must know of a meter that it does not describe itself."""
    return {"poll_s": meter.poll_s, "least_s": meter.window_s}


def _measure_elsewhere(
    device: Device, source: PowerSource, request: dict[str, Any], progress: Progress
) -> dict[str, Energy]:
    """The same with a meter that this machine reads, by its own clock."""
    meter, enter = open_external(source)
    request |= {"meter": ELSEWHERE, **_pace(meter)}
    alignment = Alignment([])
    with enter() as log:
        row = ask_agent(
            device.agent, request, progress, lambda at_s: alignment.pairs.append((at_s, time.perf_counter()))
        )
    return _find(device, meter, row, log, alignment.ahead_s)


def _find(device: Device, meter: Meter, row: Mapping[str, Any], log: Log, ahead_s: float = 0.0) -> dict[str, Energy]:
    """The energies; `ahead_s` is by how much the clock of the readings is ahead of the board's."""
    with understood(device.facts.host, "the energy run"):
        readings = [(at_s - ahead_s, value) for at_s, value in log.readings]
        problem = find_problem(log.arrivals, meter.unit)
        return find_energies(make_readings(meter, readings, log.lost, problem), parse_windows(row["windows"]))


def _parse_meter(device: Device, row: Any) -> Meter:
    with understood(device.facts.host, "its power meter"):
        return Meter(**read_fields(row, METER))
