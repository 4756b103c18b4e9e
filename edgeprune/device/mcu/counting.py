"""A net on a Cortex-M in QEMU: what it gives for inputs, and how many instructions that takes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.core.boards.cortex_m import CORES, COUNT_SHIFT, Core
from edgeprune.device.mcu.firmware import CProject, Image, build_bench, run_tool
from edgeprune.errors import DeviceError

LOOP_INSTRUCTIONS = 200_000
"""Of the firmware's loop by which the counter is proven before anything is counted."""
_RUN_S = 600.0


@dataclass(frozen=True)
class Counts:
    """What one inference takes on a core: counted by an emulator, so no time, and no interval where nothing varies.

    `instructions` are those of each row of inputs, `step_instructions` those of each step on the last row.
    `stack_bytes` is the deepest stack, the caller's frame included; `arena_bytes` what the net works in,
    beside its input and output. `sections` are bytes of the firmware, the benchmark around the net included.
    """

    core: str
    machine: str
    instructions: tuple[int, ...]
    step_instructions: dict[str, int]
    stack_bytes: int
    arena_bytes: int
    sections: dict[str, int]
    outputs: np.ndarray


def count_project(folder: Path, core_name: str, inputs: np.ndarray) -> Counts:
    """Build a generated C project for a core, run it on int8 `inputs` `[N, ...]` in QEMU, and count.

    Raises:
        DeviceError: a tool is missing, the code does not build, the firmware faults, or its counter does not count
            instructions.
    """
    project, core = CProject.read(folder), CORES[core_name]
    if inputs.dtype != np.int8 or inputs.shape[1:] != project.input_shape[1:]:
        raise DeviceError(
            f"inputs {inputs.dtype} {list(inputs.shape)}: the net takes int8 [N, {str(project.input_shape[1:])[1:-1]}]"
        )
    with tempfile.TemporaryDirectory() as place:
        return run_bench(build_bench(project, core, Path(place)), inputs, Path(place))


def run_bench(image: Image, inputs: np.ndarray, folder: Path) -> Counts:
    """Run a benchmark's firmware in `folder` on int8 `inputs` `[N, ...]`."""
    project, core = image.project, image.core
    (folder / "inputs.bin").write_bytes(np.ascontiguousarray(inputs).tobytes())
    run_tool(_qemu(core, image.elf), folder, _RUN_S)
    words = [int(word) for word in np.fromfile(folder / "counts.bin", np.uint32)]
    outputs = np.fromfile(folder / "outputs.bin", np.int8).reshape(len(inputs), *project.output_shape[1:])
    nothing, loop, rows, steps, *rest = words
    if (rows, len(rest)) != (len(inputs), 2 * len(inputs) + steps):
        raise DeviceError(f"{core.machine.name}: {len(rest)} counts of {rows} rows came back, expected {len(inputs)}")
    ratio = core.machine.ticks_per_instruction
    if round((loop - nothing) / ratio) not in range(LOOP_INSTRUCTIONS, LOOP_INSTRUCTIONS + 8):
        raise DeviceError(
            f"{core.machine.name}: a loop of {LOOP_INSTRUCTIONS:,} instructions was counted as "
            f"{(loop - nothing) / ratio:,.1f}; this QEMU counts otherwise than 7.2"
        )
    whole, per_step = rest[: 2 * rows], rest[2 * rows :]
    return Counts(
        core.name,
        core.machine.name,
        tuple(round((ticks - nothing) / ratio) for ticks in whole[::2]),
        {name: round((ticks - nothing) / ratio) for name, ticks in zip(project.steps, per_step, strict=True)},
        max(whole[1::2]),
        project.arena_bytes,
        image.sections,
        outputs,
    )


def _qemu(core: Core, elf: Path) -> list[str]:
    count = f"shift={COUNT_SHIFT},align=off,sleep=off"
    plain = ["-display", "none", "-monitor", "none", "-serial", "none", "-parallel", "none"]
    host = ["-semihosting-config", "enable=on,target=native"]
    return ["qemu-system-arm", "-M", core.machine.name, *plain, *host, "-icount", count, "-kernel", str(elf)]
