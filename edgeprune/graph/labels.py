"""Labels of tensor slices, the relations between them, and the atoms of pruning that solve these relations.

Every slice along a tracked dimension of a tensor carries an integer label. Two relations are collected while the
graph is walked: *equality* (two slices live and die together) and *binding* (a slice lives exactly as long as all
of its parts do, as the element `(head, column)` of a merged dimension does). `solve` closes them: classes of equal
labels, and for each class the *atoms* (unbound classes) whose conjunction it is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Array = NDArray[np.int64]
Mask = NDArray[np.bool_]
Dim = Array | None
"""Labels of a dimension's slices, or None: every slice stays (batch, space, dimensions of size 1)."""

ALWAYS = 0
"""The label of a slice that always stays."""
NONE = -1
"""Padding of a row of parts."""


@dataclass
class Labels:
    """The labels given out so far and what is known about them."""

    count: int = 1
    edges: list[tuple[Array, Array]] = field(default_factory=list)
    bindings: list[tuple[Array, list[Array]]] = field(default_factory=list)
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
        whole = np.arange(self.count, self.count + len(parts[0]))
        self._starts.append(self.count)
        self._merged.append(list(parts))
        self.count += len(whole)
        self.bind(whole, parts)
        return whole

    def parts(self, dim: Array) -> list[Array]:
        """The parts of labels that `both` has made, or the labels themselves."""
        where = bisect_right(self._starts, int(dim.min())) - 1
        if where < 0:
            return [dim]
        start, columns = self._starts[where], self._merged[where]
        if int(dim.max()) >= start + len(columns[0]):
            return [dim]
        return [part for column in columns for part in self.parts(column[dim - start])]

    def merge(self, dims: Sequence[Dim], sizes: Sequence[int]) -> Dim:
        """The labels of several dimensions flattened to one, the last running fastest."""
        if len(dims) == 1:
            return dims[0]
        shape, columns = tuple(sizes), []
        for axis, dim in enumerate(dims):
            if dim is not None:
                spread = dim.reshape((-1,) + (1,) * (len(shape) - axis - 1))
                columns.append(np.broadcast_to(spread, shape).reshape(-1))
        return self.both(columns) if columns else None

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
        block = column.reshape(sizes)
        lines = [block[(0,) * axis + (slice(None),) + (0,) * (len(sizes) - axis - 1)] for axis in range(len(sizes))]
        varying = [axis for axis, line in enumerate(lines) if bool((line != line[0]).any())]
        if len(varying) == 1:
            axis = varying[0]
            shape = (-1,) + (1,) * (len(sizes) - axis - 1)
            if bool((block == lines[axis].reshape(shape)).all()):
                axes[axis].append(lines[axis])
                return
        if bool((block == block.flat[0]).all()):
            self.freeze(column[:1], "the whole dimension hangs on it")
            return
        made = [self.fresh(size) for size in sizes]
        spread = [
            np.broadcast_to(new.reshape((-1,) + (1,) * (len(sizes) - axis - 1)), sizes).reshape(-1)
            for axis, new in enumerate(made)
            if new is not None
        ]
        self.bind(column, spread)
        for axis, new in enumerate(made):
            if new is not None:
                axes[axis].append(new)


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
    """Close the relations: equal classes, agreeing bindings, frozen parts of frozen wholes."""
    wholes, rows = _stack(labels.bindings)
    classes, count = _components(labels.edges, labels.count)
    while True:
        whole, row = classes[wholes], _look_up(classes, rows)
        frozen = _frozen_classes(labels, classes, whole, row)
        atoms, found = _close(whole, _reduce(row, np.fromiter(frozen, np.int64, len(frozen))), count)
        if not found:
            break
        joined, count = _components(found, count)
        classes = joined[classes]
    kinds = {int(classes[label]): kind for dim, kind in labels.kinds for label in dim}
    return Solution(atoms[classes], count, frozen, kinds)


def _stack(bindings: Sequence[tuple[Array, list[Array]]]) -> tuple[Array, Array]:
    width = max((len(parts) for _, parts in bindings), default=1)
    wholes = [whole for whole, _ in bindings]
    rows = []
    for whole, parts in bindings:
        row = np.full((len(whole), width), NONE, np.int64)
        row[:, : len(parts)] = np.stack(parts, 1)
        rows.append(row)
    if not rows:
        return np.zeros(0, np.int64), np.zeros((0, 1), np.int64)
    return np.concatenate(wholes), np.concatenate(rows)


def _components(edges: Sequence[tuple[Array, Array]], count: int) -> tuple[Array, int]:
    left = np.concatenate([edge[0] for edge in edges]) if edges else np.zeros(0, np.int64)
    right = np.concatenate([edge[1] for edge in edges]) if edges else np.zeros(0, np.int64)
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(count, count))
    found, classes = connected_components(graph, directed=False)
    return classes.astype(np.int64), int(found)


def _look_up(classes: Array, rows: Array) -> Array:
    return np.where(rows == NONE, NONE, classes[rows])


def _frozen_classes(labels: Labels, classes: Array, whole: Array, row: Array) -> dict[int, str]:
    """Reason by class; what a frozen whole is made of is frozen too."""
    frozen: dict[int, str] = {int(classes[ALWAYS]): "always there"}
    for dim, reason in labels.frozen:
        for one in np.unique(classes[dim]):
            frozen.setdefault(int(one), reason)
    while True:
        is_frozen = np.isin(whole, np.fromiter(frozen, np.int64, len(frozen)))
        more = {
            int(part): frozen[int(one)]
            for one, parts in zip(whole[is_frozen], row[is_frozen], strict=True)
            for part in parts
            if part != NONE and int(part) not in frozen
        }
        stuck = ((row == NONE) | np.isin(row, np.fromiter(frozen, np.int64, len(frozen)))).all(axis=1) & ~is_frozen
        more |= {int(one): frozen[int(part)] for one, part in zip(whole[stuck], row[stuck, 0], strict=True)}
        if not more:
            return frozen
        frozen.update(more)


def _reduce(row: Array, frozen: Array) -> Array:
    """Rows without frozen parts and repetitions, moved to the left."""
    row = np.where(np.isin(row, frozen), NONE, row)
    for column in range(1, row.shape[1]):
        repeated = (row[:, :column] == row[:, column : column + 1]).any(axis=1)
        row[repeated, column] = NONE
    order = np.argsort(row == NONE, axis=1, kind="stable")
    row = np.take_along_axis(row, order, axis=1)
    return row[:, : max(1, int((row != NONE).sum(axis=1).max(initial=0)))]


def _close(whole: Array, row: Array, count: int) -> tuple[Array, list[tuple[Array, Array]]]:
    """The atoms of every class, and the equalities that are still missing for them to be well defined.

    Every equality found joins two classes that were different, so that repeating this ends.
    """
    lengths = (row != NONE).sum(axis=1)
    single = lengths == 1
    found = [(whole[single], row[single, 0])] if bool((whole[single] != row[single, 0]).any()) else []
    inside = (row == whole[:, None]).any(axis=1) & (lengths > 1)
    found += _unite(whole[inside], row[inside])
    whole, row = whole[lengths > 1], row[lengths > 1]
    if found:
        return row, found
    first = np.full(count, NONE, np.int64)
    first[whole[::-1]] = np.arange(len(whole))[::-1]
    expanded, cyclic = _expand(row, row, first)
    if bool(cyclic.any()):
        return row, _unite(whole[cyclic], row[cyclic])
    found = _agree(whole, expanded)
    atoms = np.full((count, expanded.shape[1]), NONE, np.int64)
    atoms[:, 0] = np.arange(count)
    atoms[whole] = expanded
    return atoms, found


def _unite(whole: Array, row: Array) -> list[tuple[Array, Array]]:
    """Equalities of every whole with all of its parts."""
    return [
        (whole[row[:, column] != NONE], row[row[:, column] != NONE, column])
        for column in range(row.shape[1])
        if bool((row[:, column] != NONE).any())
    ]


def _expand(row: Array, table: Array, first: Array) -> tuple[Array, Mask]:
    """Replace bound parts by their own parts until only atoms are left; says which rows run in circles."""
    for _ in range(8):
        bound = (row != NONE) & (first[row] != NONE)
        if not bool(bound.any()):
            return row, np.zeros(len(row), np.bool_)
        deeper = np.where(bound[..., None], table[first[row]], NONE)
        deeper[..., 0] = np.where(bound, deeper[..., 0], row)
        row = _reduce(deeper.reshape(len(row), prod(deeper.shape[1:])), np.zeros(0, np.int64))
    return row, ((row != NONE) & (first[row] != NONE)).any(axis=1)


def _agree(whole: Array, row: Array) -> list[tuple[Array, Array]]:
    """Equalities that make all rows of one class the same set of atoms."""
    order = np.argsort(whole, kind="stable")
    same = whole[order][1:] == whole[order][:-1]
    upper, lower = row[order][1:][same], row[order][:-1][same]
    differs = (np.sort(upper, axis=1) != np.sort(lower, axis=1)).any(axis=1)
    upper, lower = upper[differs], lower[differs]
    fits = (upper != NONE).sum(axis=1) == (lower != NONE).sum(axis=1)
    found = _pairs(upper[fits], lower[fits])
    wild_upper, wild_lower = upper[~fits], lower[~fits]
    if len(wild_upper):
        found += _unite(wild_upper[:, 0], wild_upper) + _unite(wild_upper[:, 0], wild_lower)
    return found


def _pairs(upper: Array, lower: Array) -> list[tuple[Array, Array]]:
    used = upper != NONE
    return [(upper[used], lower[used])] if bool(used.any()) else []
