"""Rules of the operators that make channels: convolutions, linear layers, products, attention, recurrent cells."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from torch.fx import Node

from edgeprune.core.latency.layers import TRANSPOSED, LayerShape, Window, describe_linear, describe_window
from edgeprune.core.planning.plan import HEADS
from edgeprune.graph.labels import Dim, join
from edgeprune.graph.trace import operator_of, sizes_of
from edgeprune.graph.walk import Dims, LayerUse, Rule, Value, Walk, arg, freeze_all, untracked

PADS = ("aten.pad", "aten.constant_pad_nd")
DILATION = {
    **{f"aten.conv{rank}d": 5 for rank in (1, 2, 3)},
    **{f"aten.conv_transpose{rank}d": 7 for rank in (1, 2, 3)},
    "aten.convolution": 5,
}
"""Position of a convolution's dilation."""


def convolution(node: Node, walk: Walk) -> Value:
    """`out[g, co] = sum over ci of w[g, co, ci] * x[g, ci]`: input and output share the groups."""
    groups = arg(node, 6, "groups", 1)
    return _convolve(node, walk, int(groups), transposed=False)


def transposed_convolution(node: Node, walk: Walk) -> Value:
    """As `convolution`, with the weight laid out input first."""
    return _convolve(node, walk, int(arg(node, 6, "groups", 1)), transposed=True)


def general_convolution(node: Node, walk: Walk) -> Value:
    """`aten.convolution`, which says itself whether it is transposed."""
    return _convolve(node, walk, int(arg(node, 8)), transposed=bool(arg(node, 6)))


def _convolve(node: Node, walk: Walk, groups: int, transposed: bool) -> Value:
    source, weight, bias = arg(node, 0), arg(node, 1), arg(node, 2, "bias")
    dims, kernel = walk.dims(source), walk.dims(weight)
    rank = len(kernel) - 2
    axis = len(dims) - rank - 1
    space = _space(node, walk, dims[axis + 1 :], transposed or walk.sizes(source)[axis] > 1)
    walk.freeze(node, kernel[2:], f"{node.name} (convolution) has it as its window")
    read, made = (0, 1) if transposed else (1, 0)
    inner, cin, cout = None, kernel[read], kernel[made]
    if groups == 1:
        walk.tie(node, dims[axis], cin)
    else:
        inner, cin, cout = _grouped(node, walk, dims[axis], kernel, groups, transposed)
    if walk.dims(bias):
        walk.tie(node, walk.dims(bias)[0], cout)
    walk.use(weight, made, "out")
    walk.use(weight, read, "in")
    if groups > 1:
        walk.inner[node.name] = inner
    if source in walk.fed:
        shape = _shape(node, walk, axis, groups, transposed)
        name, places = weight_name(weight) or node.name, tuple((dim,) for dim in _passed(node, walk, dims[axis + 1 :]))
        walk.layers.append(LayerUse(node.name, name, shape, dims[axis : axis + 1], (cout,), (inner,), places))
    return (*dims[:axis], cout, *space)


def _space(node: Node, walk: Walk, dims: Dims, is_image: bool) -> Dims:
    """Labels of the axes that a window slides along; a window of one place leaves an axis as it is.

    The channels of an image laid out along such an axis, as efficient channel attention does (Wang et al. 2020), keep
    their labels if the size stays: surgery then puts what stays back in its old place before the convolution.
    """
    passed = _passed(node, walk, dims)
    before, after = (walk.sizes(one)[-len(dims) :] for one in (arg(node, 0), node))
    if is_image or before != after:
        slid = [dim for dim, kept in zip(dims, passed, strict=True) if dim is not kept]
        walk.freeze(node, slid, f"{node.name} (convolution) slides along it")
        return passed
    return dims


def _passed(node: Node, walk: Walk, dims: Dims) -> Dims:
    """Labels of the axes of space along which nothing is mixed; None for the others."""
    sizes = (walk.sizes(one)[-len(dims) :] for one in (arg(node, 0), node, arg(node, 1)))
    axes = zip(dims, *sizes, strict=True)
    return tuple(dim if before == after and width == 1 else None for dim, before, after, width in axes)


def _grouped(
    node: Node, walk: Walk, channels: Dim, kernel: Dims, groups: int, transposed: bool
) -> tuple[Dim, Dim, Dim]:
    """Labels of the groups, the input and the output of a grouped convolution."""
    sizes = walk.sizes(arg(node, 1))
    whole, part = kernel[0], kernel[1]
    per_group = (sizes[1], sizes[0] // groups)
    outer_in, inner_in = walk.labels.split(channels, (groups, per_group[1] if transposed else per_group[0]))
    outer, inner = walk.labels.split(whole, (groups, per_group[1]))
    walk.tie(node, outer_in, outer)
    if per_group != (1, 1):
        walk.labels.call(outer, "groups")
    if not transposed:
        walk.tie(node, inner_in, part)
        return outer, part, whole
    walk.tie(node, inner_in, inner)
    return outer, inner, walk.labels.merge((outer, part), (groups, sizes[1]))


def _shape(node: Node, walk: Walk, axis: int, groups: int, transposed: bool) -> LayerShape:
    """The convolution's shape; zeros that are put around its input in space are its own padding, as in files."""
    sizes, out = walk.sizes(_unpadded(arg(node, 0), axis)), walk.sizes(node)
    kernel = walk.sizes(arg(node, 1))[2:]
    if transposed:
        sizes = walk.sizes(arg(node, 0))
    dilation = arg(node, DILATION[operator_of(node)], "dilation", 1)
    stride, dilation = (each_axis(one, len(kernel)) for one in (arg(node, 3, "stride", 1), dilation))
    op, window = TRANSPOSED if transposed else "conv", Window(kernel, stride, dilation, groups)
    return describe_window(op, (sizes[axis], out[axis]), (sizes[axis + 1 :], out[axis + 1 :]), window)


def _unpadded(source: Any, axis: int) -> Any:
    """What a convolution's input is before zeros are put around it in space."""
    if not isinstance(source, Node) or operator_of(source) not in PADS:
        return source
    rank = len(sizes_of(source.meta["val"])) - axis - 1
    amounts, zeros = arg(source, 1), not arg(source, 3 if operator_of(source) == "aten.pad" else 2, "value", 0)
    is_plain = operator_of(source) != "aten.pad" or arg(source, 2, "mode", "constant") == "constant"
    return arg(source, 0) if is_plain and zeros and len(amounts) <= 2 * rank and min(amounts) >= 0 else source


def each_axis(value: Any, rank: int) -> tuple[int, ...]:
    """One number for each axis, of a list of them or of a single number for all."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return tuple(int(one) for one in (values * rank if len(values) == 1 else values))


def weight_name(value: object) -> str:
    """The parameter that a weight comes from, through whatever is computed on it; "" for a computed one."""
    while isinstance(value, Node) and value.op == "call_function" and value.all_input_nodes:
        value = value.all_input_nodes[0]
    return str(value.target) if isinstance(value, Node) and value.op == "get_attr" else ""


def linear(node: Node, walk: Walk) -> Value:
    """`out[..., o] = sum over i of w[o, i] * x[..., i] + b[o]`."""
    source, weight, bias = arg(node, 0), arg(node, 1), arg(node, 2, "bias")
    dims, kernel = walk.dims(source), walk.dims(weight)
    walk.tie(node, dims[-1], kernel[1])
    if walk.dims(bias):
        walk.tie(node, walk.dims(bias)[0], kernel[0])
    walk.use(weight, 0, "out")
    walk.use(weight, 1, "in")
    _note_linear(node, walk, (source, weight), -1, kernel[0])
    return (*dims[:-1], kernel[0])


def _note_linear(node: Node, walk: Walk, operands: tuple[Any, Any], axis: int, cout: Dim) -> None:
    """A layer that multiplies a dimension of its input by a weight, alike at all places of the others.

    What is the same for all inputs, exporters compute beforehand.
    """
    source, weight = operands
    if source not in walk.fed:
        return
    dims, sizes = list(walk.dims(source)), list(walk.sizes(source))
    cin, width = dims.pop(axis), sizes.pop(axis)
    shape = describe_linear(width, walk.sizes(node)[axis], prod(sizes) // walk.batch)
    space = (tuple(dims),) if shape.size else ()
    walk.layers.append(LayerUse(node.name, weight_name(weight) or node.name, shape, (cin,), (cout,), space=space))


def affine_product(node: Node, walk: Walk) -> Value:
    """`addmm(b, x, w)`: a product of matrices plus a bias along its last dimension."""
    dims = multiply(walk, node, walk.dims(arg(node, 1)), walk.dims(arg(node, 2)))
    _multiply_weight(node, walk, (arg(node, 1), arg(node, 2)), dims)
    bias = walk.dims(arg(node, 0))
    if bias:
        walk.tie(node, bias[-1], dims[-1])
    return dims


def product(node: Node, walk: Walk) -> Value:
    """`matmul`, `bmm`, `mm`: the contracted dimensions are one, leading dimensions broadcast."""
    left, right = arg(node, 0), arg(node, 1)
    dims = multiply(walk, node, walk.dims(left), walk.dims(right))
    _multiply_weight(node, walk, (left, right), dims)
    return dims


def _multiply_weight(node: Node, walk: Walk, operands: tuple[Any, Any], dims: Dims) -> None:
    """A product with a matrix: where it is a weight, a linear layer on the last dimension or on the one before."""
    for source, weight, axis in ((*operands, -1), (*reversed(operands), -2)):
        if len(walk.sizes(weight)) == 2 and len(walk.sizes(source)) > 1:
            walk.use(weight, axis % 2, "out")
            walk.use(weight, 1 - axis % 2, "in")
            if weight not in walk.fed:
                _note_linear(node, walk, (source, weight), axis, dims[axis])


def multiply(walk: Walk, node: Node, left: Dims, right: Dims) -> Dims:
    """Labels of a matrix product; ties what it contracts."""
    row = left[-2:-1]
    column = right[-1:] if len(right) > 1 else ()
    walk.tie(node, left[-1], right[-2] if len(right) > 1 else right[-1])
    lead = broadcast(node, walk, node.args[-2:], inner=2)
    return (*lead, *row, *column)


def broadcast(node: Node, walk: Walk, operands: Sequence[Any], inner: int = 0) -> Dims:
    """Tie dimensions that are broadcast against each other, aligned at the right; the last `inner` are left out."""
    rank = max(len(walk.sizes(one)) for one in operands)
    joined: list[Dim] = []
    for place in range(-rank, -inner):
        wide = [one for one in operands if len(walk.sizes(one)) >= -place and walk.sizes(one)[place] != 1]
        dims = [walk.dims(one)[place] for one in wide]
        for other in dims[1:]:
            walk.tie(node, dims[0], other)
        joined.append(None if any(dim is None for dim in dims) else next(iter(dims), None))
    return tuple(joined)


def einsum(node: Node, walk: Walk) -> Value:
    """Dimensions with the same letter are one."""
    equation, operands = str(arg(node, 0)).replace(" ", ""), arg(node, 1)
    if "..." in equation or "->" not in equation or not isinstance(operands, (list, tuple)):
        return freeze_all(node, walk)
    inputs, output = equation.split("->")
    letters: dict[str, Dim] = {}
    seen: set[str] = set()
    for subscript, operand in zip(inputs.split(","), operands, strict=True):
        for letter, dim, size in zip(subscript, walk.dims(operand), walk.sizes(operand), strict=True):
            if size == 1:
                continue
            if letter in seen:
                walk.tie(node, letters[letter], dim)
            letters[letter] = dim if letters.get(letter) is None else letters[letter]
            seen.add(letter)
    return tuple(letters.get(letter) for letter in output)


def attention(node: Node, walk: Walk) -> Value:
    """Scaled dot-product attention: heads and leading dimensions are shared, the query's width is the key's."""
    query, key, value = (walk.dims(node.args[place]) for place in range(3))
    if arg(node, 7, "enable_gqa", False):
        return freeze_all(node, walk)
    walk.tie(node, query[-1], key[-1])
    mask = arg(node, 3, "attn_mask")
    lead = broadcast(node, walk, (*node.args[:3], *([mask] if walk.dims(mask) else [])), inner=2)
    places = (query[-2], key[-2], value[-2], *walk.dims(mask)[-2:])
    walk.freeze(node, places, f"{node.name} (attention) compares positions along it")
    for dim in lead:
        walk.labels.call(dim, HEADS)
    return (*lead, None, value[-1])


def embedding(node: Node, walk: Walk) -> Value:
    """One row of the table for each index."""
    table, index = walk.dims(arg(node, 0)), walk.sizes(arg(node, 1))
    walk.use(arg(node, 0), 1, "out")
    walk.freeze(node, table[:1])
    return (*(None,) * len(index), table[1])


def recurrent(node: Node, walk: Walk) -> Value:
    """LSTM and GRU: the hidden channels run through every gate of both weights, and back into the cell."""
    state, params = arg(node, 1), arg(node, 2)
    has_biases, layers, bidirectional = arg(node, 3), arg(node, 4), arg(node, 7)
    per_cell = 4 if has_biases else 2
    if not isinstance(params, (list, tuple)) or len(params) != per_cell * int(layers) * (1 + bool(bidirectional)):
        return freeze_all(node, walk)
    states = list(state) if isinstance(state, (list, tuple)) else [state]
    dims = walk.dims(arg(node, 0))
    feed, hidden = dims[-1], None
    for layer in range(int(layers)):
        outs = []
        for direction in range(1 + bool(bidirectional)):
            start = per_cell * (layer * (1 + bool(bidirectional)) + direction)
            outs.append(_cell(node, walk, feed, params[start : start + per_cell]))
        feed = outs[0] if len(outs) == 1 else join(outs, [walk.sizes(params[1])[1]] * len(outs))
        for out in outs:
            hidden = out if hidden is None else hidden
            walk.tie(node, hidden, out)
    for one in states:
        walk.tie(node, walk.dims(one)[-1], hidden)
    last = (None,) * (len(dims) - 1) + (feed,)
    step = (None,) * (len(dims) - 1) + (hidden,)
    found = untracked(node)
    return [last, *[step] * (len(found) - 1)] if isinstance(found, list) else found


def _cell(node: Node, walk: Walk, feed: Dim, params: Any) -> Dim:
    """Tie the parameters of one cell; gives its hidden channels."""
    to_gates, to_hidden = walk.dims(params[0]), walk.dims(params[1])
    hidden = to_hidden[1]
    gates = walk.sizes(params[1])[0] // walk.sizes(params[1])[1]
    repeated = None if hidden is None else np.tile(hidden, gates)
    walk.tie(node, feed, to_gates[1])
    for one in params:
        walk.tie(node, walk.dims(one)[0], repeated)
    for param, dim, role in ((params[0], 0, "out"), (params[1], 0, "out"), (params[0], 1, "in"), (params[1], 1, "in")):
        walk.use(param, dim, role)
    return hidden


RULES: dict[str, Rule] = {
    **{f"aten.conv{rank}d": convolution for rank in (1, 2, 3)},
    **{f"aten.conv_transpose{rank}d": transposed_convolution for rank in (1, 2, 3)},
    "aten.convolution": general_convolution,
    "aten.linear": linear,
    "aten.addmm": affine_product,
    "aten.matmul": product,
    "aten.mm": product,
    "aten.bmm": product,
    "aten.baddbmm": affine_product,
    "aten.einsum": einsum,
    "aten.scaled_dot_product_attention": attention,
    "aten.embedding": embedding,
    "aten.lstm": recurrent,
    "aten.gru": recurrent,
    "aten.rnn_tanh": recurrent,
    "aten.rnn_relu": recurrent,
}
