"""Operators on single values, with broadcasting: activations, arithmetic, gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import Node

from edgeprune.core.latency import steps as kinds
from edgeprune.core.latency.layers import ACTIVATIONS
from edgeprune.graph.labels import Dim
from edgeprune.graph.nodes import arg
from edgeprune.graph.operators.record import OperatorFamily, aten
from edgeprune.graph.walk import Dims, Value, Walk


def pointwise(node: Node, walk: Walk) -> Value:
    """Element by element, with broadcasting."""
    operands = [source for source in node.all_input_nodes if isinstance(walk.values[source], tuple)]
    if len(operands) == 1 and len(walk.sizes(operands[0])) == len(walk.sizes(node)):
        return walk.values[operands[0]]
    return broadcast(node, walk, operands)


def broadcast(node: Node, walk: Walk, operands: Sequence[Any], inner: int = 0) -> Dims:
    """Tie dimensions that are broadcast against each other, aligned at the right; the last `inner` are left out."""
    rank = max(len(walk.sizes(operand)) for operand in operands)
    out: list[Dim] = []
    for place in range(-rank, -inner):
        wide = [
            operand for operand in operands if len(walk.sizes(operand)) >= -place and walk.sizes(operand)[place] != 1
        ]
        dims = [walk.dims(operand)[place] for operand in wide]
        for other in dims[1:]:
            walk.tie(node, dims[0], other)
        out.append(None if any(dim is None for dim in dims) else next(iter(dims), None))
    return tuple(out)


def glu(node: Node, walk: Walk) -> Value:
    """One half gates the other."""
    dims = list(walk.dims(arg(node, 0)))
    axis = int(arg(node, 1, "dim", -1)) % len(dims)
    dim = dims[axis]
    if dim is not None:
        walk.tie(node, dim[: len(dim) // 2], dim[len(dim) // 2 :])
        dims[axis] = dim[: len(dim) // 2]
    return tuple(dims)


def prelu(node: Node, walk: Walk) -> Value:
    """A slope for each channel, or one for all."""
    dims = walk.dims(arg(node, 0))
    if walk.sizes(arg(node, 1)) != (1,) and len(dims) > 1:
        walk.tie(node, dims[1], walk.dims(arg(node, 1))[0])
    return dims


FAMILIES = (
    OperatorFamily(
        aten("relu relu6 hardtanh clamp"), pointwise, kind=kinds.CLAMP, is_idempotent=True, acts_per_channel=True
    ),
    OperatorFamily(aten("clamp_min"), pointwise, kind=kinds.CLAMP, is_idempotent=True),
    OperatorFamily(aten("clamp_max threshold"), pointwise, kind=kinds.CLAMP),
    OperatorFamily(aten("leaky_relu"), pointwise, kind=kinds.CLAMP, acts_per_channel=True),
    OperatorFamily(aten("prelu"), prelu, kind=kinds.CLAMP, acts_per_channel=True),
    OperatorFamily(aten("neg abs square"), pointwise, kind=kinds.POINTWISE, acts_per_channel=True),
    OperatorFamily(aten("masked_fill hardshrink softshrink floor round sign"), pointwise, kind=kinds.POINTWISE),
    OperatorFamily(
        aten("tanh exp elu selu celu softplus mish log sqrt rsqrt log_sigmoid reciprocal"),
        pointwise,
        kind=kinds.CURVE,
        acts_per_channel=True,
    ),
    OperatorFamily(aten("erf sin cos"), pointwise, kind=kinds.CURVE),
    *(OperatorFamily(aten(name), pointwise, kind=name, acts_per_channel=True) for name in (*ACTIVATIONS, *kinds.GATES)),
    OperatorFamily(aten("add sub"), pointwise, kind=kinds.ADD, neutral=0, acts_per_channel=True, reads_integers=True),
    OperatorFamily(aten("subtract rsub"), pointwise, kind=kinds.ADD),
    OperatorFamily(
        aten("mul"),
        pointwise,
        kind=kinds.MUL,
        neutral=1,
        is_zero_absorbing=True,
        acts_per_channel=True,
        reads_integers=True,
    ),
    OperatorFamily(aten("div"), pointwise, kind=kinds.MUL, neutral=1, acts_per_channel=True),
    OperatorFamily(aten("pow"), pointwise, kind=kinds.MUL, acts_per_channel=True),
    OperatorFamily(
        aten("multiply divide true_divide maximum minimum where lerp addcmul addcdiv remainder"),
        pointwise,
        kind=kinds.MUL,
    ),
    OperatorFamily(aten("clip rrelu floor_divide nan_to_num copy fill fake_quantize_per_tensor_affine"), pointwise),
    OperatorFamily(aten("_weight_norm"), pointwise, is_statistic=True),
    OperatorFamily(aten("glu"), glu),
)
