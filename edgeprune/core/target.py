"""Targets: a kind of board with its runtime, budgets and gates, read strictly from TOML documents."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeprune.core.answers import LARGEST
from edgeprune.core.formats import (
    MIXED,
    RUNTIMES,
    list_int8_schemes,
    list_io_types,
    list_precisions,
    list_providers,
)
from edgeprune.core.measuring.measurement import Protocol
from edgeprune.core.planning.budget import Budget
from edgeprune.core.releasing.gate import LIMITS, METRICS, RELATIVE, Gate, check_direction
from edgeprune.core.text import suggest
from edgeprune.errors import TargetError

LAYOUTS = ("nchw", "nhwc")
FASTEST = "fastest"
"""In place of core numbers: as many of the fastest cores as there are threads."""
AUTO = "auto"
MOST_THREADS = 256
"""In place of a precision or a runtime: what ships is the fastest file, measured on the device, within the limits."""

BOARD_METERS = ("jetson", "hwmon", "rpi5", "odpm", "battery", "rapl")
"""Power meters that a board has itself; the agent finds the first of them for AUTO."""
PLUGS = ("shelly", "tasmota")
COMMAND = "command"
METERS = (AUTO, *BOARD_METERS, *PLUGS, COMMAND)
MOST_CORES = 1024
HERE, ON_DEVICE = "here", "device"


@dataclass(frozen=True)
class PowerSource:
    """Where readings of power come from: `meter` is one of METERS.

    `sensor` names one of several hwmon sensors by its chip, I2C address or label. `command` prints `seconds,watts`
    lines and runs `where`: HERE or ON_DEVICE. A plug's address is not part of a target: $EDGEPRUNE_PLUG.
    """

    meter: str = AUTO
    sensor: str = ""
    command: tuple[str, ...] = ()
    where: str = HERE


@dataclass(frozen=True)
class HardwareFact:
    """One fact about a kind of board and where it is written."""

    name: str
    value: str | int | float
    source: str


@dataclass(frozen=True)
class Target:
    """A kind of board + runtime + budget + gates; never an address, never a secret.

    `runtime` is a key of RUNTIMES or AUTO; `threads` is the number of inference threads; `precision` is what ships, one
    that the runtime's format has (all formats where the runtime is AUTO) or AUTO; `step` is the granularity of widths
    (channels).
    """

    name: str
    description: str
    runtime: str = "onnxruntime"
    precision: str = "fp32"
    threads: int = 1
    step: int = 4
    input_layout: str = "nchw"
    """One of LAYOUTS: how LiteRT files take images."""
    io: str = "float32"
    """What static int8 files take and give, as their format may; integers are what microcontrollers need."""
    int8_scheme: str = AUTO
    """One that the runtime's format has, or AUTO: what the device's instruction set computes right."""
    cores: tuple[int, ...] | str = ()
    """Cores to run on, or FASTEST; empty: wherever the kernel puts it."""
    provider: str = "cpu"
    """One that the runtime has. Nodes that it leaves to the CPU are an error unless `allow_fallback`."""
    allow_fallback: bool = False
    python: str = ""
    """Interpreter on the board that has the runtime; empty: the one `devices setup` made, else `python3`."""
    budget: Budget = Budget()
    gates: tuple[Gate, ...] = ()
    protocol: Protocol = Protocol()
    power: PowerSource = PowerSource()
    hardware: tuple[HardwareFact, ...] = ()
    file: str = field(default="", compare=False)
    """The file that it was given as; empty where its name finds it."""

    @property
    def option(self) -> str:
        """How a command names this target: for remedies, which a user copies."""
        return f"--target {shlex.quote(self.file or self.name)}"

    def __post_init__(self) -> None:
        """Reject what does not go together.

        Raises:
            TargetError: a precision or provider that the runtime does not have, or more threads than cores.
        """
        self._require(
            "provider", self.provider, [one.name for one in RUNTIMES.values() if self.provider in one.providers]
        )
        self._require("io", self.io, [one.name for one in RUNTIMES.values() if self.io in one.file_format.io_types])
        if AUTO not in (self.int8_scheme, self.runtime):
            schemes = [one.name for one in RUNTIMES.values() if self.int8_scheme in one.file_format.int8_schemes]
            self._require("int8_scheme", self.int8_scheme, schemes)
        if self.cores and self.cores != FASTEST and len(self.cores) < self.threads:
            raise TargetError(
                f"target {self.name}: cores: {list(self.cores)} for {self.threads} threads; name a core for each"
            )
        held = [RUNTIMES[name].file_format.precisions for name in self.runtimes]
        valid = (*(one for one in held[0] if all(one in others for others in held)), AUTO)
        if self.precision not in valid:
            raise TargetError(
                f"target {self.name}: precision: {self.precision!r} is not known for {self.runtime}"
                f"{suggest(self.precision, valid)}"
            )

    def _require(self, key: str, value: str, runtimes: Sequence[str]) -> None:
        """Reject a value that only these runtimes know, if any that may run what ships is not one of them."""
        lacking = next((name for name in self.runtimes if name not in runtimes), None)
        if lacking:
            raise TargetError(
                f"target {self.name}: {key}: {value!r} is for {' or '.join(runtimes)}; {lacking} does not know it; "
                f'leave {key} out, or write runtime = "{runtimes[0]}"'
            )

    @property
    def format(self) -> str:
        """File format of the runtime, which must not be open."""
        return RUNTIMES[self.runtime].format

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes that may run what ships."""
        return tuple(RUNTIMES) if self.runtime == AUTO else (self.runtime,)

    @property
    def fitted_precision(self) -> str:
        """Precision of the whole nets that are measured while the plan is made: what ships, fp32 for AUTO, and int8 for
        MIXED, as no layer is known to need float before the net is trained."""
        return {AUTO: "fp32", MIXED: "int8"}.get(self.precision, self.precision)

    @property
    def layer_precision(self) -> str:
        """Precision of the single layers in the latency table: whole nets in the fitted precision correct for it."""
        return "int8" if self.precision in ("int8", MIXED) else "fp32"


def parse_target(document: Mapping[str, Any], name: str, where: str) -> Target:
    """Read a target document.

    Raises:
        TargetError: unknown key, wrong type, value out of range; says where and what is expected.
    """
    allowed = {"description", "runtime", "precision", "threads", "step", "python", "cores", "provider"}
    allowed |= {"allow_fallback", "input_layout", "io", "int8_scheme"}
    _check_keys(document, allowed | {"budget", "gates", "protocol", "power", "hardware"}, where)
    _choice(document, "runtime", (*RUNTIMES, AUTO), where)
    _choice(document, "precision", (*list_precisions(), AUTO), where)
    _choice(document, "provider", list_providers(), where)
    _choice(document, "input_layout", LAYOUTS, where)
    _choice(document, "io", list_io_types(), where)
    _choice(document, "int8_scheme", (*list_int8_schemes(), AUTO), where)
    plain = {key: document[key] for key in allowed if key in document}
    for key in ("description", "python"):
        _typed(plain, key, str, where)
    for key in ("threads", "step"):
        _positive(plain, key, int, where)
    if plain.get("threads", 1) > MOST_THREADS:
        raise TargetError(f"{where}: threads: {plain['threads']}; expected {MOST_THREADS} at most")
    if not isinstance(plain.get("allow_fallback", False), bool):
        raise TargetError(f"{where}: allow_fallback: {plain['allow_fallback']!r} has the wrong type; expected true")
    if "cores" in plain:
        plain["cores"] = _parse_cores(plain["cores"], where)
    if "description" not in plain:
        raise TargetError(f"{where}: 'description' is missing; say in a line what board this is")
    return Target(
        name=name,
        **plain,
        budget=_parse_budget(document.get("budget", {}), f"{where}: budget"),
        gates=parse_gates(document.get("gates", []), f"{where}: gates"),
        protocol=_parse_protocol(document.get("protocol", {}), f"{where}: protocol"),
        power=_parse_power(document.get("power", {}), f"{where}: power"),
        hardware=_parse_hardware(document.get("hardware", {}), f"{where}: hardware"),
    )


def _parse_cores(value: Any, where: str) -> tuple[int, ...] | str:
    if value == FASTEST:
        return FASTEST
    numbers = value if isinstance(value, list) else []
    if not numbers or not all(type(one) is int and 0 <= one < MOST_CORES for one in numbers):
        raise TargetError(f'{where}: cores: {value!r}: expected core numbers, as [4, 5], or "{FASTEST}"')
    if len(set(numbers)) != len(numbers):
        raise TargetError(f"{where}: cores: {value!r} names a core twice")
    return tuple(numbers)


def parse_gates(rows: Any, where: str) -> tuple[Gate, ...]:
    """Read `[[gates]]` rows.

    Raises:
        TargetError: unknown metric or key, or not exactly one limit.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TargetError(f"{where}: expected a list of tables; write each as [[gates]]")
    return tuple(_parse_gate(row, where) for row in rows)


def _parse_gate(row: Mapping[str, Any], where: str) -> Gate:
    limits = ("at_most", "at_least", "max_regression")
    _check_keys(row, {"metric", *limits}, where)
    metric = row.get("metric")
    if not isinstance(metric, str) or metric not in METRICS:
        raise TargetError(f"{where}: unknown metric {metric!r}{suggest(str(metric), METRICS)}")
    given = [key for key in limits if key in row]
    if len(given) != 1:
        raise TargetError(f"{where}: {metric}: exactly one of {', '.join(limits)} is needed, found {len(given)}")
    _number(row, given[0], f"{where}: {metric}")
    limit: dict[str, Any] = {given[0]: float(row[given[0]])}
    gate, better = Gate(metric, **limit), METRICS[metric]
    if given[0] == "max_regression" and metric in RELATIVE:
        raise TargetError(f"{where}: {metric}: is held against the original already; write {LIMITS[better]}")
    if gate.max_regression is not None and abs(gate.max_regression) >= 1:
        raise TargetError(f"{where}: {metric}: max_regression: {row[given[0]]!r} is no fraction; 5 % is 0.05")
    if better:
        check_direction(gate, better, f"{where}: {metric}: {better} is better")
    return gate


def _parse_budget(table: Any, where: str) -> Budget:
    number = (int, float)
    kinds: dict[str, Any] = {"latency_ms": number, "speedup": number, "confidence": number, "energy_mj": number}
    kinds |= dict.fromkeys(("parameters", "file_bytes", "macs", "activation_bytes"), int)
    _check_table(table, set(kinds), where)
    for key in table:
        _positive(table, key, kinds[key], where)
    if {"latency_ms", "speedup"} <= set(table):
        raise TargetError(f"{where}: give latency_ms or speedup, not both")
    if not 0.5 <= table.get("confidence", 0.5) < 1:
        raise TargetError(f"{where}: confidence: {table['confidence']!r} must be at least 0.5 and below 1")
    read: dict[str, Any] = {key: value if kinds[key] is int else float(value) for key, value in table.items()}
    return Budget(**read)


def _parse_protocol(table: Any, where: str) -> Protocol:
    number = (int, float)
    kinds: dict[str, Any] = dict.fromkeys(("min_samples", "rounds", "processes"), int)
    kinds |= {"min_duration_s": number, "max_warmup_s": number}
    kinds |= {"start_temperature_c": number, "max_cooldown_s": number}
    _check_table(table, set(kinds), where)
    for key in table:
        _positive(table, key, kinds[key], where)
    return Protocol(**table)


def _parse_power(table: Any, where: str) -> PowerSource:
    _check_table(table, {"meter", "sensor", "command", "where"}, where)
    for key in ("meter", "sensor", "where"):
        _typed(table, key, str, where)
    _choice(table, "meter", METERS, where)
    _choice(table, "where", (HERE, ON_DEVICE), where)
    meter, command = table.get("meter", AUTO), table.get("command", [])
    if not isinstance(command, list) or not all(isinstance(word, str) and word for word in command):
        raise TargetError(f'{where}: command: expected a list of words, as ["python3", "meter.py"]')
    if bool(command) != (meter == COMMAND):
        raise TargetError(f'{where}: meter = "command" and command = [...] belong together')
    if "sensor" in table and meter != "hwmon":
        raise TargetError(f'{where}: sensor: only meter = "hwmon" has several; found meter = {meter!r}')
    if "where" in table and meter != COMMAND:
        raise TargetError(f'{where}: where: only meter = "command" has one; found meter = {meter!r}')
    return PowerSource(meter, table.get("sensor", ""), tuple(command), table.get("where", HERE))


def _parse_hardware(table: Any, where: str) -> tuple[HardwareFact, ...]:
    if not isinstance(table, dict):
        raise TargetError(f"{where}: expected a table")
    facts = []
    for name, fact in table.items():
        if not isinstance(fact, dict) or set(fact) != {"value", "source"} or not fact["source"]:
            raise TargetError(f'{where}: {name}: expected {{ value = ..., source = "..." }}; every fact has a source')
        facts.append(HardwareFact(name, fact["value"], str(fact["source"])))
    return tuple(facts)


def _check_table(table: Any, allowed: Collection[str], where: str) -> None:
    if not isinstance(table, dict):
        raise TargetError(f"{where}: expected a table")
    _check_keys(table, allowed, where)


def _check_keys(table: Mapping[str, Any], allowed: Collection[str], where: str) -> None:
    for key in table:
        if key not in allowed:
            raise TargetError(f"{where}: unknown key {key!r}{suggest(key, allowed)}")


def _choice(table: Mapping[str, Any], key: str, valid: Collection[str], where: str) -> None:
    value = table.get(key)
    if key in table and value not in valid:
        raise TargetError(f"{where}: {key}: {value!r} is not known{suggest(str(value), valid)}")


def _typed(table: Mapping[str, Any], key: str, kind: Any, where: str) -> None:
    if key in table and (not isinstance(table[key], kind) or isinstance(table[key], bool)):
        raise TargetError(f"{where}: {key}: {table[key]!r} has the wrong type")


def _number(table: Mapping[str, Any], key: str, where: str) -> None:
    _typed(table, key, (int, float), where)
    if not abs(table[key]) < LARGEST:
        raise TargetError(f"{where}: {key}: must be finite")


def _positive(table: Mapping[str, Any], key: str, kind: Any, where: str) -> None:
    _typed(table, key, kind, where)
    if key in table and not 0 < table[key] < LARGEST:
        raise TargetError(f"{where}: {key}: {table[key]!r} must be above zero, and finite")
