"""Labels of tensor slices, and the relations between them that say which slices live and die together.

Every slice along a tracked dimension of a tensor carries an integer label. Three relations are collected while the
graph is walked: *equality* (two slices live and die together), *binding* (a slice lives exactly as long as all of its
parts do, as the element `(head, column)` of a merged dimension does), and *splits* (a dimension viewed as several).
`solve` closes them: classes of equal labels, and for each class the *atoms* (unbound classes) whose conjunction it is.

An example. A convolution gives 8 channels; a group norm sees them as 2 x 4, a grouped convolution as 4 x 2:

    channel           0      1      2      3      4      5      6      7
    seen as 2 x 4     a0 b0  a0 b1  a0 b2  a0 b3  a1 b0  a1 b1  a1 b2  a1 b3
    seen as 4 x 2     c0 d0  c0 d1  c1 d0  c1 d1  c2 d0  c2 d1  c3 d0  c3 d1

What stays has to fill a rectangle in both views, so that they still can be taken. `refinement` finds the common view
2 x 2 x 2, with new labels x, y, z, to which all others are bound:

    channel           0      1      2      3      4      5      6      7
    as 2 x 2 x 2      x0y0z0 x0y0z1 x0y1z0 x0y1z1 x1y0z0 x1y0z1 x1y1z0 x1y1z1
    then              a = x,  b = y z,  c = x y,  d = z,  as b2 = y1 z0 and c2 = x1 y0

`closure` replaces every bound label by its parts until only x, y and z are left. These are the atoms: any of them may
go. Without y1 the channels 2, 3, 6 and 7 go, and 4 are left, seen as 2 x 2 by both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeprune.graph import closure
from edgeprune.graph.refinement import Split, refine, split_of

Array = NDArray[np.int64]
Mask = NDArray[np.bool_]
Dim = Array | None
"""Labels of a dimension's slices, or None: every slice stays (batch, space, dimensions of size 1)."""
ALWAYS, NONE = closure.ALWAYS, closure.NONE
"""The label of a slice that always stays, and the padding of a row of atoms."""


@dataclass
class Labels:
    """The labels given out so far and what is known about them."""

    count: int = 1
    edges: list[tuple[Array, Array]] = field(default_factory=list)
    bindings: list[tuple[Array, list[Array]]] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    frozen: list[tuple[Array, str]] = field(default_factory=list)
    kinds: list[tuple[Array, str]] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _merged: list[list[Array]] = field(default_factory=list)

    def fresh(self, size: int) -> Dim:
        """New labels for `size` slices; a dimension of size 1 (or 0) is not tracked."""
        if size <= 1:
            return None
        self.count += size
        return np.arange(self.count - size, self.count)

    def tie(self, left: Dim, right: Dim, reason: str) -> None:
        """Slice by slice, both live and die together; a dimension that is not tracked freezes the other."""
        if left is right:
            return
        if left is None or right is None or left.shape != right.shape:
            self.freeze(left, reason)
            self.freeze(right, reason)
        else:
            self.edges.append((left, right))

    def freeze(self, dim: Dim, reason: str) -> None:
        """Every slice of `dim` stays."""
        if dim is not None:
            self.frozen.append((dim, reason))

    def call(self, dim: Dim, kind: str) -> None:
        """Name what the slices of `dim` are: heads, groups."""
        if dim is not None:
            self.kinds.append((dim, kind))

    def bind(self, whole: Array, parts: Sequence[Array]) -> None:
        """Slice i of `whole` lives as long as `part[i]` does for each part."""
        if len(parts) == 1:
            self.edges.append((whole, parts[0]))
        else:
            self.bindings.append((whole, list(parts)))

    def both(self, parts: Sequence[Array]) -> Array:
        """The labels of slices that live as long as all of their parts do."""
        if len(parts) == 1:
            return parts[0]
        whole = self._merged_from(parts)
        self.bind(whole, parts)
        return whole

    def _merged_from(self, parts: Sequence[Array]) -> Array:
        """New labels whose parts are known to `parts`, but which are not bound to them yet."""
        whole = np.arange(self.count, self.count + len(parts[0]))
        self._starts.append(self.count)
        self._merged.append(list(parts))
        self.count += len(whole)
        return whole

    def parts(self, dim: Array) -> list[Array]:
        """The parts of labels that `both` or `merge` has made, or the labels themselves."""
        where = bisect_right(self._starts, int(dim.min())) - 1
        if where < 0:
            return [dim]
        start, columns = self._starts[where], self._merged[where]
        if int(dim.max()) >= start + len(columns[0]):
            return [dim]
        return [part for column in columns for part in self.parts(column[dim - start])]

    def merge(self, dims: Sequence[Dim], sizes: Sequence[int]) -> Dim:
        """The labels of several dimensions flattened to one, the last running fastest."""
        columns = spread(dims, sizes)
        if not columns or len(dims) == 1:
            return dims[0]
        if min(sizes) == 1:
            return self.both(columns)
        whole = columns[0] if len(columns) == 1 else self._merged_from(columns)
        self.splits.append(split_of(whole, sizes, dims))
        return whole

    def split(self, dim: Dim, sizes: Sequence[int]) -> list[Dim]:
        """The labels of the dimensions that a dimension is unflattened to; inverse of `merge`.

        Labels that vary along several of them are bound to new ones, so that what remains is rectangular.
        """
        if dim is None or len(sizes) == 1:
            return [dim] * len(sizes)
        axes: list[list[Array]] = [[] for _ in sizes]
        for column in self.parts(dim):
            self._spread(column, tuple(sizes), axes)
        return [self.both(columns) if columns else None for columns in axes]

    def _spread(self, column: Array, sizes: tuple[int, ...], axes: list[list[Array]]) -> None:
        """Add to each axis the labels that a column of this view varies by along it: its own, or new ones."""
        block = column.reshape(sizes)
        if bool((block == block.flat[0]).all()):
            self.freeze(column[:1], "the whole dimension hangs on it")
            return
        axis, line = _find_only_axis(block)
        if line is not None:
            axes[axis].append(line)
            return
        parts = [self.fresh(size) for size in sizes]
        self.splits.append(split_of(column, sizes, parts))
        for place, new in enumerate(parts):
            if new is not None:
                axes[place].append(new)


def _find_only_axis(block: Array) -> tuple[int, Dim]:
    """The only axis along which labels vary, and their values there; None where they vary along several."""
    for axis in range(block.ndim):
        line = block[(0,) * axis + (slice(None),) + (0,) * (block.ndim - axis - 1)]
        if bool((block == line.reshape((-1,) + (1,) * (block.ndim - axis - 1))).all()):
            return axis, line
    return 0, None


def spread(dims: Sequence[Dim], sizes: Sequence[int]) -> list[Array]:
    """The labels of each dimension that has some, for every slice of their product, the last running fastest."""
    columns = []
    for axis, dim in enumerate(dims):
        if dim is not None:
            line = dim.reshape((-1,) + (1,) * (len(sizes) - axis - 1))
            columns.append(np.broadcast_to(line, tuple(sizes)).reshape(-1))
    return columns


def join(dims: Sequence[Dim], sizes: Sequence[int]) -> Dim:
    """Labels end to end; slices without labels always stay."""
    if all(dim is None for dim in dims):
        return None
    return np.concatenate(
        [np.zeros(size, np.int64) if dim is None else dim for dim, size in zip(dims, sizes, strict=True)]
    )


@dataclass(frozen=True)
class Solution:
    """Classes of labels and the atoms that decide over them.

    `atoms[label]` is a row of atoms, padded with NONE: the slice lives as long as all of them do.
    `frozen` gives the reason for each atom that must stay; `kinds` what an atom is, where a rule said so.
    """

    atoms: Array
    count: int
    frozen: dict[int, str]
    kinds: dict[int, str]


def solve(labels: Labels) -> Solution:
    """Close the relations: equal classes, dimensions as fine as their views, frozen parts of frozen wholes."""
    relations = closure.Relations(labels.count, labels.edges, labels.bindings, labels.frozen)
    closed = closure.close(refine(relations, labels.splits))
    return Solution(closed.atoms[closed.classes], closed.count, closed.frozen, _name_kinds(labels, closed))


def _name_kinds(labels: Labels, closed: closure.Closure) -> dict[int, str]:
    """What each atom is: what its label was called, or the label that was refined to it."""
    refined, kinds = set(closed.classes[labels.count :].tolist()), dict[int, str]()
    for dim, kind in labels.kinds:
        for label_class in closed.classes[dim].tolist():
            kinds[label_class] = kind
            kinds |= dict.fromkeys(refined.intersection(closed.atoms[label_class].tolist()), kind)
    return kinds
