"""Reductions over dimensions, and what runs along one."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from edgeprune.core.latency import steps as kinds
from edgeprune.graph.labels import Dim
from edgeprune.graph.nodes import arg, operator_of
from edgeprune.graph.operators.pointwise import pointwise
from edgeprune.graph.operators.record import OperatorFamily, aten
from edgeprune.graph.walk import Value, Walk, untracked

VECTOR_NORMS = aten("linalg_vector_norm norm")
"""Reductions whose axes come after the order of the norm."""


def reduction(node: Node, walk: Walk) -> Value:
    """Sum, mean, maximum, norm over dimensions: over the slices that stay."""
    dims, sizes = walk.dims(arg(node, 0)), walk.sizes(arg(node, 0))
    axes = axes_argument(node)
    reduced = range(len(dims)) if axes is None or axes == [] else [axis % len(dims) for axis in _as_list(axes)]
    keeps = len(walk.sizes(node) or ()) == len(sizes) and len(reduced) > 0
    out: list[Dim] = []
    for axis, dim in enumerate(dims):
        if axis not in reduced:
            out.append(dim)
        elif keeps:
            out.append(None)
    outputs = untracked(node)
    return [tuple(out)] * len(outputs) if isinstance(outputs, list) else tuple(out)


def axes_argument(node: Node) -> Any:
    """The axes that a reduction is told to reduce, as the node has them; None for all."""
    return arg(node, 2 if operator_of(node) in VECTOR_NORMS else 1, "dim")


def _as_list(axes: Any) -> list[int]:
    return [axes] if isinstance(axes, int) else list(axes)


def along(node: Node, walk: Walk) -> Value:
    """Softmax, cumulative sums, sorting: what they run along stays whole."""
    dims = walk.dims(arg(node, 0))
    axis = int(arg(node, 1, "dim", -1)) % max(1, len(dims))
    walk.freeze(node, dims[axis : axis + 1], f"{node.name} ({operator_of(node)}) runs along it")
    out = (*dims[:axis], None, *dims[axis + 1 :])
    outputs = untracked(node)
    return [out] * len(outputs) if isinstance(outputs, list) else out


def extremum(node: Node, walk: Walk) -> Value:
    """`max` and `min`: of two tensors, or along an axis that stays whole."""
    if len(node.all_input_nodes) == 2:
        return pointwise(node, walk)
    dims, axis = walk.dims(arg(node, 0)), arg(node, 1, "dim")
    if axis is None:
        return untracked(node)
    axis = int(axis) % len(dims)
    walk.freeze(node, dims[axis : axis + 1], f"{node.name} ({operator_of(node)}) picks along it")
    keeps = bool(arg(node, 2, "keepdim", False))
    out = (*dims[:axis], *((None,) if keeps else ()), *dims[axis + 1 :])
    outputs = untracked(node)
    return [out] * len(outputs) if isinstance(outputs, list) else out


FAMILIES = (
    OperatorFamily(
        aten("mean"), reduction, kind=kinds.REDUCE, is_statistic=True, reduces_per_channel=True, reads_integers=True
    ),
    OperatorFamily(aten("sum"), reduction, kind=kinds.REDUCE, reduces_per_channel=True),
    OperatorFamily(aten("amax amin"), reduction, kind=kinds.REDUCE, is_statistic=True, reduces_per_channel=True),
    OperatorFamily(
        (*aten("var std var_mean std_mean logsumexp prod"), *VECTOR_NORMS),
        reduction,
        kind=kinds.REDUCE,
        is_statistic=True,
    ),
    OperatorFamily(aten("softmax _safe_softmax log_softmax"), along, kind=kinds.SOFTMAX),
    OperatorFamily(aten("cumsum cumprod sort argsort"), along),
    OperatorFamily(aten("max min"), extremum, kind=kinds.REDUCE, kind_of_two=kinds.MUL),
    OperatorFamily(aten("argmax argmin"), extremum),
)
