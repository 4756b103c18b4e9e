"""Firmware of a generated C project, built with arm-none-eabi-gcc."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from edgeprune.core.boards.cortex_m import Core
from edgeprune.device.transports.transport import hash_file
from edgeprune.errors import DeviceError
from edgeprune.shipped import cache_dir, shipped_dir

COMPILER = "arm-none-eabi-gcc"
FLAGS = ("-O3", "-std=c11", "-ffunction-sections", "-fdata-sections", "-Wall", "-Wextra", "-Werror")
SEMIHOSTED = ("bench.c", "startup.c", "semihosting.c")
KERNELS = "third_party"
"""The folder within a generated net that holds CMSIS-NN, the same for every net."""
_kernels: dict[str, Path] = {}
"""Objects of kernels that this process has."""
_CALL = re.compile(r"^    bknn_net_\w+\(")
_SIGNATURE = "void bknn_net_infer("
_COMPILE_S = 300.0
_LISTS = ("sources", "include_folders", "definitions", "input_shape", "output_shape", "steps")


@dataclass(frozen=True)
class Image:
    """A linked firmware: the net, and the benchmark around it. `sections` are bytes by section."""

    elf: Path
    core: Core
    project: CProject
    sections: dict[str, int]


@dataclass(frozen=True)
class CProject:
    """A generated net in C: its folder, what it takes and gives, and its steps in order; see `exporting/c`."""

    folder: Path
    sources: tuple[str, ...]
    include_folders: tuple[str, ...]
    definitions: tuple[str, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    steps: tuple[str, ...]
    arena_bytes: int

    @classmethod
    def read(cls, folder: Path) -> CProject:
        """Read the `project.json` of a folder.

        Raises:
            DeviceError: it is no such folder.
        """
        try:
            fields: dict[str, Any] = json.loads((folder / "project.json").read_text())
            lists = {name: tuple(fields[name]) for name in _LISTS}
            return cls(folder, **lists, arena_bytes=fields["arena_bytes"])
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise DeviceError(
                f"{folder}: no generated C project ({exc}); make one with edgeprune export MODEL.tflite --format c"
            ) from exc


def build_bench(project: CProject, core: Core, folder: Path) -> Image:
    """The firmware that runs a net on rows of a file and counts; objects are kept in the cache.

    Raises:
        DeviceError: the compiler is not there, or refuses the code.
    """
    firmware, steps = shipped_dir("deploy") / "firmware", folder / "steps.c"
    steps.write_text(mark_steps((project.folder / "net" / "bknn_net.c").read_text(), len(project.steps)))
    machine = core.machine
    counter = f"COUNTER_ADDRESS={machine.counter_address:#x}u" if machine.counter_address else "COUNTER_SSE"
    includes = [f"-I{project.folder / name}" for name in project.include_folders] + [f"-I{firmware}"]
    definitions = [f"-D{name}" for name in (*project.definitions, counter, f"BENCH_STEPS={len(project.steps)}")]
    sources = [project.folder / name for name in project.sources] + [steps] + [firmware / name for name in SEMIHOSTED]
    kernel_options = [*(f"-D{name}" for name in project.definitions), *includes]
    objects = [
        _compile_kernel(source, core, kernel_options)
        if KERNELS in source.parts
        else _compile(source, core, [*definitions, *includes])
        for source in sources
    ]
    elf = folder / "bench.elf"
    symbols = [f"-Wl,--defsym={name}={value:#x}" for name, value in machine.places.items()]
    link = [*core.flags, "-nostartfiles", "--specs=nano.specs", "-Wl,--gc-sections", *symbols]
    run_tool([COMPILER, *link, f"-Wl,-T,{firmware / 'firmware.ld'}", *map(str, objects), "-o", str(elf)])
    return Image(elf, core, project, read_sections(elf))


def mark_steps(source: str, steps: int) -> str:
    """A copy of the generated net, `bknn_net_infer_steps`, that calls `bench_mark` around each of its steps.

    Raises:
        DeviceError: it does not call as many kernels as it has steps.
    """
    lines, number = ["void bench_mark(int step);"], 0
    for line in source.replace(_SIGNATURE, "void bknn_net_infer_steps(").splitlines():
        if _CALL.match(line):
            lines.append(f"    bench_mark({number - 1});")
            number += 1
        lines.append(line)
    if number != steps:
        raise DeviceError(f"bknn_net.c: calls {number} kernels, expected {steps}; report this, with the model")
    last = max(place for place, line in enumerate(lines) if line == "}")
    lines.insert(last, f"    bench_mark({number - 1});")
    return "\n".join(lines) + "\n"


def read_sections(elf: Path) -> dict[str, int]:
    """Bytes of each section that lies in memory, by `arm-none-eabi-size -A`."""
    output = run_tool(["arm-none-eabi-size", "-A", str(elf)])
    rows = (line.split() for line in output.splitlines())
    kept = (".vectors", ".text", ".rodata", ".ARM.exidx", ".data", ".bss")
    return {row[0]: int(row[1]) for row in rows if len(row) == 3 and row[0] in kept}


def _compile(source: Path, core: Core, options: Sequence[str]) -> Path:
    """The object of a source file: from the cache where the same was compiled with the same options before."""
    folder = cache_dir() / "firmware"
    preprocessed = run_tool([COMPILER, *core.flags, *FLAGS, *options, "-E", "-P", str(source)])
    key = hashlib.sha256("\0".join([preprocessed, *core.flags, *FLAGS]).encode()).hexdigest()
    target = folder / f"{key}.o"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{uuid4().hex}.partial.o"  # others may compile the same now
        run_tool([COMPILER, *core.flags, *FLAGS, *options, "-c", str(source), "-o", str(partial)])
        partial.replace(target)
    return target


def _compile_kernel(source: Path, core: Core, options: Sequence[str]) -> Path:
    """As :func:`_compile`, of a kernel that reads no header of the net: one that this process had before is not
    preprocessed again, which takes longer than all else where hundreds of nets of one layer are built.
    """
    definitions = [option for option in options if option.startswith("-D")]
    key = "\0".join([hash_file(source), *core.flags, *definitions])
    if key not in _kernels:
        _kernels[key] = _compile(source, core, options)
    return _kernels[key]


def run_tool(command: Sequence[str], cwd: Path | None = None, timeout_s: float = _COMPILE_S) -> str:
    """What a tool prints.

    Raises:
        DeviceError: it is not installed, refuses, or takes too long.
    """
    if shutil.which(command[0]) is None:
        packages = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
        raise DeviceError(f"{command[0]} is not installed; on Debian: apt-get install {packages}")
    try:
        completed = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise DeviceError(f"{command[0]}: took over {timeout_s:.0f} s; a net that hangs, or a busy machine") from exc
    if completed.returncode != 0:
        reason = " ".join((completed.stderr or completed.stdout).split())[:400]
        raise DeviceError(f"{command[0]}: status {completed.returncode}: {reason or 'no reason given'}")
    return completed.stdout
