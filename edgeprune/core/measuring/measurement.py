"""What was measured on a device, under which conditions, and whether it may be believed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import accumulate, chain
from math import ceil
from typing import Any

import numpy as np

from edgeprune.core.answers import Reader, count, each, named, number, optional, positive, read_fields, text
from edgeprune.core.cost import INSTRUCTIONS, MS
from edgeprune.core.measuring.energy import Energy
from edgeprune.core.measuring.spread import StudentSpread
from edgeprune.core.measuring.statistics import (
    SPARE,
    LatencySummary,
    least_samples,
    spread_percentile,
    summarise,
)
from edgeprune.core.measuring.windows import Window, keep_undisturbed

NO_POWER_SENSOR = "no power sensor"
MEDIAN = 50
TAIL_PERCENTS = (90, 95, 99)
"""Percentiles that are told beside the median."""


@dataclass(frozen=True)
class DeviceFacts:
    """One connected board, as it describes itself. What a board does not tell stays empty.

    `host` is "local" or the address; `host_key` the SSH host key's SHA256 fingerprint, empty when local.
    """

    host: str
    machine: str
    model: str
    cpu: str
    cores: int
    cpu_flags: tuple[str, ...]
    memory_mib: int
    os: str
    kernel: str
    python: str
    runtimes: dict[str, str]
    """Version by runtime name: "onnxruntime", "ai-edge-litert", "tflite-runtime"."""
    max_mhz: int | None = None
    host_key: str = ""
    power_meter: str = NO_POWER_SENSOR

    @property
    def is_remote(self) -> bool:
        """Whether the board is another machine than the one that asked it."""
        return bool(self.host_key)

    @property
    def fingerprint(self) -> str:
        """Short hash of what decides latency: machine, model, CPU, cores, clock, runtime versions; not the address."""
        deciding = (self.machine, self.model, self.cpu, self.cores, self.max_mhz, sorted(self.runtimes.items()))
        return hashlib.sha256(repr(deciding).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the fingerprint."""
        return {**asdict(self), "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class Conditions:
    """The state of the board around a measurement; lists run from start to end. Unknown is None or empty.

    `throttled` names what the firmware said (`under-voltage`, `frequency capped`, ...), empty when nothing.
    """

    threads: int
    affinity: tuple[int, ...] = ()
    cores: int = 0
    """How many cores the board has."""
    governor: str = ""
    frequency_mhz: tuple[float, ...] = ()
    temperature_c: tuple[float, ...] = ()
    throttled: tuple[str, ...] = ()
    load_average: tuple[float, ...] = ()
    others_cores: float | None = None
    """Processor time that others took while files were timed, in cores; here and below None where nothing tells."""
    stolen_cores: float | None = None
    """Of it what a hypervisor took."""
    stalled_share: float | None = None
    """Share of the time in which some task of the board waited for a core (PSI)."""
    arithmetic_us: tuple[float, ...] = ()
    """What a fixed loop of arithmetic took in each process that took turns: how far the board's own speed varied."""
    clock_resolution_ns: int | None = None
    overhead_us: float | None = None
    """What one empty turn of the timing loop costs."""
    too_warm_c: float | None = None
    """Temperature at which the wait for the protocol's start temperature was given up; None where it was reached."""
    notes: tuple[str, ...] = ()
    """What else the board said of itself: a phone's screen, charging and thermal state."""

    def describe(self) -> str:
        """For people, in a line; of clocks and temperatures the lowest and highest."""
        cores = ",".join(map(str, self.affinity))
        parts = [f"{self.threads} thread{'s' if self.threads > 1 else ''}", f"cores {cores}" if cores else ""]
        parts += [f"governor {self.governor}" if self.governor else "", _span(self.frequency_mhz, "MHz")]
        parts += [_span(self.temperature_c, "C"), self.describe_others(), *self.notes]
        return ", ".join(text for text in parts if text)

    def describe_others(self) -> str:
        """What others took of the board, and how far its speed varied from process to process; for people."""
        texts = [] if self.others_cores is None else [f"others took {self.others_cores:.2f} cores"]
        if len(self.arithmetic_us) > 1:
            spread = max(self.arithmetic_us) / min(self.arithmetic_us) - 1
            texts.append(f"a fixed loop of arithmetic varied by {spread:.1%} beside it")
        return ", ".join(texts)


@dataclass(frozen=True)
class Measurement:
    """Latency of one artifact on one device: raw samples and what they were taken under.

    `init_ms` (load and prepare), `first_ms` (first inference) and the steady state are apart; of several cold starts
    the first two are the medians, None where nothing tells them. `samples_ms` are those of all `windows`, in order.
    `problems` says why a run is not valid; a run with problems never passes a gate.
    """

    artifact: str
    sha256: str
    runtime: str
    runtime_version: str
    device: str
    conditions: Conditions
    init_ms: float | None
    first_ms: float | None
    warmup_runs: int
    samples_ms: tuple[float, ...]
    peak_memory_mib: float | None
    power: str = NO_POWER_SENSOR
    """The power meter, or why there is no figure of energy."""
    energy: Energy | None = None
    """From a run of its own; None where there was none."""
    windows: tuple[Window, ...] = ()
    """How the samples were taken: each window in its process, with what became of the processor meanwhile."""
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The shape of each input that it was run at."""
    cold_starts_ms: tuple[tuple[float, float], ...] = ()
    """Init and first inference of each cold start."""
    providers: dict[str, float] = field(default_factory=dict)
    """Share of the nodes that each execution provider ran, where another than the CPU was asked for."""
    runs_per_sample: int = 1
    """Of how many runs each sample is the mean; above 1 nothing is known of single runs, so there is no percentile."""
    unit: str = MS
    """That of the samples; instructions are exact, one sample for each input."""
    problems: tuple[str, ...] = field(default=())

    def find_lack(self, percent: float) -> str:
        """Why its samples do not tell a percentile of single runs; empty where they do, as of the median always."""
        if percent == MEDIAN:
            return ""
        if self.is_counted:
            return "instructions vary with the input alone: no percentile exists"
        if self.runs_per_sample > 1:
            return f"a sample is the mean of {self.runs_per_sample} runs: no percentile exists"
        least, fewest = least_samples(percent), min(map(len, self.samples_by_process.values()))
        if fewest >= least:
            return ""
        return f"p{percent:g} needs {least} samples of each process and there are {fewest}: raise min_samples"

    @property
    def is_counted(self) -> bool:
        """Whether it holds counts of instructions, which no other session would give otherwise."""
        return self.unit == INSTRUCTIONS

    @property
    def valid(self) -> bool:
        """Whether a gate may look at it."""
        return not self.problems

    @cached_property
    def steady_windows(self) -> tuple[Window, ...]:
        """The windows that figures rest on: those in which the processor was the run's own."""
        return keep_undisturbed(self.windows)

    @cached_property
    def samples_by_process(self) -> dict[int, tuple[float, ...]]:
        """The samples in ms that figures rest on, by process; all as of one where it is not known how they came."""
        if not self.windows:
            return {0: self.samples_ms}
        by_process: dict[int, list[float]] = {}
        ends, steady = accumulate(window.count for window in self.windows), set(self.steady_windows)
        for window, end in zip(self.windows, ends, strict=True):
            if window in steady:
                by_process.setdefault(window.process, []).extend(self.samples_ms[end - window.count : end])
        return {process: tuple(samples) for process, samples in by_process.items()}

    @property
    def steady_ms(self) -> tuple[float, ...]:
        """All samples in ms that figures rest on, in order."""
        return tuple(chain.from_iterable(self.samples_by_process.values()))

    @property
    def processor(self) -> dict[str, Any]:
        """Whose the processor was: shares of the time of all windows, and how many windows were disturbed."""
        wall_ms = sum(window.wall_ms for window in self.windows)
        waits = [window.waited_share for window in self.windows]
        has_waits = wall_ms > 0 and None not in waits
        waited_ms = sum((share or 0.0) * window.wall_ms for share, window in zip(waits, self.windows, strict=True))
        cpu_ms = sum(window.cpu_share * window.wall_ms for window in self.windows)
        return {
            "cpu_share": cpu_ms / wall_ms if wall_ms else None,
            "waited_share": waited_ms / wall_ms if has_waits else None,
            "switches": sum(window.switches for window in self.windows),
            "windows": len(self.windows),
            "disturbed_windows": sum(window.is_disturbed for window in self.windows),
        }

    def describe_processor(self) -> str:
        """Whose the processor was, for people."""
        figures = self.processor
        waited, disturbed, count = (figures[name] for name in ("waited_share", "disturbed_windows", "windows"))
        ready = (
            "how long it waited for a core is not told"
            if waited is None
            else f"had a core {1 - waited:.1%} of the time"
        )
        return f"{ready}, {disturbed} of {count} windows disturbed by others"

    @property
    def energy_mj(self) -> float | None:
        """Energy of one inference above idle; None where it was not measured or is not measurable."""
        return self.energy.energy_mj if self.energy else None

    @cached_property
    def latency(self) -> LatencySummary:
        """Percentiles, spread and interval of the steady state."""
        summary = summarise(tuple(self.samples_by_process.values()))
        untold: dict[str, Any] = {f"p{percent}_ms": None for percent in TAIL_PERCENTS if self.find_lack(percent)}
        if self.is_counted:
            untold |= {"median_low_ms": summary.p50_ms, "median_high_ms": summary.p50_ms}
        return replace(summary, **untold)

    @property
    def origin(self) -> str:
        """Where its figures come from: "measured" with a clock, or "counted"."""
        return "counted" if self.is_counted else "measured"

    def describe_latency(self) -> dict[str, float | None]:
        """The summary, JSON-ready; of counts the median and the range over inputs alone, as nothing varies."""
        summary = self.latency.to_dict()
        if not self.is_counted:
            return summary
        names = ("count", "min_ms", "p50_ms", "median_low_ms", "median_high_ms")
        return {**{name: summary[name] for name in names}, "max_ms": max(self.samples_ms)}

    def spread(self, percent: float = 50.0) -> StudentSpread:
        """How far a percentile of its latency may be from that of sessions like this one: of counts not at all."""
        samples = tuple(self.samples_by_process.values())
        if self.is_counted:
            return StudentSpread(float(np.percentile(self.samples_ms, percent)), 0.0)
        return spread_percentile(samples, percent)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; raw samples included, and what is made of the windows."""
        return {**asdict(self), "processor": self.processor}


@dataclass(frozen=True)
class Protocol:
    """How long and how often to measure.

    An artifact's samples are taken in `rounds` windows, in several fresh `processes` one after the other, in each of
    which all artifacts take turns. With `start_temperature_c` the board first cools down to it, for `max_cooldown_s` at
    most.
    """

    min_samples: int = 100
    min_duration_s: float = 2.0
    rounds: int = 64
    processes: int = 8
    max_warmup_s: float = 2.0
    start_temperature_c: float | None = None
    max_cooldown_s: float = 300.0

    def tell(self, percents: Collection[float]) -> Protocol:
        """This protocol with as many samples as these percentiles need in each process."""
        least = max((SPARE * least_samples(percent) for percent in percents if percent != MEDIAN), default=0)
        return replace(self, min_samples=max(self.min_samples, ceil(least * self.processes)))


def add_energy(measured: Mapping[str, Measurement], energies: Mapping[str, Energy]) -> dict[str, Measurement]:
    """The measurements with the energies of those that have one."""
    return {
        name: replace(measurement, energy=energies[name], power=energies[name].describe())
        if name in energies
        else measurement
        for name, measurement in measured.items()
    }


def _span(values: tuple[float, ...], unit: str) -> str:
    return f"{min(values):.0f} to {max(values):.0f} {unit}" if values else ""


CONDITIONS: dict[str, Reader[Any]] = {
    "threads": count,
    "affinity": each(count),
    "cores": count,
    "governor": text,
    "frequency_mhz": each(number),
    "temperature_c": each(number),
    "throttled": each(text),
    "load_average": each(number),
    "others_cores": optional(number),
    "stolen_cores": optional(number),
    "stalled_share": optional(number),
    "arithmetic_us": each(positive),
    "clock_resolution_ns": optional(count),
    "overhead_us": optional(number),
    "too_warm_c": optional(number),
    "notes": each(text),
}
"""How each field of `Conditions` is read."""
FACTS: dict[str, Reader[Any]] = {
    **dict.fromkeys(("host", "machine", "model", "cpu", "os", "kernel", "python", "host_key", "power_meter"), text),
    "cores": count,
    "cpu_flags": each(text),
    "memory_mib": count,
    "runtimes": named(text),
    "max_mhz": optional(count),
}
"""How each field of `DeviceFacts` is read."""
FIGURES: dict[str, Reader[Any]] = {
    "init_ms": number,
    "first_ms": number,
    "warmup_runs": count,
    "peak_memory_mib": optional(number),
    "providers": named(number),
    "inputs": named(each(count)),
    "cold_starts_ms": each(each(number)),
}
"""How those fields of `Measurement` are read that an agent tells as they are."""
WINDOW: dict[str, Reader[Any]] = {
    **dict.fromkeys(("process", "count", "switches"), count),
    **dict.fromkeys(("at_ns", "cpu_ns"), number),
    "wall_ns": positive,
    "waited_ns": optional(number),
}
"""How the fields of a window are read that an agent tells."""


def parse_figures(row: dict[str, Any]) -> dict[str, Any]:
    """What an agent says of one model, as fields of a `Measurement`; its samples come in ns.

    Raises:
        KeyError, TypeError, ValueError: it is not whole.
    """
    figures: dict[str, Any] = {name: read(row[name]) for name, read in FIGURES.items()}
    samples = tuple(positive(sample) / 1e6 for sample in each(positive)(row["samples_ns"]))
    rows = [read_fields(window, WINDOW) for window in row["windows"]]
    ends = list(accumulate(window["count"] for window in rows))
    if not all(window["count"] for window in rows) or not ends or ends[-1] != len(samples):
        raise ValueError(f"{len(samples)} samples in windows of {[window['count'] for window in rows]}"[:200])
    windows = tuple(
        _parse_window(window, samples[end - window["count"] : end]) for window, end in zip(rows, ends, strict=True)
    )
    return {**figures, "samples_ms": samples, "windows": windows, "conditions": parse_conditions(row["conditions"])}


def _parse_window(row: dict[str, Any], samples_ms: tuple[float, ...]) -> Window:
    waited_ns = row["waited_ns"]
    return Window(
        process=row["process"],
        at_s=row["at_ns"] / 1e9,
        p50_ms=float(np.median(samples_ms)),
        count=row["count"],
        wall_ms=row["wall_ns"] / 1e6,
        cpu_share=row["cpu_ns"] / row["wall_ns"],
        waited_share=None if waited_ns is None else waited_ns / row["wall_ns"],
        switches=row["switches"],
    )


def parse_measurement(row: dict[str, Any]) -> Measurement:
    """Read back what :meth:`Measurement.to_dict` gave."""
    conditions = parse_conditions(row["conditions"])
    energy = Energy(**row["energy"]) if row.get("energy") else None
    windows = tuple(Window(**window) for window in row["windows"])
    inputs = {name: tuple(shape) for name, shape in row["inputs"].items()}
    cold_starts_ms = tuple(tuple(pair) for pair in row["cold_starts_ms"])
    read = {"conditions": conditions, "energy": energy, "windows": windows, "inputs": inputs}
    stored = {name: value for name, value in row.items() if name != "processor"}
    return Measurement(**{**_tuples(stored), **read, "cold_starts_ms": cold_starts_ms})


def parse_conditions(row: dict[str, Any]) -> Conditions:
    """Read conditions as an agent tells them, and as :meth:`Measurement.to_dict` gave them.

    Raises:
        TypeError, ValueError: they are not whole.
    """
    return Conditions(**read_fields(row, CONDITIONS))


def parse_device_facts(row: dict[str, Any]) -> DeviceFacts:
    """Read back what :meth:`DeviceFacts.to_dict` gave."""
    return DeviceFacts(**_tuples({name: value for name, value in row.items() if name != "fingerprint"}))


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
