"""A microcontroller over a serial line: its firmware holds one net, and times it by the board's own counter."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from edgeprune.core.cost import MS
from edgeprune.core.formats import RUNTIMES
from edgeprune.core.measuring.energy import Energy
from edgeprune.core.measuring.measurement import NO_POWER_SENSOR, Conditions, DeviceFacts, Measurement, Protocol
from edgeprune.core.measuring.validity import find_problems
from edgeprune.core.measuring.windows import Window
from edgeprune.core.progress import Count
from edgeprune.core.target import Target
from edgeprune.device.board import ModelFile, Progress, Session, name_setting
from edgeprune.device.meters import find_demand, is_external, try_external
from edgeprune.device.serial.commands import MOST_RUNS, Firmware, identify, infer, load, read_output
from edgeprune.device.serial.energy import measure_energy
from edgeprune.device.serial.line import Line, open_line, persist
from edgeprune.device.transports.address import SerialAddress
from edgeprune.errors import DeviceError, TargetError, UsageError

FORMAT = "tflite"
LONGEST_INFERENCE_S = 60.0
"""How long the first inference may take; later ones SLACK times as long as that."""
SLACK = 3.0
LONGEST_START_S = 10.0
SEED = 0
"""Of the input that files are timed on."""
ONE_NET = "its firmware holds one net; layers and other nets need firmware of their own (docs/serial.md)"
LACKS = {
    "time_probes": ONE_NET,
    "energy": "nothing over the line tells of power; name a meter that this machine reads, [power] (docs/power.md)",
    "nodes": "its firmware times whole nets",
    "sustain": "nothing there gets hot in a minute, or throttles",
}


@dataclass(frozen=True)
class SerialBoard:
    """A :class:`Board` whose firmware speaks the commands of docs/serial.md. Each start of it is a process."""

    line: Line
    target: Target
    firmware: Firmware
    unit: str = MS

    @property
    def facts(self) -> DeviceFacts:
        """What its firmware says, and the target of its core."""
        hardware = {fact.name: str(fact.value) for fact in self.target.hardware}
        return DeviceFacts(
            host=self.line.name,
            machine=hardware.get("core", ""),
            model=self.firmware.board,
            cpu=hardware.get("core", self.firmware.board),
            cores=1,
            cpu_flags=(),
            memory_mib=0,
            os="",
            kernel="",
            python="",
            runtimes={self.firmware.runtime: self.firmware.runtime},
            host_key=self.line.name,
        )

    @property
    def lacks(self) -> Mapping[str, str]:
        """All but timing and running the net of its firmware, and its energy where this machine reads a meter."""
        if is_external(self.target.power):
            return {name: reason for name, reason in LACKS.items() if name != "energy"}
        return LACKS

    @property
    def is_remote(self) -> bool:
        """It is never this machine."""
        return True

    def runtime_version(self, runtime: str) -> str:
        """What its firmware was made by, for files of its format."""
        return self.firmware.runtime if RUNTIMES[runtime].format == FORMAT else ""

    def check_power(self, target: Target) -> str:
        """The meter beside the board that the target names; TargetError where one is needed and none is named."""
        if is_external(target.power):
            return try_external(target.power).name
        if demand := find_demand(target):
            raise TargetError(f"target {target.name}: {demand}, but {self.line.name}: {LACKS['energy']}")
        return NO_POWER_SENSOR

    def time(
        self, models: Sequence[ModelFile], threads: int, protocol: Protocol, progress: Progress
    ) -> dict[str, Measurement]:
        """Latency of the net that its firmware holds, over several starts of the board.

        Raises:
            DeviceError: it holds another net, or a file is asked for that it cannot hold too.
        """
        model = self._check_net(models)
        starts = _Starts(self, protocol)
        for start in range(protocol.processes):
            persist(self.line, lambda number=start: starts.take(number))  # type: ignore[misc]
            progress(Count(f"start {start + 1} of {protocol.processes} of {self.firmware.board}"))
        return {model.name: _describe(model, starts, self.facts)}

    def run(self, model: ModelFile, inputs: np.ndarray, progress: Progress) -> np.ndarray:
        """Outputs `[N, bytes]` in int8 of the net for int8 inputs `[N, ...]`.

        Raises:
            DeviceError: it holds another net, or the inputs are not int8 of its size.
        """
        self._check_net([model])
        rows = inputs.reshape(len(inputs), -1)
        if rows.dtype != np.int8 or rows.shape[1] != self.firmware.input_bytes:
            raise DeviceError(
                f"{self.line.name}: its net takes {self.firmware.input_bytes} values of int8, found {rows.shape[1]} of "
                f'{rows.dtype}; ship with io = "int8" in the target'
            )
        outputs = []
        for number, row in enumerate(rows, 1):
            outputs.append(persist(self.line, lambda values=row: self._answer(values)))  # type: ignore[misc]
            progress(Count(f"input {number} of {len(rows)} over the line"))
        return np.stack(outputs)

    def energy(self, models: Sequence[ModelFile], target: Target, progress: Progress) -> dict[str, Energy]:
        """Energy of the net of its firmware; empty where the target names no meter that this machine reads.

        Raises:
            DeviceError: it holds another net, the line fails, or the meter's command cannot be started.
        """
        if not is_external(target.power):
            return {}
        model, line = self._check_net(models), self.line
        load(line, self._draw_input())
        first_s = infer(line, 1, LONGEST_INFERENCE_S)[0] / self.firmware.tick_hz
        runs = count_runs(1e3 * first_s)
        progress(f"energy of {model.name} by the meter that the target names")
        energy = measure_energy(
            target.power,
            model.name,
            lambda: len(infer(line, runs, SLACK * first_s)),
            target.protocol.min_duration_s,
        )
        return {model.name: energy}

    def _draw_input(self) -> np.ndarray:
        """The input that files are timed on."""
        return np.random.default_rng(SEED).integers(-128, 128, self.firmware.input_bytes, np.int8)

    def _answer(self, values: np.ndarray) -> np.ndarray:
        load(self.line, values)
        infer(self.line, 1, LONGEST_INFERENCE_S)
        return read_output(self.line, self.firmware)

    def _check_net(self, models: Sequence[ModelFile]) -> ModelFile:
        """The one file that its firmware was made from."""
        if len(models) != 1:
            raise DeviceError(f"{self.line.name}: cannot time {len(models)} files: {ONE_NET}")
        (model,) = models
        if model.sha256 != self.firmware.model_sha256:
            raise DeviceError(
                f"{self.line.name}: its firmware holds another net ({self.firmware.model_sha256[:12]}), expected that "
                f"of {model.path.name} ({model.sha256[:12]}); build and flash firmware of this file"
            )
        return model

    def _refuse(self, *_: Any) -> NoReturn:
        raise DeviceError(f"{self.line.name}: {ONE_NET}")

    time_probes = nodes = sustain = _refuse


def count_runs(first_ms: float) -> int:
    """So many inferences that they take half a second, by what the first one took."""
    return max(1, min(MOST_RUNS, int(500 / max(first_ms, 0.01))))


@dataclass
class _Starts:
    """Windows of a net by the number of the start that they were taken in."""

    board: SerialBoard
    protocol: Protocol

    def __post_init__(self) -> None:
        self.windows: dict[int, list[tuple[float, ...]]] = {}
        self.first_ms: dict[int, float] = {}

    def take(self, number: int) -> None:
        """All windows of one start; what a start gave before that was broken off does not count."""
        board, line = self.board, self.board.line
        line.restart(LONGEST_START_S)
        if identify(line) != board.firmware:
            raise DeviceError(f"{line.name}: other firmware answers than before; was the board flashed meanwhile?")
        load(line, board._draw_input())
        (self.first_ms[number],) = self._time(1, LONGEST_INFERENCE_S)
        self.windows[number] = []
        windows = self.windows[number]
        most_s = SLACK * self.first_ms[number] / 1e3
        least, least_ms = (-(-total // self.protocol.processes) for total in self._asked())
        while sum(len(own) for own in windows) < least or sum(sum(own) for own in windows) < least_ms:
            windows.append(self._time(count_runs(self.first_ms[number]), most_s))

    def _asked(self) -> tuple[int, float]:
        """Samples and ms in all that the protocol asks for."""
        return self.protocol.min_samples, self.protocol.min_duration_s * 1e3

    def _time(self, runs: int, most_s: float) -> tuple[float, ...]:
        ticks = infer(self.board.line, runs, most_s)
        return tuple(1e3 * count / self.board.firmware.tick_hz for count in ticks)


def _describe(model: ModelFile, starts: _Starts, facts: DeviceFacts) -> Measurement:
    """The measurement of a net: nothing is loaded at a start, as it lies in flash."""
    firmware, windows = (
        starts.board.firmware,
        [(number, own) for number in starts.windows for own in starts.windows[number]],
    )
    measurement = Measurement(
        artifact=model.name,
        sha256=model.sha256,
        runtime=model.runtime,
        runtime_version=firmware.runtime,
        device=facts.fingerprint,
        conditions=Conditions(threads=1, cores=1, notes=(f"timed by the board, {firmware.tick_hz:,} ticks a second",)),
        init_ms=0.0,
        first_ms=statistics.median(starts.first_ms.values()),
        warmup_runs=1,
        samples_ms=tuple(ms for _, own in windows for ms in own),
        peak_memory_mib=None,
        windows=tuple(
            Window(number, float(place), statistics.median(own), len(own), wall_ms=sum(own))
            for place, (number, own) in enumerate(windows)
        ),
        cold_starts_ms=tuple((0.0, first_ms) for first_ms in starts.first_ms.values()),
    )
    return replace(measurement, problems=find_problems(measurement, starts.protocol))


@contextmanager
def open_serial(address: SerialAddress, target: Target, session: Session) -> Iterator[SerialBoard]:
    """Open the line to a target's board, for this process alone.

    Raises:
        UsageError: the governor is to be set, or sizes of inputs are given.
        ConnectionFailed: there is no such port, or something else has it.
        DeviceError: nothing answers there, or another firmware does.
    """
    if option := name_setting(session):
        raise UsageError(f"{address}: {option} is for boards with an operating system; leave it out")
    with open_line(address) as line:
        yield SerialBoard(line, target, persist(line, lambda: identify(line)))
