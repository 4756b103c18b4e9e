"""Tensors cut into pieces and concatenated from them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from torch.fx import Node

from edgeprune.core.latency import steps as kinds
from edgeprune.graph.cut import Cut
from edgeprune.graph.labels import Array, Dim, join
from edgeprune.graph.nodes import arg, operator_of
from edgeprune.graph.operators import build
from edgeprune.graph.operators.record import OperatorFamily, aten
from edgeprune.graph.walk import Dims, Value, Walk, freeze_all, untracked


def concatenate(node: Node, walk: Walk) -> Value:
    """Labels end to end along the axis, tied along the others; untracked parts always stay."""
    parts = [part for part in arg(node, 0) if walk.sizes(part) != (0,)]
    rank = len(walk.sizes(node))
    axis = int(arg(node, 1, "dim", 0)) % rank
    out: list[Dim] = []
    for place in range(rank):
        dims = [walk.dims(part)[place] for part in parts]
        if place == axis:
            out.append(join(dims, [walk.sizes(part)[axis] for part in parts]))
            continue
        for other in dims[1:]:
            walk.tie(node, dims[0], other)
        out.append(dims[0])
    return tuple(out)


def stack(node: Node, walk: Walk) -> Value:
    """Tensors side by side along a new axis."""
    parts = arg(node, 0)
    axis = int(arg(node, 1, "dim", 0)) % len(walk.sizes(node))
    dims = [walk.dims(part) for part in parts]
    for place in range(len(dims[0])):
        for other in dims[1:]:
            walk.tie(node, dims[0][place], other[place])
    return (*dims[0][:axis], None, *dims[0][axis:])


def cut_slice(node: Node, walk: Walk) -> Value:
    """`x[start:end:step]` along one axis."""
    dims = list(walk.dims(arg(node, 0)))
    axis = int(arg(node, 1, "dim", 0)) % len(dims)
    dim, bounds = dims[axis], (arg(node, 2, "start"), arg(node, 3, "end"), arg(node, 4, "step", 1))
    if dim is not None and any(isinstance(bound, Node) for bound in bounds):  # an open size
        return freeze_all(node, walk)
    if dim is not None:
        dims[axis] = _several(node, walk, dim[slice(*bounds)])
    return tuple(dims)


def _several(node: Node, walk: Walk, part: Array) -> Dim:
    """Labels cut out of others; a single slice has to stay."""
    if len(part) > 1:
        return part
    walk.freeze(node, (part,), f"{node.name} ({operator_of(node)}) takes it alone")
    return None


def narrow(node: Node, walk: Walk) -> Value:
    """`length` slices from `start`."""
    dims = list(walk.dims(arg(node, 0)))
    axis, start, length = (arg(node, place) for place in (1, 2, 3))
    dim = dims[axis]
    if dim is not None:
        dims[axis] = _several(node, walk, dim[start : start + length])
    return tuple(dims)


def select(node: Node, walk: Walk) -> Value:
    """One slice, which then has to stay."""
    dims = list(walk.dims(arg(node, 0)))
    axis = int(arg(node, 1)) % len(dims)
    dim = dims.pop(axis)
    if dim is not None:
        place = int(arg(node, 2))
        walk.freeze(node, (dim[place : place + 1 or None],), f"{node.name} (aten.select) takes it alone")
    return tuple(dims)


def unbind(node: Node, walk: Walk) -> Value:
    """Every slice alone: all of them have to stay."""
    dims = list(walk.dims(arg(node, 0)))
    dim = dims.pop(int(arg(node, 1, "dim", 0)) % len(dims))
    walk.freeze(node, (dim,), f"{node.name} (aten.unbind) takes its slices apart")
    return [tuple(dims)] * len(node.meta["val"])


def cut(node: Node, walk: Walk) -> Value:
    """`split`, `chunk`, `split_with_sizes`: labels cut where the tensor is."""
    dims = walk.dims(arg(node, 0))
    axis = int(arg(node, 2, "dim", 0)) % len(dims)
    pieces: list[Dims] = []
    start = 0
    for value in node.meta["val"]:
        size, dim = int(value.shape[axis]), dims[axis]
        piece = None if dim is None else _several(node, walk, dim[start : start + size])
        pieces.append((*dims[:axis], piece, *dims[axis + 1 :]))
        start += size
    return pieces


def get_item(node: Node, walk: Walk) -> Value:
    """One of several tensors."""
    values = walk.values[arg(node, 0)]
    return values[int(arg(node, 1))] if isinstance(values, list) else untracked(node)


def slice_bounds(node: Node, cut: Cut) -> None:
    """`x[start:end]` counted among the slices that stay; with a step, a gather."""
    source = cut.dims(arg(node, 0))
    axis = int(arg(node, 1, "dim", 0)) % len(source)
    dim = source[axis]
    if cut.mask(dim) is None:
        return
    size, step = cut.sizes_before(arg(node, 0))[axis], arg(node, 4, "step", 1)
    start, end, step = slice(arg(node, 2, "start"), arg(node, 3, "end"), step).indices(size)
    if step != 1:
        build.gather_(node, arg(node, 0), axis, dim, np.arange(start, end, step), cut)
        return
    node.args = (arg(node, 0), axis, cut.position(dim, start), cut.position(dim, max(start, end)))
    node.kwargs = {}


def narrow_bounds(node: Node, cut: Cut) -> None:
    """`narrow(dim, start, length)`."""
    dim = cut.dims(arg(node, 0))[int(arg(node, 1))]
    start, length = int(arg(node, 2)), int(arg(node, 3))
    first = cut.position(dim, start)
    node.args = (arg(node, 0), arg(node, 1), first, cut.position(dim, start + length) - first)


def select_place(node: Node, cut: Cut) -> None:
    """The slice that `select` takes, counted among those that stay."""
    source = cut.dims(arg(node, 0))
    axis, place = int(arg(node, 1)) % len(source), int(arg(node, 2))
    if cut.mask(source[axis]) is not None:
        size = cut.sizes_before(arg(node, 0))[axis]
        node.args = (arg(node, 0), axis, cut.position(source[axis], place % size))


def cut_sizes(node: Node, cut: Cut) -> None:
    """`split` and `chunk` become a split into pieces as wide as what stays of each."""
    source = cut.dims(arg(node, 0))
    axis = int(arg(node, 2, "dim", 0)) % len(source)
    if cut.mask(source[axis]) is None:
        return
    pieces = [int(value.shape[axis]) for value in node.meta["val"]]
    bounds = [cut.position(source[axis], place) for place in np.cumsum([0, *pieces])]
    node.target = build.SPLIT
    node.args = (arg(node, 0), [end - start for start, end in pairwise(bounds)], axis)
    node.kwargs = {}


FAMILIES = (
    OperatorFamily(aten("cat"), concatenate, kind=kinds.CONCAT, acts_per_channel=True, reads_integers=True),
    OperatorFamily(aten("concat"), concatenate, kind=kinds.CONCAT),
    OperatorFamily(aten("stack"), stack, kind=kinds.CONCAT, acts_per_channel=True),
    OperatorFamily(aten("slice"), cut_slice, slice_bounds, acts_per_channel=True, may_view=True),
    OperatorFamily(aten("narrow"), narrow, narrow_bounds, acts_per_channel=True, may_view=True),
    OperatorFamily(aten("select"), select, select_place, acts_per_channel=True, may_view=True),
    OperatorFamily(aten("unbind"), unbind, acts_per_channel=True, may_view=True),
    OperatorFamily(aten("split chunk split_with_sizes"), cut, cut_sizes, acts_per_channel=True, may_view=True),
    OperatorFamily(aten("tensor_split"), cut, cut_sizes, may_view=True),
    OperatorFamily(("getitem",), get_item, acts_per_channel=True, may_view=True),
)
