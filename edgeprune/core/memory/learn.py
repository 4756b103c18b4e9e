"""How the sizes of a net's tensors follow its widths, learned from files of several widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from edgeprune.core.latency.layers import Extent
from edgeprune.core.memory.arena import Buffer, plan_arena
from edgeprune.core.memory.steps import NetMemory, Tensor
from edgeprune.errors import PlanError

WHOLE = 1e-6
"""How near to a whole number a factor has to lie."""
SHARED_EASE = 1e3
"""How much more readily an overhead is laid to what all channels share than to a single group's."""


@dataclass(frozen=True)
class FileMemory:
    """The tensors that a file holds in memory, in the order of its operators, and these by what they give."""

    buffers: tuple[Buffer, ...]
    operators: tuple[str, ...]

    @property
    def peak_bytes(self) -> int:
        """What the tensors take as they are laid out."""
        return plan_arena(self.buffers).peak_bytes

    @property
    def structure(self) -> tuple[tuple[int, int], ...]:
        """When each tensor is alive: alike in files that differ in widths alone."""
        return tuple((buffer.first, buffer.last) for buffer in self.buffers)


def learn_memory(
    files: Sequence[FileMemory], widths: Sequence[Mapping[str, int]], counts: Sequence[Extent]
) -> NetMemory:
    """What a net holds in memory at any widths, from files of these; `counts` are channel counts known of the net.

    Raises:
        PlanError: the files differ in more than widths, or a tensor's size follows no sum over widths.
    """
    first = files[0]
    if any(file.structure != first.structure for file in files):
        raise PlanError("the memory of this net cannot be planned: its files differ in more than their widths")
    tensors = []
    for place, buffer in enumerate(first.buffers):
        sizes = [file.buffers[place].size_bytes for file in files]
        size_bytes = find_extent(sizes, widths, counts)
        if size_bytes is None:
            raise PlanError(
                f"the memory of this net cannot be planned: the size of {buffer.name!r} follows no sum over the widths "
                "of its groups"
            )
        tensors.append(Tensor(buffer.name, size_bytes, buffer.first, buffer.last))
    return NetMemory(tuple(tensors), first.operators)


def find_extent(sizes: Sequence[int], widths: Sequence[Mapping[str, int]], counts: Sequence[Extent]) -> Extent | None:
    """The polynomial of widths that gives these sizes at these widths: a constant, a multiple of one of the `counts`,
    or else a sum over groups; None where none of them does for all.
    """
    if len(set(sizes)) == 1:
        return Extent(sizes[0])
    for count in counts:
        factor, rest = divmod(sizes[0], count.at(widths[0]) or 1)
        if not rest and all(factor * count.at(each) == size for size, each in zip(sizes, widths, strict=True)):
            return Extent(factor * count.constant, tuple((factor * share, names) for share, names in count.terms))
    return _find_sum(sizes, widths)


def _find_sum(sizes: Sequence[int], widths: Sequence[Mapping[str, int]]) -> Extent | None:
    """A constant and a whole number of bytes for each channel of each group, required to give every size."""
    groups = sorted(widths[0])
    rows = np.array([[1, *(each[group] for group in groups)] for each in widths], float)
    factors, _, rank, _ = np.linalg.lstsq(rows, np.array(sizes, float), rcond=None)
    is_settled = rank == len(groups) + 1 < len(widths)
    nearest = np.rint(factors)
    if not is_settled or np.abs(factors - nearest).max() > WHOLE * max(1.0, np.abs(factors).max()):
        return None
    terms = tuple((int(factor), (group,)) for factor, group in zip(nearest[1:], groups, strict=True) if factor)
    extent = Extent(int(nearest[0]), terms)
    is_exact = all(extent.at(each) == size for size, each in zip(sizes, widths, strict=True))
    return extent if is_exact and all(factor > 0 for factor, _ in terms) else None


def bound_overhead(overheads: Sequence[int], widths: Sequence[Mapping[str, int]]) -> Extent:
    """What an interpreter needs beside the activations, as a bound that is linear in the widths: no overhead that was
    counted lies above it.

    What it keeps for a channel hardly depends on the group, and there may be more groups than files: of all factors
    that fit, those are taken that lie nearest to one that all share.
    """
    groups = sorted(widths[0])
    channels = np.array([[each[group] for group in groups] for each in widths], float)
    shared = SHARED_EASE * np.column_stack([np.ones(len(widths)), channels.sum(axis=1)])
    parts = np.linalg.lstsq(np.hstack([shared, channels]), np.array(overheads, float), rcond=None)[0]
    per_channel = np.maximum(np.rint(SHARED_EASE * parts[1] + parts[2:]), 0).astype(int)
    missed = np.array(overheads) - channels @ per_channel
    terms = tuple((int(factor), (group,)) for factor, group in zip(per_channel, groups, strict=True) if factor)
    return Extent(ceil(missed.max()), terms)
