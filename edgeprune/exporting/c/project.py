"""A folder with a net in C that builds, checks itself and says what it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.core.boards.cortex_m import CORES, QemuMachine
from edgeprune.errors import ExportError
from edgeprune.exporting.c.generate import MODEL, GeneratedNet, generate_c
from edgeprune.exporting.files import write_file
from edgeprune.exporting.tflite.run import run_tflite
from edgeprune.shipped import shipped_dir

SHIPPED = ("semihosting.h", "semihosting.c", "startup.c", "firmware.ld", "selftest.c", "Makefile", "CMakeLists.txt")
RANDOM_VECTORS = 2
MOST_STEPS_OFF = 8
"""Of int8, beyond which what was generated is not the net: roundings of the deepest net that was tried give 2."""


@dataclass(frozen=True)
class CExport:
    """A written project. `steps_off` is the most by which any output of a vector misses LiteRT's reference kernels, in
    steps of int8; `bytes_off` is the share of outputs that do."""

    folder: Path
    core: str
    arena_bytes: int
    vectors: int
    steps_off: int
    bytes_off: float


def write_c_project(source: Path, folder: Path, core_name: str) -> CExport:
    """Write a static int8 TFLite file as a C project: the net, a self-test with vectors, build files, README.md.

    The self-test expects what the generated arithmetic gives to the bit, which is held here against LiteRT.

    Raises:
        ExportError: the file is no static int8 net that the generator knows, what was generated computes something
            else, `folder` holds something else, the disk is full.
        MissingExtra: the generator is not installed.
    """
    net = generate_c(source, folder, core_name)
    inputs = make_vectors(tuple(net.facts["input_shape"]))
    outputs = net.run(inputs)
    off = np.abs(outputs.astype(int) - run_tflite(folder / MODEL, inputs, optimised=False).astype(int))
    if off.max() > MOST_STEPS_OFF:
        raise ExportError(
            f"{source}: the generated C misses LiteRT by {off.max()} of 255 steps; expected {MOST_STEPS_OFF} at most; "
            "ship the .tflite with TensorFlow Lite Micro instead"
        )
    export = CExport(folder, core_name, net.facts["arena_bytes"], len(inputs), int(off.max()), float((off > 0).mean()))
    _write_files(net, inputs, outputs, export)
    return export


def make_vectors(shape: tuple[int, ...]) -> np.ndarray:
    """Inputs `[N, ...]` for the self-test: the least and the greatest everywhere, and random ones."""
    rng = np.random.default_rng(0)
    ends = [np.full(shape, value, np.int8) for value in (-128, 127)]
    return np.concatenate([*ends, rng.integers(-128, 128, (RANDOM_VECTORS, *shape[1:])).astype(np.int8)])


def _write_files(net: GeneratedNet, inputs: np.ndarray, outputs: np.ndarray, export: CExport) -> None:
    firmware = shipped_dir("deploy") / "firmware"
    for name in SHIPPED:
        write_file(export.folder / name, (firmware / name).read_bytes())
    write_file(export.folder / "project.mk", _write_makefile(net, export.core).encode())
    declarations = [
        "#include <stdint.h>",
        "",
        f"enum {{ VECTOR_COUNT = {len(inputs)} }};",
        f"extern const int8_t vector_inputs[{len(inputs)}][{inputs[0].size}];",
        f"extern const int8_t vector_outputs[{len(inputs)}][{outputs[0].size}];",
    ]
    write_file(export.folder / "vectors.h", "\n".join(["#pragma once", *declarations, ""]).encode())
    arrays = [_write_array("vector_inputs", inputs), _write_array("vector_outputs", outputs)]
    write_file(export.folder / "vectors.c", "\n".join(['#include "vectors.h"', *arrays, ""]).encode())
    write_file(export.folder / "README.md", _write_readme(net, export).encode())


def _write_array(name: str, rows: np.ndarray) -> str:
    flat = rows.reshape(len(rows), -1)
    lines = ["    {" + ", ".join(map(str, row.tolist())) + "}," for row in flat]
    return "\n".join([f"const int8_t {name}[{len(flat)}][{flat.shape[1]}] = {{", *lines, "};"])


def _write_makefile(net: GeneratedNet, core_name: str) -> str:
    core, facts = CORES[core_name], net.facts
    lines = {
        "CORE_FLAGS": " ".join(core.flags),
        "QEMU_MACHINE": core.machine.name,
        "PLACES": " ".join(list_places(core.machine)),
        "DEFINITIONS": " ".join(f"-D{name}" for name in facts["definitions"]),
        "INCLUDES": " ".join(f"-I{name}" for name in (".", *facts["include_folders"])),
        "SOURCES": " ".join(facts["sources"]),
    }
    return "".join(f"{name} = {value}\n" for name, value in lines.items())


def list_places(machine: QemuMachine) -> list[str]:
    """Linker options that say where a machine has its memory."""
    return [f"-Wl,--defsym={name}={value:#x}" for name, value in machine.places.items()]


def _write_readme(net: GeneratedNet, export: CExport) -> str:
    facts = net.facts
    ends = "\n".join(
        f"| {end} | int8 {facts[f'{end}_shape']}, real value = (int8 - {facts[f'{end}_zero_point']}) * "
        f"{facts[f'{end}_scale']!r} |"
        for end in ("input", "output")
    )
    layers = "\n".join(f"| {layer['name']} | {layer['kernel']} |" for layer in facts["layers"])
    return f"""# A net in C for {export.core}

Written by edgeprune, generated by {facts["generator"]} from `{MODEL}`. It needs a C11 compiler and nothing
else: no heap, no interpreter. Kernels named `cmsis_nn` are Arm's CMSIS-NN
(Apache-2.0, its licence is beside its sources).

    #include "net/bknn_net.h"
    bknn_net_infer(arena, input, output);

| | |
|---|---|
{ends}
| arena | {facts["arena_bytes"]} bytes, aligned to 16; input and output lie outside of it |
| against LiteRT | worst output {export.steps_off} steps of int8 off, {export.bytes_off:.2%} of outputs differ, \
{export.vectors} vectors |

`make test` builds the self-test with arm-none-eabi-gcc and runs it in qemu-system-arm: every byte of {export.vectors}
vectors. On a board with a debugger `selftest.elf` says the same by semihosting, with your own `firmware.ld`. For your
firmware: `CMakeLists.txt` makes the library `edgeprune_net`, or add the sources that `project.mk` names.

| layer | kernel |
|---|---|
{layers}
"""
