"""What was measured on a device, under which conditions, and whether it may be believed."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any

from edgeprune.core.answers import Reader, count, each, named, number, optional, positive, read_fields, text
from edgeprune.core.energy import Energy
from edgeprune.core.statistics import LatencySummary, drift, summarise

NO_POWER_SENSOR = "no power sensor"
DRIFT_LIMIT = 0.15
SPREAD_LIMIT = 0.15
"""Above these fractions of the median, drift or median absolute deviation make a run unstable."""


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
    governor: str = ""
    frequency_mhz: tuple[float, ...] = ()
    temperature_c: tuple[float, ...] = ()
    throttled: tuple[str, ...] = ()
    load_average: tuple[float, ...] = ()
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
        told = [f"{self.threads} thread{'s' if self.threads > 1 else ''}", f"cores {cores}" if cores else ""]
        told += [f"governor {self.governor}" if self.governor else "", _span(self.frequency_mhz, "MHz")]
        told += [_span(self.temperature_c, "C"), *self.notes]
        return ", ".join(text for text in told if text)


@dataclass(frozen=True)
class Measurement:
    """Latency of one artifact on one device: raw samples and what they were taken under.

    `init_ms` (load and prepare), `first_ms` (first inference) and the steady state are apart. `problems` says why
    a run is not valid; a run with problems never passes a gate.
    """

    artifact: str
    sha256: str
    runtime: str
    runtime_version: str
    device: str
    conditions: Conditions
    init_ms: float
    first_ms: float
    warmup_runs: int
    samples_ms: tuple[float, ...]
    peak_memory_mib: float | None
    power: str = NO_POWER_SENSOR
    """The power meter, or why there is no figure of energy."""
    energy: Energy | None = None
    """From a run of its own; None where there was none."""
    rounds: tuple[int, ...] = ()
    """How many of the samples each interleaved round took."""
    providers: dict[str, float] = field(default_factory=dict)
    """Share of the nodes that each execution provider ran, where another than the CPU was asked for."""
    problems: tuple[str, ...] = field(default=())

    @property
    def valid(self) -> bool:
        """Whether a gate may look at it."""
        return not self.problems

    @property
    def samples_by_round(self) -> tuple[tuple[float, ...], ...]:
        """The samples in ms, as the rounds took them."""
        ends = list(accumulate(self.rounds))
        return tuple(self.samples_ms[start:end] for start, end in zip([0, *ends], ends, strict=False))

    @property
    def energy_mj(self) -> float | None:
        """Energy of one inference above idle; None where it was not measured or is not measurable."""
        return self.energy.energy_mj if self.energy else None

    @property
    def latency(self) -> LatencySummary:
        """Percentiles, spread and interval of the steady state."""
        return summarise(self.samples_ms)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; raw samples included."""
        return asdict(self)


@dataclass(frozen=True)
class Protocol:
    """How long and how often to measure; an artifact's samples are taken in `rounds` interleaved windows.

    With `start_temperature_c` the board first cools down to it, for `max_cooldown_s` at most.
    """

    min_samples: int = 100
    min_duration_s: float = 2.0
    rounds: int = 10
    max_warmup_s: float = 2.0
    start_temperature_c: float | None = None
    max_cooldown_s: float = 300.0


def find_problems(measurement: Measurement, protocol: Protocol) -> tuple[str, ...]:
    """Why a run is invalid: too short, unstable, throttled. Empty when it is valid."""
    samples = measurement.samples_ms
    if not samples:
        return ("no samples",)
    found = []
    if len(samples) < protocol.min_samples and sum(samples) / 1e3 < protocol.min_duration_s:
        found.append(f"too short: {len(samples)} samples in {sum(samples) / 1e3:.2f} s")
    summary = summarise(samples)
    if summary.mad_ms > SPREAD_LIMIT * summary.p50_ms:
        found.append(f"unstable: spread (MAD) {summary.mad_ms / summary.p50_ms:.0%} of the median")
    if abs(drift(samples)) > DRIFT_LIMIT:
        found.append(f"unstable: the last third is {drift(samples):+.0%} against the first")
    found += find_heat(measurement.conditions)
    found += [f"throttled: {flag}" for flag in measurement.conditions.throttled]
    return tuple(found)


def find_heat(conditions: Conditions) -> list[str]:
    """Why the temperature that a run began at makes it invalid; empty where it does not."""
    too_warm = conditions.too_warm_c
    return [] if too_warm is None else [f"not cooled down: began at {too_warm:g} C"]


def _span(values: tuple[float, ...], unit: str) -> str:
    return f"{min(values):.0f} to {max(values):.0f} {unit}" if values else ""


CONDITIONS: dict[str, Reader[Any]] = {
    "threads": count,
    "affinity": each(count),
    "governor": text,
    "frequency_mhz": each(number),
    "temperature_c": each(number),
    "throttled": each(text),
    "load_average": each(number),
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
    "rounds": each(count),
    "providers": named(number),
}
"""How those fields of `Measurement` are read that an agent tells as they are."""


def parse_figures(row: dict[str, Any]) -> dict[str, Any]:
    """What an agent says of one model, as fields of a `Measurement`; its samples come in ns.

    Raises:
        KeyError, TypeError, ValueError: it is not whole.
    """
    found: dict[str, Any] = {name: read(row[name]) for name, read in FIGURES.items()}
    samples = tuple(positive(taken) / 1e6 for taken in each(positive)(row["samples_ns"]))
    if not all(found["rounds"]) or sum(found["rounds"]) != len(samples):
        raise ValueError(f"{len(samples)} samples in rounds of {found['rounds']}"[:200])
    return {**found, "samples_ms": samples, "conditions": parse_conditions(row["conditions"])}


def parse_measurement(row: dict[str, Any]) -> Measurement:
    """Read back what :meth:`Measurement.to_dict` gave."""
    conditions = parse_conditions(row["conditions"])
    energy = Energy(**row["energy"]) if row.get("energy") else None
    return Measurement(**{**_tuples(row), "conditions": conditions, "energy": energy})


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
