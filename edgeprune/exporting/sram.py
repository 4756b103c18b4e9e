"""The memory that an interpreter needs for a file that it lays out by fixed rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeprune.core.memory.arena import plan_arena
from edgeprune.core.memory.fit import PLANNED
from edgeprune.exporting.formats import find_format


@dataclass(frozen=True)
class SramCount:
    """Bytes, and by what they were counted."""

    bytes: int
    counted_by: str


def count_sram(path: Path) -> SramCount | None:
    """What a file needs as memory; None of a format whose runtimes have no such rules."""
    inside = find_format(path.suffix.removeprefix(".")).inside
    if inside is None or inside.read_memory is None:
        return None
    counted = inside.count_memory(path)
    if counted is not None:
        return SramCount(counted.total_bytes, counted.counted_by)
    return SramCount(plan_arena(inside.read_memory(path).buffers).peak_bytes, PLANNED)
