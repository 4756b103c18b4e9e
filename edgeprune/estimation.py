"""What a ready TFLite file costs on a microcontroller, estimated: by published results, or by Arm's compiler."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgeprune.core.estimating.cycles import (
    CycleEstimate,
    CyclePrices,
    RuntimeFacts,
    find_term,
)
from edgeprune.core.estimating.microcontrollers import NO_RESULT_OF_C, Microcontroller, choose_runtime, find_core
from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.target import Target
from edgeprune.disk import describe_os_error
from edgeprune.errors import UsageError
from edgeprune.exporting.tflite.layers import FileLayers, read_file_layers
from edgeprune.exporting.tflite.vela import VelaEstimate, estimate_by_vela
from edgeprune.shipped import load_microcontroller

NPU = re.compile(r"Ethos-U55(?:[- ](\d+))?")
NPU_MACS = "128"
"""Multiply-accumulates a cycle of an Ethos-U55 where its target says none."""


@dataclass(frozen=True)
class FileEstimate:
    """Estimated cycles of a file on a microcontroller, and what they rest on.

    `layers` are those that the runtime computes with the cycles of each; `dropped_macs` are of channels whose weights
    are all zero, which it leaves out. `notes` are for people.
    """

    target: str
    core: str
    clock_mhz: float
    runtime: RuntimeFacts
    prices: CyclePrices
    file: FileLayers
    cycles: CycleEstimate
    layers: tuple[tuple[LayerShape, float], ...]
    dropped_macs: int
    sources: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def latency_ms(self) -> tuple[float, float, float]:
        """Latency at the clock, and its 90 % interval."""
        return self.cycles.at(self.clock_mhz)

    def cycles_by_kind(self) -> dict[str, float]:
        """Cycles by kind of kernel, the dearest first."""
        kinds: dict[str, float] = {}
        for shape, cycles in self.layers:
            kind = find_term(shape) if shape.has_weights else shape.op
            kinds[kind] = kinds.get(kind, 0.0) + cycles
        return dict(sorted(kinds.items(), key=lambda pair: -pair[1]))


def find_npu(target: Target) -> str | None:
    """The accelerator of a target as vela calls it, if it has an Ethos-U55."""
    for fact in target.hardware:
        if match := NPU.search(str(fact.value)):
            return f"ethos-u55-{match[1] or NPU_MACS}"
    return None


def find_clock_mhz(target: Target) -> float | None:
    """The clock of a target's processor by its hardware facts."""
    core = find_core([(fact.name, fact.value) for fact in target.hardware])
    return core[1] if core else None


def estimate_file(path: Path, target: Target, runtime: str | None = None) -> FileEstimate:
    """Estimate the cycles of an int8 `.tflite` file on a target's core, in its runtime or another that was published.

    Raises:
        UsageError: the target is no microcontroller, or the file is not int8.
        ProfileError: no published results of that core or runtime, or an operator that is in none.
        ExportError: the file cannot be read.
    """
    board = load_microcontroller(target)
    if board is None:
        raise UsageError(
            f"target {target.name}: is no microcontroller that cycles are estimated for: its [hardware] has to name a "
            "core (Cortex-M..., ESP32-S3) and cpu_mhz; `edgeprune plan` estimates nets on other boards"
        )
    name, notes = (runtime, ()) if runtime else _default_runtime(target.runtime, board)
    prices = board.table.choose(board.core, name)
    facts, layers = board.table.facts(name), read_layers(path)
    shapes = layers.live if facts.drops_dead else layers.whole
    return FileEstimate(
        target.name,
        board.core,
        board.clock_mhz,
        facts,
        prices,
        layers,
        prices.estimate(shapes),
        tuple((shape, prices.price(shape)) for shape in shapes),
        layers.macs - sum(shape.macs for shape in shapes),
        board.table.sources,
        notes,
    )


def _default_runtime(name: str, board: Microcontroller) -> tuple[str, tuple[str, ...]]:
    """The published runtime that stands for a target's, and what is to be said of it."""
    published = [facts.name for facts in board.table.runtimes]
    known = choose_runtime(name, board.core)
    if known not in published:
        known = choose_runtime("tflm", board.core)
        return known, (f"no result in {name}, the target's runtime, was published; --runtime chooses another",)
    return known, (NO_RESULT_OF_C,) if name == "c" else ()


def read_layers(path: Path) -> FileLayers:
    """The layers of an int8 `.tflite` file.

    Raises:
        UsageError: no such file, or not int8.
        ExportError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise UsageError(describe_os_error(exc, path)) from exc
    layers = read_file_layers(content, str(path))
    if not layers.is_int8:
        raise UsageError(
            f"{path}: its weights are not all int8; published results are of int8 files; quantize it first"
        )
    return layers


def estimate_npu(path: Path, target: Target) -> VelaEstimate | None:
    """What vela says of an int8 `.tflite` file, where the target has an Ethos-U55.

    Raises:
        UsageError: the file is not int8.
        MissingExtra: vela is not installed.
        ExportError: the file cannot be read, or vela refused it.
    """
    accelerator = find_npu(target)
    if accelerator is None:
        return None
    read_layers(path)
    return estimate_by_vela(path, accelerator)
