"""Whether a file fits a microcontroller: what it takes of SRAM and flash, and what makes it too big."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.core.memory.size import MemorySize
from edgeprune.core.memory.timeline import Timeline

FITS, TOO_BIG, UNKNOWN = "fits", "too big", "unknown"
PLANNED = "planned by edgeprune (activations only)"
COUNTED_32 = "counted by TFLM (32-bit)"
COUNTED_64 = "counted by TFLM (64-bit, corrected)"


@dataclass(frozen=True)
class ArenaCount:
    """Bytes of an interpreter's arena: activations, and what it keeps beside (`persistent_bytes`, None where nothing
    counted it). `counted_by` is PLANNED, COUNTED_32 or COUNTED_64; `counter` is the program that counted, by name and
    version.
    """

    activation_bytes: int
    persistent_bytes: int | None
    counted_by: str
    counter: str

    @property
    def total_bytes(self) -> int:
        """All that is known of the arena."""
        return self.activation_bytes + (self.persistent_bytes or 0)


@dataclass(frozen=True)
class FileNeeds:
    """What a file needs: `file_bytes` of flash, without the code that runs it, and its arena."""

    file_bytes: int
    arena: ArenaCount
    timeline: Timeline


@dataclass(frozen=True)
class Fit:
    """How a file fits a memory: what is left of it (below zero: what is lacking), the verdict (FITS, TOO_BIG, UNKNOWN)
    and its reason.
    """

    sram_left_bytes: int
    flash_left_bytes: int
    verdict: str
    reason: str


def judge_fit(needs: FileNeeds, memory: MemorySize) -> Fit:
    """Hold what a file needs against what there is. What is not counted (the code, the stack, the program's own data)
    must fit into what is left; where only activations are known, fitting them proves nothing.
    """
    sram_left = memory.sram_bytes - needs.arena.total_bytes
    flash_left = memory.flash_bytes - needs.file_bytes
    reasons = []
    if sram_left < 0:
        reasons.append(f"SRAM: too big by {-sram_left:,} bytes {describe_peak(needs)}")
    if flash_left < 0:
        reasons.append(f"flash: too big by {-flash_left:,} bytes: the file has {needs.file_bytes:,}")
    if reasons:
        return Fit(sram_left, flash_left, TOO_BIG, "; ".join(reasons))
    if needs.arena.persistent_bytes is None:
        return Fit(sram_left, flash_left, UNKNOWN, "the activations fit; what the interpreter keeps is not counted")
    return Fit(sram_left, flash_left, FITS, "")


def describe_peak(needs: FileNeeds) -> str:
    """Where the arena is fullest, and what lies in it there: tensors with their shapes and bytes."""
    timeline, plan = needs.timeline, needs.timeline.arena
    if not timeline.steps:
        return "in a net without operators"
    parts = [
        _describe_buffer(timeline, buffer.name, buffer.size_bytes) for buffer in timeline.list_alive(plan.peak_step)
    ]
    gaps = plan.peak_bytes - plan.alive_bytes[plan.peak_step]
    parts += [f"gaps between tensors {gaps:,}"] if gaps > 0 else []
    kept = needs.arena.persistent_bytes
    parts += [f"kept by the interpreter {kept:,}"] if kept is not None else []
    return f"at step {plan.peak_step} ({timeline.steps[plan.peak_step].op}): {' + '.join(parts)}"


def _describe_buffer(timeline: Timeline, name: str, size_bytes: int) -> str:
    activation = timeline.tensors.get(name)
    shape = f" {list(activation.shape)}" if activation else ""
    return f"{timeline.labels[name]}{shape} {size_bytes:,}"
