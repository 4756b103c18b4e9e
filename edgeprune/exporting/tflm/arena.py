"""The arena that a project reserves for its net."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import MissingExtra
from edgeprune.exporting.tflite.micro import count_arena
from edgeprune.exporting.tflite.timeline import read_timeline

ALIGNMENT = 16
"""Bytes: of the arena and of the model, as TFLM asks."""
LEAST_MARGIN_BYTES = 2048
MARGIN_SHARE = 8
"""An eighth of what was counted is added for what no count here has: buffers that kernels of vendors ask for."""


@dataclass(frozen=True)
class Arena:
    """What to reserve (`bytes`), and what of it TensorFlow Lite Micro itself counted, by `counter`."""

    bytes: int
    counted_bytes: int
    counted_by: str
    counter: str


def size_arena(tflite: Path) -> Arena:
    """The arena for a file: counted by the interpreter, and a margin.

    Raises:
        ExportError: TensorFlow Lite Micro does not run the file; says its reason.
        MissingExtra: nothing that counts it is here (extra `mcu`).
    """
    count, notes = count_arena(tflite, read_timeline(tflite.read_bytes(), str(tflite)))
    if count.persistent_bytes is None:
        raise MissingExtra(f"{tflite}: nothing here counts its arena: {'; '.join(notes)}")
    counted = count.total_bytes
    wanted = counted + max(LEAST_MARGIN_BYTES, counted // MARGIN_SHARE)
    return Arena(-(-wanted // ALIGNMENT) * ALIGNMENT, counted, count.counted_by, count.counter)
