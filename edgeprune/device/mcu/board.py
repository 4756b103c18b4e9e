"""A microcontroller that QEMU emulates: it runs nets and counts their instructions, and tells no time."""

from __future__ import annotations

import importlib
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from edgeprune.core.boards.cortex_m import CORES, Core, find_core
from edgeprune.core.cost import INSTRUCTIONS
from edgeprune.core.formats import RUNTIMES
from edgeprune.core.measuring.measurement import NO_POWER_SENSOR, Conditions, DeviceFacts, Measurement, Protocol
from edgeprune.core.measuring.windows import Window
from edgeprune.core.progress import Count
from edgeprune.core.target import Target
from edgeprune.device.board import ModelFile, ProbeSettings, Progress, Session, name_setting
from edgeprune.device.mcu.counting import Counts, count_project
from edgeprune.device.mcu.firmware import COMPILER, run_tool
from edgeprune.errors import DeviceError, TargetError, UsageError
from edgeprune.versions import find_version

ACCELERATOR = "ethos"
"""In the name of what QEMU has beside no core: such a board without it would be another one."""
EMULATED = "qemu-"
"""What the name of a target begins with whose board is emulated."""
COUNTS_ONLY = "an emulator counts instructions and tells no time"
COUNTED = "instructions counted in QEMU, no time"
"""What is said of the conditions of a count."""
ROWS = 4
"""Random inputs that a file is counted on: the count depends on the input a little, and on nothing else."""
SEED = 11


@dataclass(frozen=True)
class QemuBoard:
    """A :class:`Board` by qemu-system-arm; `core` is the one that it emulates."""

    core: Core
    facts: DeviceFacts
    unit: str = INSTRUCTIONS

    @classmethod
    def of(cls, target: Target, session: Session) -> QemuBoard:
        """The emulated board of a target.

        Raises:
            UsageError: the governor is to be set, or sizes of inputs are given.
            TargetError: the target names no core that C is generated for.
            DeviceError: the compiler or the emulator is not installed.
        """
        if option := name_setting(session):
            raise UsageError(f"target {target.name}: an emulator has none of it; leave {option} out")
        core = core_of(target)
        compiler = run_tool([COMPILER, "-dumpfullversion"]).strip()
        emulator = run_tool(["qemu-system-arm", "--version"]).split("\n", maxsplit=1)[0]
        version = re.search(r"[0-9]+\.[0-9.]+[0-9]", emulator)
        facts = DeviceFacts(
            host="qemu",
            machine=core.machine.name,
            model=f"QEMU {version[0] if version else emulator}, machine {core.machine.name}",
            cpu=core.name,
            cores=1,
            cpu_flags=core.flags,
            memory_mib=core.machine.data_bytes >> 20,
            os="",
            kernel="",
            python="",
            runtimes={"c": f"{COMPILER} {compiler}, bakenn {find_version('bakenn')}"},
        )
        return cls(core, facts)

    @property
    def lacks(self) -> Mapping[str, str]:
        """All that takes a clock, or energy."""
        return dict.fromkeys(("energy", "nodes", "sustain", "percentiles"), COUNTS_ONLY)

    @property
    def is_remote(self) -> bool:
        """Its processor is none of this machine's."""
        return True

    def runtime_version(self, runtime: str) -> str:
        """The compiler that makes firmware of a net; empty for any other runtime."""
        return self.facts.runtimes.get(runtime, "")

    def check_power(self, target: Target) -> str:
        """There is no power meter that could be read."""
        return NO_POWER_SENSOR

    def count(self, model: ModelFile, inputs: np.ndarray) -> Counts:
        """What one inference of a static int8 TFLite file takes, for int8 `inputs` `[N, ...]`, and what it gives.

        Raises:
            ExportError: no C can be made of the file.
            DeviceError: the firmware does not build or run.
        """
        with tempfile.TemporaryDirectory() as folder:
            self._generate(model, Path(folder))
            return count_project(Path(folder), self.core.name, inputs)

    def time(
        self, models: Sequence[ModelFile], threads: int, protocol: Protocol, progress: Progress
    ) -> dict[str, Measurement]:
        """Instructions of files by name, each over the same few random inputs.

        Raises:
            ExportError: no C can be made of a file.
            DeviceError: a firmware does not build or run.
        """
        counts = self._count_all(models, ROWS, progress)
        return {model.name: self._describe(model, counts[model.sha256]) for model in models}

    def time_probes(
        self, models: Sequence[ModelFile], threads: int, settings: ProbeSettings, progress: Progress
    ) -> dict[str, tuple[Window, ...]]:
        """Instructions by name, of hundreds of models of one layer, on one input each; raises as :meth:`time`."""
        counts = self._count_all(models, 1, progress)
        return {model.name: (Window(0, 0.0, float(counts[model.sha256][0])),) for model in models}

    def _count_all(self, models: Sequence[ModelFile], rows: int, progress: Progress) -> dict[str, tuple[int, ...]]:
        """Instructions of each input by the sha256 of the file; as many files at once as there are cores."""
        files = {model.sha256: model for model in models}
        counts, begun = dict[str, tuple[int, ...]](), time.monotonic()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for sha256, own in pool.map(lambda model: (model.sha256, self._count_random(model, rows)), files.values()):
                counts[sha256] = own
                left_s = (time.monotonic() - begun) / len(counts) * (len(files) - len(counts))
                progress(Count(f"counted in QEMU: {len(counts)} of {len(files)}, {left_s:.0f} s left"))
        return counts

    def _count_random(self, model: ModelFile, rows: int) -> tuple[int, ...]:
        with tempfile.TemporaryDirectory() as folder:
            shape = self._generate(model, Path(folder))["input_shape"]
            inputs = np.random.default_rng(SEED).integers(-128, 128, (rows, *shape[1:])).astype(np.int8)
            return count_project(Path(folder), self.core.name, inputs).instructions

    def _describe(self, model: ModelFile, counts: Sequence[int]) -> Measurement:
        return Measurement(
            artifact=model.name,
            sha256=model.sha256,
            runtime=model.runtime,
            runtime_version=self.runtime_version(model.runtime),
            device=self.facts.fingerprint,
            conditions=Conditions(1, cores=1, notes=(COUNTED,)),
            init_ms=None,
            first_ms=None,
            warmup_runs=0,
            samples_ms=tuple(map(float, counts)),
            peak_memory_mib=None,
            unit=INSTRUCTIONS,
        )

    def run(self, model: ModelFile, inputs: np.ndarray, progress: Progress) -> np.ndarray:
        """Outputs `[N, ...]` of a file for inputs `[N, ...]`: floats are quantized here by the net's own scales."""
        with tempfile.TemporaryDirectory() as folder:
            facts = self._generate(model, Path(folder))
            is_float = inputs.dtype.kind == "f"
            rows = quantize(inputs, facts["input_scale"], facts["input_zero_point"]) if is_float else inputs
            outputs = count_project(Path(folder), self.core.name, rows).outputs
        if not is_float:
            return outputs
        real = (outputs.astype(np.float32) - facts["output_zero_point"]) * np.float32(facts["output_scale"])
        return np.asarray(real, inputs.dtype)

    def _generate(self, model: ModelFile, folder: Path) -> dict[str, Any]:
        """Make C of a file, by the module that its runtime names; gives what the code says of itself."""
        generator = RUNTIMES[model.runtime].generator
        if not generator:
            raise DeviceError(f"{self.facts.host}: {model.runtime} does not run on a {self.core.name}; expected c")
        facts: dict[str, Any] = importlib.import_module(generator).generate_c(model.path, folder, self.core.name).facts
        return facts

    def _refuse(self, *_: Any) -> NoReturn:
        raise DeviceError(f"{self.facts.host}: {COUNTS_ONLY}")

    energy = nodes = sustain = _refuse


def quantize(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """Floats as int8, of whatever shape: the nearest step, ties to even, as LiteRT rounds on this machine."""
    return np.asarray(np.clip(np.rint(values / np.float32(scale)) + zero_point, -128, 127).astype(np.int8))


def core_of(target: Target) -> Core:
    """The Cortex-M of a target, by its hardware fact "core".

    Raises:
        TargetError: it names none that C is generated for.
    """
    text = find_core_text(target)
    core = find_core(text)
    if core is None:
        raise TargetError(
            f"target {target.name}: hardware: core: {text!r} is none that C is generated for; expected one of "
            f"{', '.join(CORES)}"
        )
    return core


def check_core(target: Target) -> None:
    """Refuse a microcontroller without an address whose core no emulator here has.

    Raises:
        TargetError: it is one; says what can be done for it.
    """
    text = find_core_text(target)
    if find_core(text) is None or ACCELERATOR in text.lower():
        raise TargetError(
            f"target {target.name}: nothing says where a board is, and its core ({text or 'not told'}) is none that "
            f"is emulated here ({', '.join(CORES)}), so nothing runs its files; `edgeprune fit MODEL.tflite "
            f"{target.option}` says whether a file fits, `--host serial:PORT` reaches a board (docs/serial.md)"
        )


def find_core_text(target: Target) -> str:
    """What a target says of its core; empty where it says nothing."""
    return next((str(fact.value) for fact in target.hardware if fact.name == "core"), "")


def is_emulated(target: Target) -> bool:
    """Whether a target's board is a microcontroller in QEMU on this machine."""
    return target.name.startswith(EMULATED)
