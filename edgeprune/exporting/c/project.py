"""A folder with a net in C that builds, checks itself and says what it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.core.boards.cortex_m import CORES, QemuMachine
from edgeprune.errors import ExportError
from edgeprune.exporting.c.generate import MODEL, GeneratedNet, generate_c
from edgeprune.exporting.files import sha256_of, write_file
from edgeprune.exporting.tflite.run import run_tflite
from edgeprune.exporting.vectors import make_vectors, write_vectors
from edgeprune.shipped import shipped_dir

SHIPPED = ("semihosting.h", "semihosting.c", "startup.c", "firmware.ld", "selftest.c", "Makefile", "CMakeLists.txt")
SERIAL = ("edgeprune_protocol.h", "edgeprune_protocol.c", "edgeprune_board.h", "edgeprune_model.h", "mps2/board.c")
"""What a firmware is made of that edgeprune measures over a serial line; the folder `serial` of a project."""
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
    _write_files(net, source, export)
    write_vectors(folder, inputs, outputs)
    return export


def _write_files(net: GeneratedNet, source: Path, export: CExport) -> None:
    firmware = shipped_dir("deploy") / "firmware"
    for name in SHIPPED:
        write_file(export.folder / name, (firmware / name).read_bytes())
    for name in SERIAL:
        write_file(export.folder / "serial" / name, (firmware / name).read_bytes())
    write_file(export.folder / "edgeprune_model.c", _write_model(net, source).encode())
    write_file(export.folder / "project.mk", _write_makefile(net, export.core).encode())
    write_file(export.folder / "README.md", _write_readme(net, export).encode())


def _write_model(net: GeneratedNet, source: Path) -> str:
    """What `edgeprune_model.h` declares, for the net of the file `source`."""
    return f"""/* The net for edgeprune's serial firmware: serial/edgeprune_model.h. */
#include "edgeprune_model.h"

#include "bknn_net.h"

const char edgeprune_model_sha256[65] = "{sha256_of(source)}";
const char edgeprune_model_runtime[] = "{net.facts["generator"]}";
const uint32_t edgeprune_input_bytes = BKNN_NET_INPUT_BYTES, edgeprune_output_bytes = BKNN_NET_OUTPUT_BYTES;
int8_t edgeprune_input[BKNN_NET_INPUT_BYTES], edgeprune_output[BKNN_NET_OUTPUT_BYTES];
_Alignas(BKNN_NET_ARENA_ALIGNMENT) static uint8_t arena[BKNN_NET_ARENA_SIZE > 0u ? BKNN_NET_ARENA_SIZE : 1u];

int edgeprune_model_run(void) {{
    bknn_net_infer(BKNN_NET_ARENA_SIZE > 0u ? arena : (uint8_t *)0, edgeprune_input, edgeprune_output);
    return 0;
}}
"""


def _write_makefile(net: GeneratedNet, core_name: str) -> str:
    core, facts = CORES[core_name], net.facts
    machine = core.machine
    lines = {
        "CORE_FLAGS": " ".join(core.flags),
        "QEMU_MACHINE": machine.name,
        "PLACES": " ".join(list_places(machine)),
        "DEFINITIONS": " ".join(f"-D{name}" for name in facts["definitions"]),
        "INCLUDES": " ".join(f"-I{name}" for name in (".", *facts["include_folders"])),
        "SOURCES": " ".join(facts["sources"]),
        "BOARD": f"-DUART_ADDRESS={machine.uart_address:#x} -DTICK_HZ={machine.clock_mhz * 1_000_000}",
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
