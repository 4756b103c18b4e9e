"""The bytes of a net's activations at each of its steps, as they follow the widths of its groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from edgeprune.core.latency.layers import Extent
from edgeprune.core.memory.arena import ArenaPlan, Buffer, plan_arena, round_up

LARGEST = 3
"""Tensors that are named where a net does not fit."""


@dataclass(frozen=True)
class Tensor:
    """A tensor that a net reads or computes: alive from step `first` to step `last`, both included."""

    name: str
    size_bytes: Extent
    first: int
    last: int


@dataclass(frozen=True)
class NetMemory:
    """What a file of a net holds in memory as it runs, for any widths of its groups.

    Step 0 is before the first operator, step n the n-th of the `operators`. `overhead_bytes` is what the interpreter
    takes beside the activations, no less than that.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[str, ...]
    overhead_bytes: Extent = Extent()

    @cached_property
    def groups(self) -> frozenset[str]:
        """The groups that it depends on."""
        sizes = (self.overhead_bytes, *(tensor.size_bytes for tensor in self.tensors))
        return frozenset[str]().union(*(size.groups for size in sizes))

    @cached_property
    def alive(self) -> tuple[tuple[Tensor, ...], ...]:
        """The tensors that are alive at each step."""
        steps = range(len(self.operators) + 1)
        return tuple(tuple(tensor for tensor in self.tensors if tensor.first <= step <= tensor.last) for step in steps)

    def buffers(self, widths: Mapping[str, int]) -> tuple[Buffer, ...]:
        """The tensors with their sizes in bytes at these widths."""
        return tuple(
            Buffer(tensor.name, tensor.size_bytes.at(widths), tensor.first, tensor.last) for tensor in self.tensors
        )

    def alive_bytes(self, widths: Mapping[str, int]) -> tuple[int, ...]:
        """What is alive at each step, in bytes, aligned: no arena is smaller than the most of it."""
        return tuple(sum(round_up(tensor.size_bytes.at(widths)) for tensor in alive) for alive in self.alive)

    def describe(self, tensor: Tensor) -> str:
        """A tensor for people, by the step that it is of: its own name is the converter's."""
        if tensor.first == 0:
            return "the input"
        step = f"step {tensor.first} ({self.operators[tensor.first - 1]})"
        is_workspace = tensor.first == tensor.last < len(self.operators)
        return f"the workspace of {step}" if is_workspace else f"the output of {step}"

    def plan(self, widths: Mapping[str, int]) -> ArenaPlan:
        """The activations as the interpreter lays them out."""
        return plan_arena(self.buffers(widths))

    def count(self, widths: Mapping[str, int]) -> int:
        """All that the net needs at these widths, in bytes: the laid-out activations, and what is beside them."""
        return self.plan(widths).peak_bytes + self.overhead_bytes.at(widths)

    def count_least(self, widths: Mapping[str, int]) -> int:
        """What no layout of the activations goes below at these widths, in bytes, overhead included."""
        return max(self.alive_bytes(widths), default=0) + self.overhead_bytes.at(widths)


@dataclass(frozen=True)
class ArenaLimit:
    """The most bytes of memory that a net may need."""

    memory: NetMemory
    most_bytes: int

    def find_excess(self, widths: Mapping[str, int]) -> int:
        """By how many bytes these widths are too big; 0 or less where they fit."""
        return self.memory.count(widths) - self.most_bytes

    def describe(self, widths: Mapping[str, int]) -> str:
        """For people: what these widths need, of how much, and where most of it is alive."""
        needed = self.memory.count(widths)
        return f"memory: {needed:,} of {self.most_bytes:,} bytes; most is alive at {self._describe_peak(widths)}"

    def describe_excess(self, widths: Mapping[str, int]) -> str:
        """For people: by how much these widths are too big, at which step, and what is alive there."""
        return f"too big by {self.find_excess(widths):,} bytes, because of {self._describe_peak(widths)}"

    def _describe_peak(self, widths: Mapping[str, int]) -> str:
        memory = self.memory
        alive_bytes = memory.alive_bytes(widths)
        step = alive_bytes.index(max(alive_bytes))
        operator = memory.operators[step - 1] if step else "the input"
        largest = sorted(memory.alive[step], key=lambda tensor: -tensor.size_bytes.at(widths))[:LARGEST]
        tensors = " and ".join(
            f"{memory.describe(tensor)} ({tensor.size_bytes.at(widths):,} bytes)" for tensor in largest
        )
        beside = memory.overhead_bytes.at(widths)
        overhead = f" beside {beside:,} bytes that the interpreter needs" if beside else ""
        return f"step {step} of {len(memory.operators)} ({operator}): {tensors}{overhead}"


def drop_covered(steps: Sequence[Sequence[Tensor]]) -> list[Sequence[Tensor]]:
    """The steps without those at which only tensors are alive that are so together at another step."""
    kept = list[Sequence[Tensor]]()
    for alive in sorted(steps, key=len, reverse=True):
        names = {tensor.name for tensor in alive}
        if not any(names <= {tensor.name for tensor in other} for other in kept):
            kept.append(alive)
    return kept
