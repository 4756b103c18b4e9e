"""Where activations lie in the arena of TensorFlow Lite Micro: the plan of its greedy planner, without it.

Source: tensorflow/lite/micro/memory_planner/greedy_memory_planner.cc of tflite-micro: the rules, written anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 16
"""Bytes: sizes are rounded up to it (`MicroArenaBufferAlignment` in micro_arena_constants.h)."""


@dataclass(frozen=True)
class Buffer:
    """What has to lie in the arena from step `first` to step `last`, both included. Names are unique in a plan."""

    name: str
    size_bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class ArenaPlan:
    """Where each buffer lies. `alive_bytes` has a sum for each step, of sizes as they were rounded up.

    `peak_bytes` is the size of the arena: the end of the buffer that lies highest. Where gaps are left between buffers
    it is above the most bytes that are alive at once. `peak_step` is the first step with most bytes alive.
    """

    offsets: dict[str, int]
    peak_bytes: int
    alive_bytes: tuple[int, ...]
    peak_step: int


def plan_arena(buffers: Sequence[Buffer], alignment: int = ALIGNMENT) -> ArenaPlan:
    """Place buffers as TensorFlow Lite Micro does: the largest first, each in the lowest gap that holds it among those
    that are alive at the same time; of equal ones the last given first.

    Their order is that in which the interpreter meets them: tensors by index, then scratch buffers.
    """
    sizes = {buffer.name: round_up(buffer.size_bytes, alignment) for buffer in buffers}
    offsets: dict[str, int] = {}
    placed: list[Buffer] = []
    last_first = list(reversed(buffers))
    for buffer in sorted(last_first, key=lambda buffer: -sizes[buffer.name]):
        together = [other for other in placed if _overlap(buffer, other)]
        spans = sorted((offsets[other.name], sizes[other.name]) for other in together)
        offsets[buffer.name] = _find_gap(spans, sizes[buffer.name])
        placed.append(buffer)
    alive = _sum_alive(buffers, sizes)
    return ArenaPlan(
        offsets={buffer.name: offsets[buffer.name] for buffer in buffers},
        peak_bytes=max((offsets[name] + size for name, size in sizes.items()), default=0),
        alive_bytes=alive,
        peak_step=alive.index(max(alive)) if alive else 0,
    )


def round_up(size_bytes: int, alignment: int = ALIGNMENT) -> int:
    """The next multiple of an alignment."""
    return -(-size_bytes // alignment) * alignment


def _overlap(buffer: Buffer, other: Buffer) -> bool:
    return buffer.first <= other.last and other.first <= buffer.last


def _find_gap(spans: Sequence[tuple[int, int]], size: int) -> int:
    """The lowest offset that is free for a size among spans (offset, size), which are sorted by offset."""
    offset = 0
    for start, length in spans:
        if start - offset >= size:
            break
        offset = max(offset, start + length)
    return offset


def _sum_alive(buffers: Sequence[Buffer], sizes: dict[str, int]) -> tuple[int, ...]:
    steps = 1 + max((buffer.last for buffer in buffers), default=-1)
    return tuple(
        sum(sizes[buffer.name] for buffer in buffers if buffer.first <= step <= buffer.last) for step in range(steps)
    )
