"""A folder with a net for TensorFlow Lite Micro: its bytes, operators and arena, a self-check, build files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import ExportError
from edgeprune.exporting.files import sha256_of, write_file
from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.tflite.run import run_tflite
from edgeprune.exporting.tflm.arena import Arena, size_arena
from edgeprune.exporting.tflm.ends import End, read_ends
from edgeprune.exporting.tflm.operators import NEWER, list_operators
from edgeprune.exporting.tflm.sources import (
    MODEL_HEADER,
    STEPS_ALLOWED,
    write_header,
    write_model,
    write_operators,
)
from edgeprune.exporting.vectors import make_vectors, write_vectors
from edgeprune.shipped import shipped_dir

MODEL = "model.tflite"
HEADER = "src/edgeprune_net.h"
SHIPPED = (
    "CMakeLists.txt",
    "platformio.ini",
    "library.properties",
    "src/edgeprune_net.cpp",
    "src/edgeprune_self_check.h",
    "src/edgeprune_self_check.cpp",
    "selfcheck/main.cpp",
    "examples/selfcheck/selfcheck.ino",
)


@dataclass(frozen=True)
class TflmExport:
    """A written project: its folder, the operators of its net in order of use, its arena, how many vectors it has."""

    folder: Path
    operators: tuple[str, ...]
    arena: Arena
    vectors: int


def write_tflm_project(tflite: Path, folder: Path) -> TflmExport:
    """Write a static int8 TFLite file as a project for TensorFlow Lite Micro; one that is there is written anew.

    The outputs that the self-check expects are those of LiteRT's reference kernels.

    Raises:
        ExportError: input or output is not int8, TFLM lacks an operator or refuses the file, `folder` holds something
            else, the disk is full.
        MissingExtra: nothing that counts the arena is installed (extra `mcu`), or LiteRT is not.
    """
    if folder.exists() and not (folder / HEADER).exists() and any(folder.iterdir()):
        raise ExportError(f"{folder}: holds something else; choose an empty folder, or one of an earlier project")
    with foreign("TensorFlow Lite Micro project", tflite):
        source, result = read_ends(tflite)
        operators = list_operators(tflite)
        arena = size_arena(tflite)
        inputs = make_vectors(source.shape)
        outputs = run_tflite(tflite, inputs, optimised=False)
    export = TflmExport(folder, operators, arena, len(inputs))
    _write_files(tflite, export, (source, result))
    write_vectors(folder / "src", inputs, outputs)
    return export


def _write_files(tflite: Path, export: TflmExport, ends: tuple[End, End]) -> None:
    firmware, folder, content = shipped_dir("deploy") / "firmware", export.folder, tflite.read_bytes()
    for name in SHIPPED:
        write_file(folder / name, (firmware / "tflm" / name).read_bytes())
    write_file(folder / "src" / "edgeprune_model.h", (firmware / "edgeprune_model.h").read_bytes())
    write_file(folder / MODEL, content)
    texts = {
        HEADER: write_header(export.arena, ends),
        "src/edgeprune_operators.h": write_operators(export.operators),
        "src/model_data.h": MODEL_HEADER.format(size=len(content)),
        "src/model_data.c": write_model(content, sha256_of(tflite), ends),
        "README.md": _write_readme(tflite.name, export, ends),
    }
    for name, text in texts.items():
        write_file(folder / name, text.encode())


def _write_readme(name: str, export: TflmExport, ends: tuple[End, End]) -> str:
    rows = "\n".join(
        f"| {title} | int8 {list(end.shape)}, real value = (int8 - {end.zero_point}) * {end.scale!r} |"
        for title, end in zip(("input", "output"), ends, strict=True)
    )
    newer = [operator for operator in export.operators if operator in NEWER]
    arduino = f"It has no {' and no '.join(newer)}, so this net does not build with it." if newer else ""
    template = (shipped_dir("deploy") / "firmware" / "tflm" / "README.template.md").read_text()
    return template.format(
        name=name,
        rows=rows,
        operators=", ".join(export.operators),
        arena=export.arena,
        vectors=export.vectors,
        steps=STEPS_ALLOWED,
        arduino=f"\n{arduino}" if arduino else "",
    )
