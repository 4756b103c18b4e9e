"""What commands do for microcontrollers: a file as C, and instructions counted in QEMU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.options import Command
from edgeprune.cli.output import print_result
from edgeprune.core.boards.cortex_m import CORES
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.core.target import Target

C, TFLM = "c", "tflm"
DEFAULT_CORE = "cortex-m4"


def form_options(command: Command) -> Command:
    """The options that make a project for microcontrollers of a ready file."""
    path = click.Path(path_type=Path, file_okay=False)
    command = click.option("--output", type=path, help="With --format: the folder to write. Default: MODEL's name.")(
        command
    )
    command = click.option(
        "--core", type=click.Choice(tuple(CORES)), help=f"With --format c: default {DEFAULT_CORE}, or the target's."
    )(command)
    return click.option("--format", "form", type=click.Choice((C, TFLM)), help="With MODEL: what to make of it.")(
        command
    )


def export_file(
    model: Path | None, form: str | None, core: str | None, output: Path | None, options: Mapping[str, Any]
) -> None:
    """Write a static int8 TFLite file as a project in C, or for TensorFlow Lite Micro.

    Raises:
        UsageError: the file or the format is missing, or an option of a run is given.
    """
    if model is None or form is None:
        raise UsageError("expected both: edgeprune export MODEL.tflite --format c, or --format tflm")
    other = [name for name, value in options.items() if value is not None and name != "target"]
    if other:
        raise UsageError(f"--{other[0].replace('_', '-')} is for a run; leave it out to export {model.name} alone")
    if model.suffix != ".tflite":
        raise UsageError(f"{model}: expected a .tflite file in static int8")
    folder = output or Path(f"{model.stem}-{form}")
    if form == C:
        _export_c(model, folder, _choose_core(core, options.get("target")))
        return
    if core is not None or options.get("target") is not None:
        raise UsageError("--core and --target are for --format c; a project for tflm is for every core")
    _export_tflm(model, folder)


def _export_c(model: Path, folder: Path, core: str) -> None:
    from edgeprune.exporting.c.project import write_c_project

    export = write_c_project(model, folder, core)
    lines = [
        f"{model.name} as C for {export.core}: {folder}",
        f"arena {export.arena_bytes:,} bytes, beside input and output",
        f"against LiteRT: worst output {export.steps_off} steps of int8 off, {export.bytes_off:.2%} of outputs differ, "
        f"{export.vectors} vectors",
        f"check it: make -C {folder} test",
    ]
    print_result(asdict(export), "\n".join(lines))


def _export_tflm(model: Path, folder: Path) -> None:
    from edgeprune.exporting.tflm.project import write_tflm_project

    export = write_tflm_project(model, folder)
    arena = export.arena
    lines = [
        f"{model.name} for TensorFlow Lite Micro: {folder}",
        f"operators: {', '.join(export.operators)}",
        f"arena {arena.bytes:,} bytes: {arena.counted_bytes:,} {arena.counted_by}, {arena.counter}, and a margin",
        f"{export.vectors} vectors; how to build it with CMake, PlatformIO and Arduino: {folder / 'README.md'}",
    ]
    print_result(asdict(export), "\n".join(lines))


def _choose_core(core: str | None, target: str | None) -> str:
    from edgeprune.device.mcu.board import core_of
    from edgeprune.shipped import load_target

    if core is not None and target is not None:
        raise UsageError("--core and --target both say the core; give one of them")
    return core_of(load_target(target)).name if target is not None else core or DEFAULT_CORE


def print_counts(path: Path, target: Target, output: Path | None) -> None:
    """Count what a file takes in QEMU, and print it."""
    from edgeprune.core.text import render_columns
    from edgeprune.counting import count_file
    from edgeprune.run import write_json

    counts, steps_off = count_file(path, target)
    whole = counts.instructions
    span = f"{min(whole):,}" if min(whole) == max(whole) else f"{min(whole):,} to {max(whole):,} by input"
    total = sum(counts.step_instructions.values())
    rows = [(name, f"{count:,}", f"{count / total:.1%}") for name, count in counts.step_instructions.items()]
    document = {
        "file": path.name,
        "unit": "instructions",
        **{name: value for name, value in asdict(counts).items() if name != "outputs"},
        "steps_off": steps_off,
    }
    sections = ", ".join(f"{name} {size:,}" for name, size in counts.sections.items())
    lines = [
        f"{path.name} on {counts.core}, counted in QEMU ({counts.machine}); instructions are no time",
        f"instructions: {span} ({len(whole)} inputs)",
        f"arena {counts.arena_bytes:,} bytes, stack {counts.stack_bytes:,} bytes",
        f"firmware with the benchmark around the net: {sections} bytes",
        f"worst output {steps_off} steps of int8 off LiteRT's reference kernels",
        render_columns([("layer", "instructions", "share"), *rows]),
    ]
    if output is not None:
        write_json(output, document)
        lines.append(f"written to {output}")
    print_result(document, "\n".join(lines))
