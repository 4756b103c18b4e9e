"""The same values in another shape, or in another order of axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from torch.fx import Node

from edgeprune.core.latency import steps as kinds
from edgeprune.graph.cut import Cut
from edgeprune.graph.labels import Dim
from edgeprune.graph.nodes import arg, operator_of, sizes_of
from edgeprune.graph.operators import build
from edgeprune.graph.operators.record import OperatorFamily, aten
from edgeprune.graph.walk import Dims, Shuffle, Value, Walk, freeze_all, untracked

VIEWS = aten("view reshape _unsafe_view flatten unflatten")
SWAPS = aten("transpose permute")
COPIES = aten("contiguous clone")
"""What may lie between the swap of a channel shuffle and its last view."""
MATRIX_TRANSPOSES = aten("t mT numpy_T")


def view(node: Node, walk: Walk) -> Value:
    """Merge and split dimensions; a view that ends a channel shuffle reorders its source's channels."""
    if node in walk.shuffles:
        shuffle = walk.shuffles[node]
        dims = list(walk.dims(_ancestor(node, shuffle.source)))
        dim = dims[shuffle.axis]
        dims[shuffle.axis] = None if dim is None else dim[shuffle.order]
        return tuple(dims)
    source = node.all_input_nodes[0]
    if _find_shuffle(node, source, walk):
        return untracked(node)
    return reshape(walk.dims(source), walk.sizes(source), walk.sizes(node), walk)


def view_as(node: Node, walk: Walk) -> Value:
    """Merge and split dimensions to the sizes of another tensor, whose slices then are the same."""
    source, other = node.args
    dims = reshape(walk.dims(source), walk.sizes(source), walk.sizes(node), walk)
    for left, right in zip(dims, walk.dims(other), strict=True):
        if left is not None and right is not None:
            walk.tie(node, left, right)
        elif left is not None or right is not None:
            walk.freeze(node, (left, right))
    return dims


def reshape(dims: Dims, old: Sequence[int], new: Sequence[int], walk: Walk) -> Dims:
    """Labels of dimensions `old` when they are viewed as `new`."""
    out: list[Dim] = [None] * len(new)
    for before, after in match_sizes(old, new):
        merged = walk.labels.merge([dims[axis] for axis in before], [old[axis] for axis in before])
        for axis, dim in zip(after, walk.labels.split(merged, [new[axis] for axis in after]), strict=True):
            out[axis] = dim
    return tuple(out)


def match_sizes(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes of equal product, axes of size 1 left out."""
    left = [axis for axis, size in enumerate(old) if size != 1]
    right = [axis for axis, size in enumerate(new) if size != 1]
    runs = []
    while left and right:
        before, after = [left.pop(0)], [right.pop(0)]
        while prod(old[axis] for axis in before) != prod(new[axis] for axis in after):
            if prod(old[axis] for axis in before) < prod(new[axis] for axis in after):
                before.append(left.pop(0))
            else:
                after.append(right.pop(0))
        runs.append((before, after))
    return runs


def _ancestor(node: Node, name: str) -> Node:
    source = node
    while source.name != name:
        source = source.all_input_nodes[0]
    return source


def _find_shuffle(node: Node, source: Node, walk: Walk) -> bool:
    """Whether `node` begins a channel shuffle (view to one more dimension, swap two, view back)."""
    sizes, inner = walk.sizes(source), walk.sizes(node)
    swap = _only_user(node)
    if len(inner) != len(sizes) + 1 or swap is None or operator_of(swap) not in SWAPS:
        return False
    last = _only_user(swap)
    while last is not None and operator_of(last) in COPIES:
        last = _only_user(last)
    swapped = walk.sizes(swap)
    axis = next((axis for axis in range(len(sizes)) if sizes[axis] != inner[axis]), 0)
    expected = [*range(axis), axis + 1, axis, *range(axis + 2, len(inner))]
    if last is None or operator_of(last) not in VIEWS or walk.sizes(last) != sizes:
        return False
    if swapped_axes(swap, len(inner)) != expected:
        return False
    if tuple(inner[place] for place in expected) != swapped or inner[axis] * inner[axis + 1] != sizes[axis]:
        return False
    order = np.arange(sizes[axis]).reshape(inner[axis], inner[axis + 1]).T.reshape(-1)
    walk.shuffles[last] = Shuffle(source.name, axis, order)
    step: Node = swap
    while step is not last:
        walk.skipped.add(step)
        step = next(iter(step.users))
    return True


def swapped_axes(node: Node, rank: int) -> list[int]:
    """The order of axes that a transposition or permutation gives, be it of the last two axes."""
    order = list(range(rank))
    if operator_of(node) in MATRIX_TRANSPOSES:
        return [*order[:-2], *order[:-3:-1]]
    if operator_of(node) == "aten.permute":
        axes = arg(node, 1, "dims")
        return [axis % rank for axis in axes]
    first, second = (int(arg(node, place)) % rank for place in (1, 2))
    order[first], order[second] = order[second], order[first]
    return order


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def permute(node: Node, walk: Walk) -> Value:
    """Axes in another order."""
    dims = walk.dims(arg(node, 0))
    return tuple(dims[axis] for axis in swapped_axes(node, len(dims)))


def move_axis(node: Node, walk: Walk) -> Value:
    """One axis to another place."""
    dims = list(walk.dims(arg(node, 0)))
    if not isinstance(arg(node, 1), int) or not isinstance(arg(node, 2), int):
        return freeze_all(node, walk)
    moved = dims.pop(arg(node, 1) % len(dims))
    dims.insert(arg(node, 2) % (len(dims) + 1), moved)
    return tuple(dims)


def squeeze(node: Node, walk: Walk) -> Value:
    """Axes of size 1 away or added: what is left keeps its labels in order."""
    source = node.all_input_nodes[0]
    dims = iter([dim for dim, size in zip(walk.dims(source), walk.sizes(source), strict=True) if size != 1])
    return tuple(None if size == 1 else next(dims) for size in walk.sizes(node))


def view_sizes(node: Node, cut: Cut) -> None:
    """`view`, `reshape`: every literal size counted anew; an open size that shrinks becomes -1."""
    if _end_shuffle(node, cut):
        return
    new: list[Any] = []
    for dim, size, real in zip(cut.dims(node), arg(node, 1), _traced_sizes(node), strict=True):
        if cut.mask(dim) is None:
            new.append(real if size == -1 and isinstance(real, int) else size)
        else:
            new.append(cut.count(dim, real) if isinstance(real, int) else -1)
    node.update_arg(1, new)


def flatten_sizes(node: Node, cut: Cut) -> None:
    """`flatten` has no literal; it can end a channel shuffle."""
    _end_shuffle(node, cut)


def _end_shuffle(node: Node, cut: Cut) -> bool:
    """A channel shuffle becomes a gather, since what stays need not fill the rectangle that it transposes."""
    shuffle = cut.analysis.shuffles.get(node.name)
    if shuffle is None:
        return False
    source = node
    while source.name != shuffle.source:
        source = source.all_input_nodes[0]
    build.gather_(node, source, shuffle.axis, cut.dims(source)[shuffle.axis], shuffle.order, cut)
    return True


def _traced_sizes(node: Node) -> tuple[Any, ...]:
    """The sizes before surgery, open ones as symbols."""
    return tuple(node.meta["val"].shape)


def unflatten_sizes(node: Node, cut: Cut) -> None:
    """`unflatten(dim, sizes)`."""
    sizes = list(arg(node, 2))
    start = int(arg(node, 1)) % len(sizes_of(node.all_input_nodes[0].meta["val"]))
    pairs = list(zip(cut.dims(node), _traced_sizes(node), strict=True))[start : start + len(sizes)]
    node.update_arg(2, [cut.count(dim, size) if isinstance(size, int) else -1 for dim, size in pairs])


FAMILIES = (
    OperatorFamily(
        aten("view reshape"), view, view_sizes, kinds.VIEW, places={"sizes": 1}, acts_per_channel=True, may_view=True
    ),
    OperatorFamily(aten("_unsafe_view"), view, view_sizes, kinds.VIEW, places={"sizes": 1}),
    OperatorFamily(aten("flatten"), view, flatten_sizes, kinds.VIEW, acts_per_channel=True, may_view=True),
    OperatorFamily(aten("unflatten"), view, unflatten_sizes, kinds.VIEW, acts_per_channel=True, may_view=True),
    OperatorFamily(aten("view_as reshape_as"), view_as, kind=kinds.VIEW, may_view=True),
    OperatorFamily(SWAPS, permute, kind=kinds.PERMUTE, acts_per_channel=True, may_view=True),
    OperatorFamily(aten("swapaxes t mT"), permute, kind=kinds.PERMUTE, may_view=True),
    OperatorFamily(aten("numpy_T"), permute, may_view=True),
    OperatorFamily(aten("movedim"), move_axis, may_view=True),
    OperatorFamily(aten("squeeze unsqueeze"), squeeze, kind=kinds.VIEW, acts_per_channel=True, may_view=True),
    OperatorFamily(aten("as_strided diagonal real view_as_complex view_as_real"), may_view=True),
)
