"""Slices in another order, or picked by an index."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.fx import Node

from edgeprune.errors import GraphError
from edgeprune.graph.cut import Cut
from edgeprune.graph.labels import Array
from edgeprune.graph.nodes import arg, operator_of, sizes_of
from edgeprune.graph.operators import build
from edgeprune.graph.operators.record import OperatorFamily, aten
from edgeprune.graph.walk import Value, Walk, freeze_all


def flip(node: Node, walk: Walk) -> Value:
    """Axes in reverse order."""
    dims = list(walk.dims(arg(node, 0)))
    for axis in arg(node, 1):
        dim = dims[axis]
        dims[axis] = None if dim is None else dim[::-1]
    return tuple(dims)


def roll(node: Node, walk: Walk) -> Value:
    """Axes rotated."""
    dims, axes = list(walk.dims(arg(node, 0))), arg(node, 2, "dims", [])
    if not axes:
        return freeze_all(node, walk)
    for shift, axis in zip(arg(node, 1), axes, strict=True):
        dim = dims[axis]
        dims[axis] = None if dim is None else np.roll(dim, shift)
    return tuple(dims)


def index_select(node: Node, walk: Walk) -> Value:
    """Slices picked by an index; a constant one only reorders the labels."""
    dims = list(walk.dims(arg(node, 0)))
    axis = int(arg(node, 1)) % len(dims)
    dim, order = dims[axis], _constant(arg(node, 2), walk)
    dims[axis] = None if dim is None or order is None else dim[order]
    if order is None:
        walk.freeze(node, (dim,))
    return tuple(dims)


def _constant(value: object, walk: Walk) -> Any:
    if not isinstance(value, Node) or value.op != "get_attr":
        return None
    owner: Any = walk.program
    for part in str(value.target).split("."):
        owner = getattr(owner, part)
    return owner.numpy() if isinstance(owner, torch.Tensor) and owner.dim() == 1 else None


def index(node: Node, walk: Walk) -> Value:
    """`x[:, idx]`: the indexed dimension stays whole, the others keep their labels."""
    dims, indices = walk.dims(arg(node, 0)), list(arg(node, 1))
    used = [place for place, selector in enumerate(indices) if selector is not None]
    for place in used:
        walk.freeze(node, (dims[place],), f"{node.name} (aten.index) picks from it")
    is_mask = any(indices[place].meta["val"].dtype is torch.bool for place in used)
    if is_mask or used != list(range(used[0], used[0] + len(used))):
        return freeze_all(node, walk)
    rank = max(len(walk.sizes(indices[place])) for place in used)
    return (*dims[: used[0]], *(None,) * rank, *dims[used[-1] + 1 :])


def reordering(node: Node, cut: Cut) -> None:
    """`flip`, `roll`, `index_select` along a shrunken axis become gathers of what stays."""
    source = cut.dims(arg(node, 0))
    moved = [axis for axis in _moved_axes(node) if cut.mask(source[axis]) is not None]
    if moved and len(_moved_axes(node)) > 1:
        raise GraphError(f"{node.name}: reorders several dimensions at once, one of them pruned")
    for axis in moved:
        build.gather_(
            node, arg(node, 0), axis, source[axis], _order(node, cut.sizes_before(arg(node, 0))[axis], cut), cut
        )


def _moved_axes(node: Node) -> list[int]:
    rank = len(sizes_of(node.meta["val"]))
    axes = arg(node, 2) if operator_of(node) == "aten.roll" else arg(node, 1)
    return [int(axis) % rank for axis in (axes if isinstance(axes, (list, tuple)) else [axes])]


def _order(node: Node, size: int, cut: Cut) -> Array:
    positions = np.arange(size)
    if operator_of(node) == "aten.flip":
        return positions[::-1]
    if operator_of(node) == "aten.roll":
        return np.roll(positions, int(arg(node, 1)[0]))
    if not isinstance(arg(node, 2), Node):
        raise GraphError(f"{node.name}: gathers a pruned dimension by an index that is not a constant")
    return np.asarray(cut.program.get_buffer(str(arg(node, 2).target)).numpy(), np.int64)


FAMILIES = (
    OperatorFamily(aten("flip"), flip, reordering),
    OperatorFamily(aten("roll"), roll, reordering),
    OperatorFamily(aten("index_select"), index_select, reordering, acts_per_channel=True),
    OperatorFamily(aten("index"), index),
)
