"""Relations between labels closed: classes of equal labels, and for each class the atoms that decide over it.

Two relations are given: *equality* of labels, and *binding* of a whole to its parts, `whole = part & part & ...`. An
atom is a class that is bound to nothing. Closing adds equalities until every class is one conjunction of atoms:

- a whole with a single part is that part;
- a whole that is a part of itself, be it through other wholes, is one with the parts of that circle;
- two bindings of one class have the same atoms: those that they do not share are paired.

Each of these is enough for the relations to hold, but not always needed: what is closed can be cut in any way, yet
there may be more cuts. This ends, as every equality that is added joins two classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Array = NDArray[np.int64]
Mask = NDArray[np.bool_]
Edge = tuple[Array, Array]
"""Labels that are equal, place by place."""
Binding = tuple[Array, list[Array]]
"""Wholes and their first, second, ... parts, place by place."""

ALWAYS = 0
"""The label of a slice that always stays."""
NONE = -1
"""Padding of a row of parts."""


@dataclass(frozen=True)
class Relations:
    """What is known about `count` labels; `frozen` are those that always stay, with the reason."""

    count: int
    edges: Sequence[Edge] = ()
    bindings: Sequence[Binding] = ()
    frozen: Sequence[tuple[Array, str]] = ()


@dataclass(frozen=True)
class Closure:
    """The class of each label, and the atoms of each class: a row of classes, padded with NONE.

    `frozen` gives the reason for each class that always stays. Frozen atoms are left out of the rows of others.
    """

    classes: Array
    count: int
    atoms: Array = field(repr=False)
    frozen: dict[int, str] = field(repr=False)


def close(relations: Relations) -> Closure:
    """Add equalities until every class is a conjunction of atoms."""
    wholes, rows = _stack(relations.bindings)
    classes, count = find_classes(relations.edges, relations.count)
    while True:
        whole, row = classes[wholes], np.where(rows == NONE, NONE, classes[rows])
        frozen = _find_frozen(relations, classes, whole, row)
        row = _reduce(row, _keys(frozen))
        whole, row, missing = _settle(whole, row, count)
        if not missing:
            return Closure(classes, count, _list_atoms(whole, row, count), frozen)
        joined, count = find_classes(missing, count)
        classes = joined[classes]


def find_classes(edges: Sequence[Edge], count: int) -> tuple[Array, int]:
    """The class of each of `count` labels, and how many classes there are."""
    left = np.concatenate([np.zeros(0, np.int64), *(edge[0] for edge in edges)])
    right = np.concatenate([np.zeros(0, np.int64), *(edge[1] for edge in edges)])
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(count, count))
    number, classes = connected_components(graph, directed=False)
    return classes.astype(np.int64), int(number)


def _stack(bindings: Sequence[Binding]) -> tuple[Array, Array]:
    """All wholes, and their parts as rows of one width."""
    width = max((len(parts) for _, parts in bindings), default=1)
    wholes, rows = [np.zeros(0, np.int64)], [np.zeros((0, width), np.int64)]
    for whole, parts in bindings:
        row = np.full((len(whole), width), NONE, np.int64)
        row[:, : len(parts)] = np.stack(parts, 1)
        wholes.append(whole)
        rows.append(row)
    return np.concatenate(wholes), np.concatenate(rows)


def _keys(frozen: dict[int, str]) -> Array:
    return np.fromiter(frozen, np.int64, len(frozen))


def _find_frozen(relations: Relations, classes: Array, whole: Array, row: Array) -> dict[int, str]:
    """Reason by class: parts of what is frozen are frozen too, and wholes of which all parts are."""
    frozen: dict[int, str] = {int(classes[ALWAYS]): "always there"}
    for dim, reason in relations.frozen:
        for label_class in np.unique(classes[dim]):
            frozen.setdefault(int(label_class), reason)
    while more := _freeze_parts(whole, row, frozen) | _freeze_wholes(whole, row, frozen):
        frozen.update(more)
    return frozen


def _freeze_parts(whole: Array, row: Array, frozen: dict[int, str]) -> dict[int, str]:
    """The parts of frozen wholes that are not known to be frozen yet."""
    is_frozen = np.isin(whole, _keys(frozen))
    return {
        int(part): frozen[int(frozen_whole)]
        for frozen_whole, parts in zip(whole[is_frozen], row[is_frozen], strict=True)
        for part in parts
        if part != NONE and int(part) not in frozen
    }


def _freeze_wholes(whole: Array, row: Array, frozen: dict[int, str]) -> dict[int, str]:
    """The wholes of frozen parts that are not known to be frozen yet."""
    keys = _keys(frozen)
    is_stuck = ((row == NONE) | np.isin(row, keys)).all(axis=1) & ~np.isin(whole, keys)
    return {int(stuck): frozen[int(part)] for stuck, part in zip(whole[is_stuck], row[is_stuck, 0], strict=True)}


def _reduce(row: Array, frozen: Array) -> Array:
    """Rows without frozen parts and repetitions, moved to the left."""
    row = np.where(np.isin(row, frozen), NONE, row)
    for column in range(1, row.shape[1]):
        repeated = (row[:, :column] == row[:, column : column + 1]).any(axis=1)
        row[repeated, column] = NONE
    return _move_left(row)


def _move_left(row: Array) -> Array:
    """Rows with their padding at the end, and no column of padding alone beside the first."""
    order = np.argsort(row == NONE, axis=1, kind="stable")
    row = np.take_along_axis(row, order, axis=1)
    return row[:, : max(1, int(_lengths(row).max(initial=0)))]


def _lengths(row: Array) -> Array:
    return np.asarray((row != NONE).sum(axis=1), np.int64)


def _settle(whole: Array, row: Array, count: int) -> tuple[Array, Array, list[Edge]]:
    """Bound classes with their atoms, and the equalities that are still missing; the atoms count where none is."""
    missing = _equate_single_parts(whole, row)
    whole, row = whole[_lengths(row) > 1], row[_lengths(row) > 1]
    missing += _equate_circles(whole, row, count)
    if not missing:
        row = expand(whole, row, count)
        missing = _equate_atoms(whole, row)
    return whole, row, missing


def _list_atoms(whole: Array, row: Array, count: int) -> Array:
    """The row of atoms of every class: its own number where it is bound to nothing."""
    atoms = np.full((count, row.shape[1]), NONE, np.int64)
    atoms[:, 0] = np.arange(count)
    atoms[whole] = row
    return atoms


def _equate_single_parts(whole: Array, row: Array) -> list[Edge]:
    """A whole with one part is that part."""
    differs = (_lengths(row) == 1) & (row[:, 0] != whole)
    return [(whole[differs], row[differs, 0])] if bool(differs.any()) else []


def _equate_circles(whole: Array, row: Array, count: int) -> list[Edge]:
    """A whole is one with all parts of a binding that leads back to it.

    From `a = b & p` and `b = a & q` follows `a = b`, and that p and q live wherever a does, which no free choice of
    p and q grants: they are the same.
    """
    place, column = (row != NONE).nonzero()
    graph = coo_array((np.ones(len(place)), (whole[place], row[place, column])), shape=(count, count))
    _, circle = connected_components(graph, directed=True, connection="strong")
    leads_back = ((row != NONE) & (circle[row] == circle[whole][:, None])).any(axis=1)
    return _equate_all(whole[leads_back], row[leads_back])


def _equate_all(anchor: Array, row: Array) -> list[Edge]:
    """The anchor of each row is one with all that is in the row."""
    columns = ((row[:, column] != NONE, row[:, column]) for column in range(row.shape[1]))
    return [(anchor[is_used], part[is_used]) for is_used, part in columns if bool(is_used.any())]


def expand(whole: Array, row: Array, count: int) -> Array:
    """Replace bound parts by their own parts until only atoms are left.

    Why this ends: no whole leads back to itself, so that each class has a height, the length of the longest way down
    from it to an atom. A round replaces every bound part by parts of lower heights, hence lowers the greatest height
    in any row by one. No way down passes a whole twice: the rounds are at most as many as there are wholes.

    Raises:
        RuntimeError: a whole leads back to itself.
    """
    table, first = row, np.full(count, NONE, np.int64)
    first[whole[::-1]] = np.arange(len(whole))[::-1]
    for _ in range(len(whole) + 1):
        is_bound = (row != NONE) & (first[row] != NONE)
        if not bool(is_bound.any()):
            return row
        parts = np.where(is_bound[..., None], table[first[row]], NONE)
        parts[..., 0] = np.where(is_bound, parts[..., 0], row)
        row = _reduce(parts.reshape(len(row), -1), np.zeros(0, np.int64))
    raise RuntimeError("bindings run in circles")


def _equate_atoms(whole: Array, row: Array) -> list[Edge]:
    """Equalities that make all rows of one class the same set of atoms.

    Atoms that two rows share stay as they are. The others are paired in their order where they are equally many;
    else, as in `a & b = c & d & e`, they are all one.
    """
    order = np.argsort(whole, kind="stable")
    is_same = whole[order][1:] == whole[order][:-1]
    upper, lower = row[order][1:][is_same], row[order][:-1][is_same]
    upper_rest, lower_rest = _without(upper, lower), _without(lower, upper)
    upper_count, lower_count = _lengths(upper_rest), _lengths(lower_rest)
    fits, differs = upper_count == lower_count, upper_count + lower_count > 0
    anchor = np.where(lower_count == 0, lower[:, 0], np.where(upper_count == 0, upper[:, 0], upper_rest[:, 0]))
    odd = differs & ~fits
    return [
        *_pair(upper_rest[differs & fits], lower_rest[differs & fits]),
        *_equate_all(anchor[odd], upper_rest[odd]),
        *_equate_all(anchor[odd], lower_rest[odd]),
    ]


def _without(row: Array, other: Array) -> Array:
    """What is in each row and not in the other one beside it, moved to the left."""
    is_shared = (row[:, :, None] == other[:, None, :]).any(axis=2)
    return _move_left(np.where(is_shared, NONE, row))


def _pair(upper: Array, lower: Array) -> list[Edge]:
    width = min(upper.shape[1], lower.shape[1])
    upper, lower = upper[:, :width], lower[:, :width]
    is_used = upper != NONE
    return [(upper[is_used], lower[is_used])] if bool(is_used.any()) else []
