"""What takes time beside convolutions and linear layers, and less so in a narrower net: attention, activations."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from torch.fx import Node

from edgeprune.core.layers import ACTIVATIONS, ATTENTION, LayerShape
from edgeprune.graph.labels import Dim
from edgeprune.graph.trace import operator_of
from edgeprune.graph.walk import LayerUse, Walk


def find_operators(walk: Walk) -> Iterator[LayerUse]:
    """Attention products, and each activation of a layer that runtimes do not compute within that layer."""
    layers = {use.node: use for use in walk.layers}
    for node in walk.program.graph.nodes:
        name = operator_of(node).removeprefix("aten.")
        if name == "scaled_dot_product_attention" and len(walk.sizes(node)) == 4:
            yield _attention(node, walk)
        elif name in ACTIVATIONS and (use := _layer_before(node, layers)) is not None:
            channels = use.shape.cout
            size = (prod(walk.sizes(node)) // (walk.batch * channels),)
            own = f"{use.weight.removesuffix('.weight')}:{name}"
            shape = LayerShape(name, channels, channels, (1,), (1,), 1, size, (0,))
            yield LayerUse(node.name, own, shape, use.cout, use.cout, tokens=_others(node, use.cout, walk))


def _others(node: Node, channels: Dim, walk: Walk) -> Dim:
    """Labels of all places of a tensor, over its other dimensions than the channels."""
    places = [(dim, size) for dim, size in zip(walk.dims(node), walk.sizes(node), strict=True) if dim is not channels]
    return walk.labels.merge(*zip(*places, strict=True)) if places else None


def _attention(node: Node, walk: Walk) -> LayerUse:
    """The products of queries, keys and values: channels of the keys and the values, and how many heads they are in."""
    query, value = (walk.dims(node.args[place]) for place in (0, 2))
    (_, heads, queries, width), (_, _, keys, value_width) = (walk.sizes(node.args[place]) for place in (0, 2))
    cin = walk.labels.merge((query[1], query[3]), (heads, width))
    cout = walk.labels.merge((query[1], value[3]), (heads, value_width))
    ones, size = (1, 1), (queries, keys)
    shape = LayerShape(ATTENTION, heads * width, heads * value_width, ones, ones, heads, size, (0, 0))
    return LayerUse(node.name, node.name, shape, cin, cout, query[1])


def _layer_before(node: Node, layers: dict[str, LayerUse]) -> LayerUse | None:
    """The layer whose output comes here, through norms and views; None if something is joined with it on the way."""
    while node.name not in layers:
        tensors = [one for one in node.all_input_nodes if one.op != "get_attr"]
        if len(tensors) != 1 or tensors[0].op == "placeholder":
            return None
        node = tensors[0]
    return layers[node.name]
