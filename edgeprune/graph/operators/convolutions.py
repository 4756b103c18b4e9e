"""Convolutions, plain and transposed: what they make and read, their group count, and windows over channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.fx import Node

from edgeprune.core.latency.layers import TRANSPOSED, LayerShape, Window, describe_window
from edgeprune.graph.cut import Cut, Rewrite
from edgeprune.graph.labels import Dim
from edgeprune.graph.nodes import arg, sizes_of
from edgeprune.graph.operators import build
from edgeprune.graph.operators.pads import without_padding
from edgeprune.graph.operators.record import OperatorFamily, aten
from edgeprune.graph.walk import Dims, LayerUse, Value, Walk


@dataclass(frozen=True)
class _Form:
    """What a convolution is beside its weight; `dilation` as the node has it."""

    groups: int
    transposed: bool
    dilation: Any


def convolution(node: Node, walk: Walk) -> Value:
    """`out[g, co] = sum over ci of w[g, co, ci] * x[g, ci]`: input and output share the groups."""
    form = _Form(int(arg(node, 6, "groups", 1)), False, arg(node, 5, "dilation", 1))
    return _convolve(node, walk, form)


def transposed_convolution(node: Node, walk: Walk) -> Value:
    """As `convolution`, with the weight laid out input first."""
    form = _Form(int(arg(node, 6, "groups", 1)), True, arg(node, 7, "dilation", 1))
    return _convolve(node, walk, form)


def general_convolution(node: Node, walk: Walk) -> Value:
    """`aten.convolution`, which says itself whether it is transposed."""
    return _convolve(node, walk, _Form(int(arg(node, 8)), bool(arg(node, 6)), arg(node, 5)))


def _convolve(node: Node, walk: Walk, form: _Form) -> Value:
    groups, transposed = form.groups, form.transposed
    source, weight, bias = arg(node, 0), arg(node, 1), arg(node, 2, "bias")
    dims, kernel = walk.dims(source), walk.dims(weight)
    rank = len(kernel) - 2
    axis = len(dims) - rank - 1
    space = _space(node, walk, dims[axis + 1 :], transposed or walk.sizes(source)[axis] > 1)
    walk.freeze(node, kernel[2:], f"{node.name} (convolution) has it as its window")
    in_axis, out_axis = (0, 1) if transposed else (1, 0)
    inner, cin, cout = None, kernel[in_axis], kernel[out_axis]
    if groups == 1:
        walk.tie(node, dims[axis], cin)
    else:
        inner, cin, cout = _grouped_dims(node, walk, dims[axis], kernel, groups, transposed)
    if walk.dims(bias):
        walk.tie(node, walk.dims(bias)[0], cout)
    walk.use(weight, out_axis, "out")
    walk.use(weight, in_axis, "in")
    if groups > 1:
        walk.inner[node.name] = inner
    if source in walk.fed:
        shape = _shape(node, walk, axis, form)
        name, places = (
            weight_name(weight) or node.name,
            tuple((dim,) for dim in _passed_dims(node, walk, dims[axis + 1 :])),
        )
        walk.layers.append(LayerUse(node.name, name, shape, dims[axis : axis + 1], (cout,), (inner,), places))
    return (*dims[:axis], cout, *space)


def _space(node: Node, walk: Walk, dims: Dims, is_image: bool) -> Dims:
    """Labels of the axes that a window slides along; a window of one place leaves an axis as it is.

    The channels of an image laid out along such an axis, as efficient channel attention does (Wang et al. 2020), keep
    their labels if the size stays: surgery then puts what stays back in its old place before the convolution.
    """
    passed = _passed_dims(node, walk, dims)
    before, after = (walk.sizes(tensor)[-len(dims) :] for tensor in (arg(node, 0), node))
    if is_image or before != after:
        slid = [dim for dim, passed_dim in zip(dims, passed, strict=True) if dim is not passed_dim]
        walk.freeze(node, slid, f"{node.name} (convolution) slides along it")
        return passed
    return dims


def _passed_dims(node: Node, walk: Walk, dims: Dims) -> Dims:
    """Labels of the axes of space along which nothing is mixed; None for the others."""
    sizes = (walk.sizes(tensor)[-len(dims) :] for tensor in (arg(node, 0), node, arg(node, 1)))
    axes = zip(dims, *sizes, strict=True)
    return tuple(dim if before == after and width == 1 else None for dim, before, after, width in axes)


def _grouped_dims(
    node: Node, walk: Walk, channels: Dim, kernel: Dims, groups: int, transposed: bool
) -> tuple[Dim, Dim, Dim]:
    """Labels of the groups, the input and the output of a grouped convolution."""
    sizes = walk.sizes(arg(node, 1))
    across, within = kernel[0], kernel[1]
    per_group = (sizes[1], sizes[0] // groups)
    outer_in, inner_in = walk.labels.split(channels, (groups, per_group[1] if transposed else per_group[0]))
    outer, inner = walk.labels.split(across, (groups, per_group[1]))
    walk.tie(node, outer_in, outer)
    if per_group != (1, 1):
        walk.labels.call(outer, "groups")
    if not transposed:
        walk.tie(node, inner_in, within)
        return outer, within, across
    walk.tie(node, inner_in, inner)
    return outer, inner, walk.labels.merge((outer, within), (groups, sizes[1]))


def _shape(node: Node, walk: Walk, axis: int, form: _Form) -> LayerShape:
    """The convolution's shape; zeros that are put around its input in space are its own padding, as in files."""
    source, out = arg(node, 0), walk.sizes(node)
    sizes = walk.sizes(source if form.transposed else without_padding(source, axis))
    kernel = walk.sizes(arg(node, 1))[2:]
    stride, dilation = (each_axis(spacing, len(kernel)) for spacing in (arg(node, 3, "stride", 1), form.dilation))
    op, window = TRANSPOSED if form.transposed else "conv", Window(kernel, stride, dilation, form.groups)
    return describe_window(op, (sizes[axis], out[axis]), (sizes[axis + 1 :], out[axis + 1 :]), window)


def each_axis(value: Any, rank: int) -> tuple[int, ...]:
    """One number for each axis, of a list of them or of a single number for all."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return tuple(int(number) for number in (values * rank if len(values) == 1 else values))


def weight_name(value: object) -> str:
    """The parameter that a weight comes from, through whatever is computed on it; "" for a computed one."""
    while isinstance(value, Node) and value.op == "call_function" and value.all_input_nodes:
        value = value.all_input_nodes[0]
    return str(value.target) if isinstance(value, Node) and value.op == "get_attr" else ""


def group_count(place: int) -> Rewrite:
    """The number of groups, an argument at `place` (or a keyword), of a convolution or group norm."""

    def rewrite(node: Node, cut: Cut) -> None:
        inner = cut.analysis.inner.get(node.name)
        if cut.mask(inner) is None:
            return
        count = cut.count(inner, 0)
        if len(node.args) > place:
            node.update_arg(place, count)
        else:
            node.update_kwarg("groups", count)

    return rewrite


def group_count_and_window(place: int) -> Rewrite:
    """The group count, and channels along an axis that the window slides along (see `_space`)."""

    def rewrite(node: Node, cut: Cut) -> None:
        group_count(place)(node, cut)
        source = cut.dims(arg(node, 0))
        window = sizes_of(arg(node, 1).meta["val"])[2:]
        for axis, width in enumerate(window, len(source) - len(window)):
            if width > 1 and cut.mask(source[axis]) is not None:
                _spread_(node, axis, source[axis], cut)

    return rewrite


def _spread_(node: Node, axis: int, dim: Dim, cut: Cut) -> None:
    """Let `node` see what stays in its old place, zeros between, and take what stays from its result."""
    mask, source = cut.mask(dim), arg(node, 0)
    if mask is None or not isinstance(source, Node):
        return
    rank, count, sizes = len(cut.dims(source)), int(mask.sum()), list(source.meta["val"].shape)
    places = np.where(mask, np.cumsum(mask) - 1, count)
    with node.graph.inserting_before(node):
        padded = node.graph.call_function(build.PAD, (source, [0, 0] * (rank - axis - 1) + [0, 1]))
        old_places = build.places_node(node, "places", places, cut)
        spread = node.graph.call_function(build.INDEX_SELECT, (padded, axis, old_places))
        window = node.graph.node_copy(node)
        window.update_arg(0, spread)
        staying = build.places_node(node, "kept", mask.nonzero()[0], cut)
    node.target, node.args, node.kwargs = build.INDEX_SELECT, (window, axis, staying), {}
    for new_node, width in ((padded, count + 1), (spread, len(mask))):
        new_node.meta["val"] = source.meta["val"].new_empty([*sizes[:axis], width, *sizes[axis + 1 :]])
    out = [cut.mask(dim) for dim in cut.dims(node)]
    window.meta["val"] = node.meta["val"].new_empty(
        [
            size if alive is None or place == axis else int(alive.sum())
            for place, (size, alive) in enumerate(zip(node.meta["val"].shape, out, strict=True))
        ]
    )


FAMILIES = (
    *(
        OperatorFamily(
            aten(f"conv{rank}d"),
            convolution,
            group_count_and_window(6),
            window_rank=rank,
            is_layer=True,
            reads_integers=True,
            scale_axis=0,
        )
        for rank in (1, 2, 3)
    ),
    *(
        OperatorFamily(
            aten(f"conv_transpose{rank}d"),
            transposed_convolution,
            group_count(6),
            window_rank=rank,
            is_layer=True,
            is_transposed=True,
            reads_integers=rank < 3,
            scale_axis=1 if rank < 3 else None,
        )
        for rank in (1, 2, 3)
    ),
    OperatorFamily(aten("convolution"), general_convolution, group_count(8), reads_integers=True, scale_axis=0),
)
