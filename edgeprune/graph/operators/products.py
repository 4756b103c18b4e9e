"""Linear layers, products of matrices, and attention."""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

from torch.fx import Node

from edgeprune.core.latency import steps as kinds
from edgeprune.core.latency.layers import ATTENTION, describe_linear
from edgeprune.core.planning.plan import HEADS
from edgeprune.graph.cut import Cut
from edgeprune.graph.labels import Dim
from edgeprune.graph.nodes import arg
from edgeprune.graph.operators.convolutions import weight_name
from edgeprune.graph.operators.pointwise import broadcast
from edgeprune.graph.operators.record import OperatorFamily, aten
from edgeprune.graph.walk import Dims, LayerUse, Value, Walk, freeze_all


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


def einsum(node: Node, walk: Walk) -> Value:
    """Dimensions with the same letter are one."""
    equation, operands = str(arg(node, 0)).replace(" ", ""), arg(node, 1)
    if "..." in equation or "->" not in equation or not isinstance(operands, (list, tuple)):
        return freeze_all(node, walk)
    inputs, output = equation.split("->")
    letters: dict[str, Dim] = {}
    visited: set[str] = set()
    for subscript, operand in zip(inputs.split(","), operands, strict=True):
        for letter, dim, size in zip(subscript, walk.dims(operand), walk.sizes(operand), strict=True):
            if size == 1:
                continue
            if letter in visited:
                walk.tie(node, letters[letter], dim)
            letters[letter] = dim if letters.get(letter) is None else letters[letter]
            visited.add(letter)
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


def attention_scale(node: Node, cut: Cut) -> None:
    """The scale that follows from the head's width is the original one."""
    if arg(node, 6, "scale") is None:
        width = cut.sizes_before(arg(node, 0))[-1]
        node.args = node.args[:6]
        node.update_kwarg("scale", 1.0 / sqrt(width))


FAMILIES = (
    OperatorFamily(aten("linear"), linear, is_layer=True, reads_integers=True, scale_axis=0),
    OperatorFamily(aten("addmm"), affine_product, reads_integers=True),
    OperatorFamily(aten("baddbmm"), affine_product, kind=kinds.PRODUCT, reads_integers=True),
    OperatorFamily(aten("matmul mm bmm"), product, kind=kinds.PRODUCT, reads_integers=True),
    OperatorFamily(aten("einsum"), einsum),
    OperatorFamily(
        aten("scaled_dot_product_attention"), attention, attention_scale, kind=ATTENTION, reads_integers=True
    ),
)
