"""What a kind of microcontroller has as memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MemorySize:
    """SRAM and flash that a program may have: those of the part, where a target says nothing else."""

    sram_bytes: int
    flash_bytes: int
