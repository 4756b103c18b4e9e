"""Targets: a kind of board with its runtime, budgets and gates, read strictly from TOML documents."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeprune.core.answers import LARGEST
from edgeprune.core.boards.flashing import parse_flash
from edgeprune.core.formats import (
    AUTO,
    MIXED,
    MOST_THREADS,
    RUNTIMES,
    Runtime,
    list_board_runtimes,
    list_int8_schemes,
    list_io_types,
    list_precisions,
    list_providers,
)
from edgeprune.core.measuring.measurement import Protocol
from edgeprune.core.memory.size import MemorySize
from edgeprune.core.planning.budget import Budget
from edgeprune.core.releasing.gate import LIMITS, METRICS, PERCENTILES, RELATIVE, Gate, check_direction
from edgeprune.core.releasing.regression import DIRECTIONS, OVER, RegressionLimit
from edgeprune.core.text import parse_bytes, suggest
from edgeprune.errors import TargetError

LAYOUTS = ("nchw", "nhwc")
FASTEST = "fastest"
"""In place of core numbers: as many of the fastest cores as there are threads."""

BOARD_METERS = ("jetson", "hwmon", "rpi5", "odpm", "battery", "rapl")
"""Power meters that a board has itself; the agent finds the first of them for AUTO."""
PLUGS = ("shelly", "tasmota")
COMMAND = "command"
METERS = (AUTO, *BOARD_METERS, *PLUGS, COMMAND)
MOST_CORES = 1024
HERE, ON_DEVICE = "here", "device"

PLAIN_KEYS = {"description", "runtime", "precision", "threads", "step", "python", "cores", "provider"}
PLAIN_KEYS |= {"allow_fallback", "input_layout", "io", "int8_scheme", "flash"}
"""Keys of a target document that stand in no table."""
TABLES = {"budget", "gates", "baseline", "protocol", "power", "hardware", "memory"}
NUMBER = (int, float)
MEMORY = ("sram_bytes", "flash_bytes")
GATE_LIMITS = ("at_most", "at_least", "max_regression")


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
    flash: tuple[str, ...] = ()
    """What brings a firmware onto a board (`parse_flash`); empty: the user does."""
    budget: Budget = Budget()
    gates: tuple[Gate, ...] = ()
    baseline: tuple[RegressionLimit, ...] = ()
    """What a run is held to against a baseline, where not to the default limits."""
    protocol: Protocol = Protocol()
    power: PowerSource = PowerSource()
    hardware: tuple[HardwareFact, ...] = ()
    memory: MemorySize | None = None
    """What a microcontroller has for a program; None where an operating system deals it out."""
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
        self._check_known("provider", self.provider, lambda runtime: runtime.providers)
        self._check_known("io", self.io, lambda runtime: runtime.file_format.io_types)
        is_settled = AUTO not in (self.int8_scheme, self.runtime)
        if is_settled:
            self._check_known("int8_scheme", self.int8_scheme, lambda runtime: runtime.file_format.int8_schemes)
        self._check_cores()
        self._check_precision()

    def _check_known(self, key: str, value: str, list_known: Callable[[Runtime], Collection[str]]) -> None:
        """Reject a value that not every runtime which may run what ships knows."""
        knowing = [name for name, runtime in RUNTIMES.items() if value in list_known(runtime)]
        lacking = [name for name in self.runtimes if name not in knowing]
        if lacking:
            raise TargetError(
                f"target {self.name}: {key}: {value!r} is for {' or '.join(knowing)}; {lacking[0]} does not know it; "
                f'leave {key} out, or write runtime = "{knowing[0]}"'
            )

    def _check_cores(self) -> None:
        """Reject a list of cores that is shorter than the number of threads."""
        is_list = self.cores not in ((), FASTEST)
        if is_list and len(self.cores) < self.threads:
            raise TargetError(
                f"target {self.name}: cores: {list(self.cores)} for {self.threads} threads; name a core for each"
            )

    def _check_precision(self) -> None:
        """Reject a precision that not every runtime which may run what ships has."""
        first, *others = (RUNTIMES[name].file_format.precisions for name in self.runtimes)
        shared = [precision for precision in first if all(precision in precisions for precisions in others)]
        if self.precision not in (*shared, AUTO):
            raise TargetError(
                f"target {self.name}: precision: {self.precision!r} is not known for {self.runtime}"
                f"{suggest(self.precision, (*shared, AUTO))}"
            )

    @property
    def judged_percentiles(self) -> tuple[float, ...]:
        """The percentiles of latency that its gates, and its limits against a baseline, look at."""
        judged = {gate.metric for gate in self.gates} | {limit.metric for limit in self.baseline}
        return tuple(percent for name, percent in PERCENTILES.items() if name in judged)

    @property
    def format(self) -> str:
        """File format of the runtime, which must not be open."""
        return RUNTIMES[self.runtime].format

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes that may run what ships."""
        return list_board_runtimes() if self.runtime == AUTO else (self.runtime,)

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
    _check_keys(document, PLAIN_KEYS | TABLES, where)
    return Target(
        name=name,
        **_parse_plain(document, where),
        budget=_parse_budget(document.get("budget", {}), f"{where}: budget"),
        gates=parse_gates(document.get("gates", []), f"{where}: gates"),
        baseline=parse_regression_limits(document.get("baseline", []), f"{where}: baseline"),
        protocol=_parse_protocol(document.get("protocol", {}), f"{where}: protocol"),
        power=_parse_power(document.get("power", {}), f"{where}: power"),
        hardware=_parse_hardware(document.get("hardware", {}), f"{where}: hardware"),
        memory=_parse_memory(document["memory"], f"{where}: memory") if "memory" in document else None,
    )


def _parse_plain(document: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keys that stand in no table."""
    for key, valid in _list_choices().items():
        _choice(document, key, valid, where)
    plain = {key: document[key] for key in PLAIN_KEYS if key in document}
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
    if "flash" in plain:
        plain["flash"] = parse_flash(plain["flash"], where)
    if "description" not in plain:
        raise TargetError(f"{where}: 'description' is missing; say in a line what board this is")
    return plain


def _list_choices() -> dict[str, tuple[str, ...]]:
    """The words that may stand at each key which takes one of several."""
    return {
        "runtime": (*RUNTIMES, AUTO),
        "precision": (*list_precisions(), AUTO),
        "provider": list_providers(),
        "input_layout": LAYOUTS,
        "io": list_io_types(),
        "int8_scheme": (*list_int8_schemes(), AUTO),
    }


def _parse_cores(value: Any, where: str) -> tuple[int, ...] | str:
    if value == FASTEST:
        return FASTEST
    if not isinstance(value, list) or not value or not all(map(_is_core, value)):
        raise TargetError(f'{where}: cores: {value!r}: expected core numbers, as [4, 5], or "{FASTEST}"')
    if len(set(value)) != len(value):
        raise TargetError(f"{where}: cores: {value!r} names a core twice")
    return tuple(value)


def _is_core(number: Any) -> bool:
    return _is_of(number, int) and 0 <= number < MOST_CORES


def parse_gates(rows: Any, where: str) -> tuple[Gate, ...]:
    """Read `[[gates]]` rows.

    Raises:
        TargetError: unknown metric or key, or not exactly one limit.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TargetError(f"{where}: expected a list of tables; write each as [[gates]]")
    return tuple(_parse_gate(row, where) for row in rows)


def _parse_gate(row: Mapping[str, Any], where: str) -> Gate:
    _check_keys(row, {"metric", *GATE_LIMITS}, where)
    metric = row.get("metric")
    if not isinstance(metric, str) or metric not in METRICS:
        raise TargetError(f"{where}: unknown metric {metric!r}{suggest(str(metric), METRICS)}")
    limits = [key for key in GATE_LIMITS if key in row]
    if len(limits) != 1:
        raise TargetError(f"{where}: {metric}: exactly one of {', '.join(GATE_LIMITS)} is needed, found {len(limits)}")
    (key,) = limits
    _number(row, key, f"{where}: {metric}")
    limit: dict[str, Any] = {key: float(row[key])}
    gate = Gate(metric, **limit)
    _check_limit(gate, f"{where}: {metric}")
    return gate


def _check_limit(gate: Gate, where: str) -> None:
    """Reject a limit that its metric cannot mean."""
    better, regression = METRICS[gate.metric], gate.max_regression
    if regression is not None and gate.metric in RELATIVE:
        raise TargetError(f"{where}: is held against the original already; write {LIMITS[better]}")
    if regression is not None and abs(regression) >= 1:
        raise TargetError(f"{where}: max_regression: {regression:g} is no fraction; 5 % is 0.05")
    if better:
        check_direction(gate, better, f"{where}: {better} is better")


def parse_regression_limits(rows: Any, where: str) -> tuple[RegressionLimit, ...]:
    """Read `[[baseline]]` rows: a metric with `max_regression`, `floor` or both, and perhaps `over`.

    Raises:
        TargetError: unknown metric or key, no limit, one below zero, or a metric that is named twice.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TargetError(f"{where}: expected a list of tables; write each as [[baseline]]")
    limits = tuple(_parse_regression_limit(row, where) for row in rows)
    names = [limit.metric for limit in limits]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TargetError(f"{where}: {twice} has two rows; write one with max_regression and floor")
    return limits


def _parse_regression_limit(row: Mapping[str, Any], where: str) -> RegressionLimit:
    _check_keys(row, {"metric", "max_regression", "floor", "over"}, where)
    metric = row.get("metric")
    if not isinstance(metric, str) or metric not in DIRECTIONS:
        raise TargetError(f"{where}: unknown metric {metric!r}{suggest(str(metric), DIRECTIONS)}")
    place = f"{where}: {metric}"
    limits = {key: row[key] for key in ("max_regression", "floor") if key in row}
    if not limits:
        raise TargetError(f"{place}: no limit; write max_regression (a fraction), floor (in its unit), or both")
    for key in limits:
        _number(row, key, place)
        if row[key] < 0:
            raise TargetError(f"{place}: {key}: {row[key]:g} is below zero; 0 allows nothing worse")
    if row.get("max_regression", 0) >= 1:
        raise TargetError(f"{place}: max_regression: {row['max_regression']:g} is no fraction; 5 % is 0.05")
    _choice(row, "over", tuple(OVER), place)
    return RegressionLimit(metric, over=row.get("over", ""), **{key: float(value) for key, value in limits.items()})


def _parse_budget(table: Any, where: str) -> Budget:
    numbers = ("latency_ms", "speedup", "confidence", "energy_mj")
    counts = ("instructions", "parameters", "file_bytes", "macs", "activation_bytes", "sram_bytes", "flash_bytes")
    table = _read_bytes(table, ("sram_bytes", "flash_bytes"), where)
    _check_figures(table, numbers, counts, where)
    if len(costs := [name for name in ("latency_ms", "instructions", "speedup") if name in table]) > 1:
        raise TargetError(f"{where}: give {costs[0]} or {costs[1]}, not both")
    if not 0.5 <= table.get("confidence", 0.5) < 1:
        raise TargetError(f"{where}: confidence: {table['confidence']!r} must be at least 0.5 and below 1")
    budget: dict[str, Any] = {key: float(value) if key in numbers else value for key, value in table.items()}
    return Budget(**budget)


def _read_bytes(table: Any, keys: Sequence[str], where: str) -> Any:
    """The table with sizes such as "48KiB" as numbers of bytes."""
    if not isinstance(table, dict):
        return table
    sizes = {}
    for key in keys:
        if isinstance(table.get(key), str):
            try:
                sizes[key] = parse_bytes(table[key])
            except ValueError as exc:
                raise TargetError(f"{where}: {key}: {exc}") from exc
    return table | sizes


def _parse_protocol(table: Any, where: str) -> Protocol:
    numbers = ("min_duration_s", "max_warmup_s", "start_temperature_c", "max_cooldown_s")
    _check_figures(table, numbers, ("min_samples", "rounds", "processes"), where)
    return Protocol(**table)


def _check_figures(table: Any, numbers: Sequence[str], counts: Sequence[str], where: str) -> None:
    """Reject a table that holds anything but these numbers and whole numbers, all above zero."""
    _check_table(table, (*numbers, *counts), where)
    for key in table:
        _positive(table, key, NUMBER if key in numbers else int, where)


def _parse_power(table: Any, where: str) -> PowerSource:
    _check_table(table, {"meter", "sensor", "command", "where"}, where)
    for key in ("meter", "sensor", "where"):
        _typed(table, key, str, where)
    _choice(table, "meter", METERS, where)
    _choice(table, "where", (HERE, ON_DEVICE), where)
    meter, command = table.get("meter", AUTO), table.get("command", [])
    if not isinstance(command, list) or not all(isinstance(word, str) and word for word in command):
        raise TargetError(f'{where}: command: expected a list of words, as ["python3", "meter.py"]')
    has_command, takes_command = bool(command), meter == COMMAND
    if has_command != takes_command:
        raise TargetError(f'{where}: meter = "command" and command = [...] belong together')
    if "sensor" in table and meter != "hwmon":
        raise TargetError(f'{where}: sensor: only meter = "hwmon" has several; found meter = {meter!r}')
    if "where" in table and not takes_command:
        raise TargetError(f'{where}: where: only meter = "command" has one; found meter = {meter!r}')
    return PowerSource(meter, table.get("sensor", ""), tuple(command), table.get("where", HERE))


def _parse_hardware(table: Any, where: str) -> tuple[HardwareFact, ...]:
    if not isinstance(table, dict):
        raise TargetError(f"{where}: expected a table")
    facts = []
    for name, fact in table.items():
        is_sourced = isinstance(fact, dict) and set(fact) == {"value", "source"} and fact["source"]
        if not is_sourced:
            raise TargetError(f'{where}: {name}: expected {{ value = ..., source = "..." }}; every fact has a source')
        facts.append(HardwareFact(name, fact["value"], str(fact["source"])))
    return tuple(facts)


def _parse_memory(table: Any, where: str) -> MemorySize:
    """The table `[memory]`: both sizes, in bytes or as "640KiB"."""
    sizes = _read_bytes(table, MEMORY, where)
    _check_figures(sizes, (), MEMORY, where)
    missing = [key for key in MEMORY if key not in sizes]
    if missing:
        raise TargetError(f'{where}: {missing[0]!r} is missing; say both, as sram_bytes = "640KiB"')
    return MemorySize(**sizes)


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
    if key in table and not _is_of(table[key], kind):
        raise TargetError(f"{where}: {key}: {table[key]!r} has the wrong type")


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of a type; true and false are no numbers here, although Python counts them as such."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _number(table: Mapping[str, Any], key: str, where: str) -> None:
    _typed(table, key, NUMBER, where)
    is_finite = -LARGEST < table[key] < LARGEST  # nor is it NaN, which is below nothing
    if not is_finite:
        raise TargetError(f"{where}: {key}: must be finite")


def _positive(table: Mapping[str, Any], key: str, kind: Any, where: str) -> None:
    _typed(table, key, kind, where)
    is_positive = key not in table or 0 < table[key] < LARGEST
    if not is_positive:
        raise TargetError(f"{where}: {key}: {table[key]!r} must be above zero, and finite")
