"""Rules of the operators that compute on values in place of their slices: pointwise, norms, pooling, reductions."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from edgeprune.graph.labels import Dim
from edgeprune.graph.rules_layers import broadcast
from edgeprune.graph.trace import operator_of
from edgeprune.graph.walk import Rule, Value, Walk, arg, untracked


def pointwise(node: Node, walk: Walk) -> Value:
    """Element by element, with broadcasting."""
    operands = [one for one in node.all_input_nodes if isinstance(walk.values[one], tuple)]
    if len(operands) == 1 and len(walk.sizes(operands[0])) == len(walk.sizes(node)):
        return walk.values[operands[0]]
    return broadcast(node, walk, operands)


def channel_norm(node: Node, walk: Walk) -> Value:
    """Batch and instance norm: statistics and scales for each channel."""
    dims = walk.dims(arg(node, 0))
    for vector in node.args[1:5]:
        if walk.dims(vector):
            walk.tie(node, dims[1], walk.dims(vector)[0])
    return dims


def group_norm(node: Node, walk: Walk) -> Value:
    """Statistics over groups of neighbouring channels, scales for each channel."""
    dims, groups = walk.dims(arg(node, 0)), int(arg(node, 1))
    channels = walk.sizes(arg(node, 0))[1]
    for place, name in ((2, "weight"), (3, "bias")):
        vector = walk.dims(arg(node, place, name))
        if vector:
            walk.tie(node, dims[1], vector[0])
    outer, _ = walk.labels.split(dims[1], (groups, channels // groups))
    if groups not in (1, channels):
        walk.labels.call(outer, "groups")
    walk.inner[node.name] = outer
    return dims


def layer_norm(node: Node, walk: Walk) -> Value:
    """Statistics over the last dimensions, scales along them."""
    dims = walk.dims(arg(node, 0))
    for place, name in ((2, "weight"), (3, "bias")):
        vector = walk.dims(arg(node, place, name))
        for own, other in zip(dims[len(dims) - len(vector) :], vector, strict=True):
            walk.tie(node, own, other)
    return dims


def pool(node: Node, walk: Walk) -> Value:
    """Windows over the last dimensions, which have to stay whole; leading ones keep their labels."""
    dims = walk.dims(arg(node, 0))
    rank = int(operator_of(node).partition("d_")[0].rstrip("d_a")[-1])
    lead = len(dims) - rank
    walk.freeze(node, dims[lead:], f"{node.name} ({operator_of(node)}) slides along it")
    out = (*dims[:lead], *(None,) * rank)
    return [out, out] if isinstance(untracked(node), list) else out


def reduction(node: Node, walk: Walk) -> Value:
    """Sum, mean, maximum, norm over dimensions: over the slices that stay."""
    dims, sizes = walk.dims(arg(node, 0)), walk.sizes(arg(node, 0))
    place = 2 if operator_of(node) in ("aten.linalg_vector_norm", "aten.norm") else 1
    axes = arg(node, place, "dim")
    reduced = range(len(dims)) if axes is None or axes == [] else [axis % len(dims) for axis in _listed(axes)]
    keeps = len(walk.sizes(node) or ()) == len(sizes) and len(reduced) > 0
    out: list[Dim] = []
    for axis, dim in enumerate(dims):
        if axis not in reduced:
            out.append(dim)
        elif keeps:
            out.append(None)
    found = untracked(node)
    return [tuple(out)] * len(found) if isinstance(found, list) else tuple(out)


def _listed(axes: Any) -> list[int]:
    return [axes] if isinstance(axes, int) else list(axes)


def along(node: Node, walk: Walk) -> Value:
    """Softmax, cumulative sums, sorting: what they run along stays whole."""
    dims = walk.dims(arg(node, 0))
    axis = int(arg(node, 1, "dim", -1)) % max(1, len(dims))
    walk.freeze(node, dims[axis : axis + 1], f"{node.name} ({operator_of(node)}) runs along it")
    out = (*dims[:axis], None, *dims[axis + 1 :])
    found = untracked(node)
    return [out] * len(found) if isinstance(found, list) else out


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
    found = untracked(node)
    return [out] * len(found) if isinstance(found, list) else out


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


def nothing(node: Node, walk: Walk) -> Value:
    """Numbers and checks: no tensor, or one without channels."""
    return untracked(node)


POINTWISE = """
    relu relu6 leaky_relu elu selu celu silu mish gelu hardswish hardsigmoid hardtanh sigmoid tanh softplus log_sigmoid
    clamp clamp_min clamp_max clip threshold add sub subtract mul multiply div divide true_divide pow square where
    masked_fill rsub neg addcmul addcdiv lerp softsign tanhshrink hardshrink softshrink rrelu floor_divide remainder
    minimum maximum nan_to_num copy fill _weight_norm fake_quantize_per_tensor_affine
"""
REDUCTIONS = "mean sum amax amin var std var_mean std_mean linalg_vector_norm norm logsumexp prod"
RESIZINGS = """
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d
    upsample_trilinear3d _upsample_nearest_exact2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
"""
NUMBERS = """
    aten.sym_size aten.sym_numel aten.arange aten.linspace aten.scalar_tensor aten.item aten._assert_tensor_metadata
    aten._assert_scalar mul add sub neg pow floordiv truediv mod eq ne ge le gt lt
    sym_float sym_int sym_max sym_min sym_ite
"""

RULES: dict[str, Rule] = {
    "pointwise": pointwise,
    **{f"aten.{name}": pointwise for name in POINTWISE.split()},
    "aten.batch_norm": channel_norm,
    "aten.instance_norm": channel_norm,
    "aten.group_norm": group_norm,
    "aten.layer_norm": layer_norm,
    "aten.rms_norm": layer_norm,
    **{
        f"aten.{kind}_pool{rank}d{tail}": pool
        for kind in ("max", "avg", "adaptive_avg", "adaptive_max")
        for rank in (1, 2, 3)
        for tail in ("", "_with_indices")
    },
    **{f"aten.{name}": pool for name in RESIZINGS.split()},
    **{f"aten.{name}": reduction for name in REDUCTIONS.split()},
    **{
        f"aten.{name}": along
        for name in ("softmax", "_safe_softmax", "log_softmax", "cumsum", "cumprod", "sort", "argsort")
    },
    **{f"aten.{name}": extremum for name in ("max", "min", "argmax", "argmin")},
    "aten.glu": glu,
    "aten.prelu": prelu,
    **dict.fromkeys(NUMBERS.split(), nothing),
}
