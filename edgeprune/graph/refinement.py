"""Dimensions that are viewed in several ways: the common view that is as fine as all of them.

A view of n slices as `s1 x s2 x ...` has *strides*: how many slices lie between two neighbours along an axis. An axis
reaches from its stride to that of the axis before it, so that the strides of a view cut the way from 1 to n.

    12 as 3 x 4:      1 ------- 4 ------ 12       strides 4, 1
    12 as 6 x 2:      1 -- 2 ----------- 12       strides 2, 1
    common 3 x 2 x 2: 1 -- 2 -- 4 ------ 12       all strides: each divides the next

Where one of two strides divides the other, both are strides of the common view. Where they *cross*, as 4 and 6 do,
no axis can end at either: a choice along `4 -> 12` is no choice along `6 -> 12`. Then all slices between their greatest
common divisor and their least common multiple hang together, and only what lies beside that can be chosen:

    12 as 3 x 4:      1 ------- 4 ----------- 12
    12 as 2 x 6:      1 ------------ 6 ------ 12
    common:           1 -- 2 ================ 12  slices k and k + 2 live and die together

The same holds along an axis without labels, as of flattened space: whatever another view takes from it stays.

Not brought together are views of dimensions that share only some of their labels, as that of a slice of a dimension and
that of the whole of it do. They are closed by pairing (`closure`), which may leave less to choose from than there is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from math import gcd, lcm, prod

import numpy as np

from edgeprune.graph.closure import Array, Relations, find_classes

Dim = Array | None
"""Labels of a dimension's slices, or None: every slice stays (batch, space, dimensions of size 1)."""
Reach = tuple[int, int]
"""From which stride to which an axis reaches."""


@dataclass(frozen=True)
class Axis:
    """One axis of a view: from where to where it reaches, and the labels of its places."""

    start: int
    end: int
    labels: Dim = None

    @property
    def size(self) -> int:
        """How many places it has."""
        return self.end // self.start

    def cut(self, axes: Iterable[Axis]) -> tuple[Axis, ...]:
        """What lies of other axes within this one, counted along this one."""
        inside = ((max(self.start, axis.start), min(self.end, axis.end), axis.labels) for axis in axes)
        return tuple(
            Axis(start // self.start, end // self.start, labels) for start, end, labels in inside if start < end
        )


@dataclass(frozen=True)
class Split:
    """A dimension viewed as several: a slice lives as long as its place on each of the axes does.

    There are two axes or more, each of several places, so that each is smaller than the whole.
    """

    whole: Array
    axes: tuple[Axis, ...]

    def columns(self) -> list[Array]:
        """For every slice of the whole, the label of its place on each axis that has labels."""
        places = np.arange(len(self.whole))
        return [axis.labels[places // axis.start % axis.size] for axis in self.axes if axis.labels is not None]


def split_of(whole: Array, sizes: Sequence[int], labels: Sequence[Dim]) -> Split:
    """A dimension viewed as several of these sizes, the last running fastest; sizes of 1 are left out."""
    ends = [prod(sizes[place:]) for place in range(len(sizes))]
    axes = [Axis(end // size, end, dim) for end, size, dim in zip(ends, sizes, labels, strict=True) if size > 1]
    return Split(whole, tuple(axes))


def refine(relations: Relations, splits: Sequence[Split]) -> Relations:
    """The relations with those that the splits are, each dimension in one view that is as fine as all of its own.

    All splits of a dimension (its labels being equal, place by place) give way to one with new labels. Each of their
    axes then is one axis of it, several, or frozen. One that is several is split in turn, so that other views of that
    axis are brought together, too.

    Why this ends: of the splits of one size at least one goes, and those that come are of smaller sizes. Written down
    by size, the largest first, the numbers of splits are those of a counter that runs backwards.
    """
    while len(dimensions := _group_by_dimension(relations, splits)) < len(splits):
        splits = []
        for views in dimensions:
            relations, common = _bring_together(relations, views) if len(views) > 1 else (relations, views)
            splits += common
    return _add(relations, splits)


def _group_by_dimension(relations: Relations, splits: Sequence[Split]) -> list[list[Split]]:
    """The splits of each dimension; dimensions are the same if their labels are, place by place."""
    classes, _ = find_classes(relations.edges, relations.count)
    dimensions = defaultdict[bytes, list[Split]](list)
    for split in splits:
        dimensions[classes[split.whole].tobytes()].append(split)
    return list(dimensions.values())


def _bring_together(relations: Relations, views: Sequence[Split]) -> tuple[Relations, list[Split]]:
    """What the views of a dimension have in common: new labels, what follows at once, and splits."""
    axes, count = _find_common_axes(views, relations.count)
    splits = [Split(views[0].whole, axes)]
    splits += [Split(axis.labels, axis.cut(axes)) for view in views for axis in view.axes if axis.labels is not None]
    stuck = [split.whole for split in splits if not split.columns()]
    frozen = [*relations.frozen, *((dim, _explain(views)) for dim in stuck)]
    free = [split for split in splits if split.columns()]
    relations = _add(replace(relations, count=count, frozen=frozen), [split for split in free if len(split.axes) == 1])
    return relations, [split for split in free if len(split.axes) > 1]


def _explain(views: Sequence[Split]) -> str:
    shapes = dict.fromkeys(" x ".join(str(axis.size) for axis in view.axes) for view in views)
    return f"it is viewed as {' and as '.join(shapes)}, of which no finer view is free to choose from"


def _add(relations: Relations, splits: Sequence[Split]) -> Relations:
    """Relations with what splits say: that the whole is bound to its axes, or is the only one that has labels."""
    bound = [(split.whole, split.columns()) for split in splits]
    edges = [*relations.edges, *((whole, columns[0]) for whole, columns in bound if len(columns) == 1)]
    bindings = [*relations.bindings, *((whole, columns) for whole, columns in bound if len(columns) > 1)]
    return replace(relations, edges=edges, bindings=bindings)


def _find_common_axes(views: Sequence[Split], count: int) -> tuple[tuple[Axis, ...], int]:
    """The axes of the common view, labelled from `count` on where they are free, and the next label."""
    axes = [axis for view in views for axis in view.axes]
    untracked = [(axis.start, axis.end) for axis in axes if axis.labels is None]
    common = []
    for (start, end), is_free in find_common_reaches([(axis.start, axis.end) for axis in axes], untracked):
        size = end // start if is_free else 0
        common.append(Axis(start, end, np.arange(count, count + size) if is_free else None))
        count += size
    return tuple(common), count


def find_common_reaches(reaches: Iterable[Reach], untracked: Iterable[Reach] = ()) -> list[tuple[Reach, bool]]:
    """The reaches of the common view's axes, the farthest first, and whether one may choose along each.

    Not free are the `untracked` reaches, and those between crossing strides; neighbours of them are one axis.
    """
    strides, blocked = _uncross({stride for reach in reaches for stride in reach}, list(untracked))
    common: list[tuple[Reach, bool]] = []
    for start, end in pairwise(strides):
        is_free = all(low % end == 0 or start % high == 0 for low, high in blocked)
        follows_blocked = bool(common) and not common[-1][1]
        if follows_blocked and not is_free:
            common[-1] = ((common[-1][0][0], end), False)
        else:
            common.append(((start, end), is_free))
    return common[::-1]


def _uncross(strides: set[int], blocked: list[Reach]) -> tuple[list[int], list[Reach]]:
    """Strides of which each divides the next, ascending, and what is blocked for that.

    Two strides that cross give way to their greatest common divisor and least common multiple. This ends: the product
    of the two stays, so that their sum grows and no stride outgrows the dimension.
    """
    while crossing := next((pair for pair in combinations(sorted(strides), 2) if pair[1] % pair[0]), None):
        merged = gcd(*crossing), lcm(*crossing)
        strides = strides.difference(crossing).union(merged)
        blocked = [*blocked, merged]
    return sorted(strides), blocked
