"""Copies: of a tensor as it is, of slices as often as is said, and constants of a size."""

from __future__ import annotations

import numpy as np
from torch.fx import Node

from edgeprune.graph.cut import Cut, Rewrite
from edgeprune.graph.labels import Dim
from edgeprune.graph.nodes import arg
from edgeprune.graph.operators.pointwise import broadcast
from edgeprune.graph.operators.record import OperatorFamily, aten
from edgeprune.graph.walk import Value, Walk, freeze_all


def same(node: Node, walk: Walk) -> Value:
    """The operand itself: copies, casts, dropout."""
    return walk.values[node.all_input_nodes[0]]


def expand(node: Node, walk: Walk) -> Value:
    """Repeat a dimension of size 1: the copies can be as many as their use has slices."""
    source = node.all_input_nodes[0]
    dims, old, new = walk.dims(source), walk.sizes(source), walk.sizes(node)
    dims, old = (None,) * (len(new) - len(dims)) + dims, (1,) * (len(new) - len(old)) + old
    traced = node.meta["val"].shape
    return tuple(
        walk.labels.fresh(size) if before == 1 and isinstance(traced_size, int) else dim
        for dim, before, size, traced_size in zip(dims, old, new, traced, strict=True)
    )


def expand_as(node: Node, walk: Walk) -> Value:
    """Repeat dimensions of size 1 as often as another tensor has slices, whose slices the others are."""
    return broadcast(node, walk, (arg(node, 0), arg(node, 1)))


def repeat(node: Node, walk: Walk) -> Value:
    """Whole copies end to end (`repeat`, `tile`)."""
    source = arg(node, 0)
    dims, old, new = walk.dims(source), walk.sizes(source), walk.sizes(node)
    dims, old = (None,) * (len(new) - len(dims)) + dims, (1,) * (len(new) - len(old)) + old
    traced = node.meta["val"].shape
    out: list[Dim] = []
    for dim, before, size, traced_size in zip(dims, old, new, traced, strict=True):
        if dim is not None:
            out.append(np.tile(dim, size // before))
        else:
            out.append(walk.labels.fresh(size) if before == 1 and isinstance(traced_size, int) else None)
    return tuple(out)


def repeat_interleave(node: Node, walk: Walk) -> Value:
    """Every slice several times in a row."""
    times, axis = arg(node, 1), arg(node, 2, "dim")
    dims = list(walk.dims(arg(node, 0)))
    if not isinstance(times, int) or axis is None:
        return freeze_all(node, walk)
    dim = dims[axis]
    dims[axis] = None if dim is None else np.repeat(dim, times)
    return tuple(dims)


def constant(node: Node, walk: Walk) -> Value:
    """A constant tensor of a literal size: as wide as its use needs."""
    value = node.meta["val"]
    return tuple(walk.labels.fresh(size) if isinstance(size, int) else None for size in value.shape)


def sizes_at(place: int) -> Rewrite:
    """`expand`, `zeros`, `full`, `new_zeros`...: literal sizes of what is made, an argument at `place`."""

    def rewrite(node: Node, cut: Cut) -> None:
        sizes = list(arg(node, place))
        for axis, (dim, size) in enumerate(zip(cut.dims(node), sizes, strict=True)):
            if cut.mask(dim) is not None:
                sizes[axis] = cut.count(dim, 0) if isinstance(size, int) and size != -1 else -1
        node.update_arg(place, sizes)

    return rewrite


def repeat_sizes(node: Node, cut: Cut) -> None:
    """`repeat`: a dimension of size 1 is repeated as often as its use has slices."""
    source, times = cut.dims(arg(node, 0)), list(arg(node, 1))
    lead = len(times) - len(source)
    for axis, dim in enumerate(cut.dims(node)):
        if cut.mask(dim) is not None and (axis < lead or source[axis - lead] is None):
            times[axis] = cut.count(dim, 0)
    node.update_arg(1, times)


FAMILIES = (
    OperatorFamily(aten("contiguous alias detach to"), same, acts_per_channel=True, keeps_values=True, may_view=True),
    OperatorFamily(aten("clone _to_copy type_as"), same, acts_per_channel=True, keeps_values=True),
    OperatorFamily(
        aten("dropout feature_dropout"),
        same,
        places={"training": 2},
        acts_per_channel=True,
        keeps_values=True,
        may_view=True,
    ),
    OperatorFamily(aten("feature_alpha_dropout"), same, places={"training": 2}, keeps_values=True, may_view=True),
    OperatorFamily(aten("alpha_dropout"), same, places={"training": 2}, keeps_values=True),
    OperatorFamily(aten("lift_fresh_copy"), same),
    OperatorFamily(aten("zeros_like ones_like full_like rand_like empty_like bernoulli"), same),
    OperatorFamily(aten("expand"), expand, sizes_at(1), places={"sizes": 1}, acts_per_channel=True, may_view=True),
    OperatorFamily(aten("broadcast_to"), expand, sizes_at(1)),
    OperatorFamily(aten("expand_as"), expand_as, may_view=True),
    OperatorFamily(aten("repeat"), repeat, repeat_sizes, acts_per_channel=True),
    OperatorFamily(aten("tile"), repeat),
    OperatorFamily(aten("repeat_interleave"), repeat_interleave),
    OperatorFamily(aten("zeros ones full empty"), constant, sizes_at(0)),
    OperatorFamily(aten("new_zeros new_ones new_full new_empty"), constant, sizes_at(1)),
)
