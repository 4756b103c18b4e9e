"""What takes time beside convolutions and linear layers, and less so in a narrower net: attention, activations."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from torch.fx import Node

from edgeprune.core.layers import ACTIVATIONS, ATTENTION
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
            positions = prod(walk.sizes(node)) // (walk.batch * use.cout[0])
            window = ((1,), (1,), (0,), (positions,))
            own = f"{use.weight.removesuffix('.weight')}:{name}"
            yield LayerUse(node.name, own, name, use.cout, use.cout, (1, None), *window)


def _attention(node: Node, walk: Walk) -> LayerUse:
    """The products of queries, keys and values: channels of the keys and the values, and how many heads they are in."""
    query, value = (walk.dims(node.args[place]) for place in (0, 2))
    (_, heads, queries, width), (_, _, keys, value_width) = (walk.sizes(node.args[place]) for place in (0, 2))
    cin = heads * width, walk.labels.merge((query[1], query[3]), (heads, width))
    cout = heads * value_width, walk.labels.merge((query[1], value[3]), (heads, value_width))
    window = ((1, 1), (1, 1), (0, 0), (queries, keys))
    return LayerUse(node.name, node.name, ATTENTION, cin, cout, (heads, query[1]), *window)


def _layer_before(node: Node, layers: dict[str, LayerUse]) -> LayerUse | None:
    """The layer whose output comes here, through norms and views; None if something is joined with it on the way."""
    while node.name not in layers:
        tensors = [one for one in node.all_input_nodes if one.op != "get_attr"]
        if len(tensors) != 1 or tensors[0].op == "placeholder":
            return None
        node = tensors[0]
    return layers[node.name]
