"""Which layer of a net a node of ONNX Runtime's profile belongs to: the runtime renames what it fuses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.core.latency.breakdown import OTHERS, NodeTime
from edgeprune.core.latency.layers import Layer
from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.onnx.layers import CONVOLUTIONS, PRODUCTS, find_layers

RENAMED = re.compile(r"(_nchwc|_token_\d+|_quant|/+\w+Fusion/*)+$")
"""What ONNX Runtime 1.31 appends: blocked layouts, nodes that it makes anew or of several."""
FUSED = ("Relu", "Add", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Mul", "LeakyRelu", "QuantizeLinear")
"""Operators that may be fused into the layer before them; the layer takes the name of their output then."""
STEPS = 6


def sort_nodes(path: Path, nodes: Sequence[NodeTime], layers: Sequence[Layer]) -> Mapping[str, list[NodeTime]]:
    """Nodes by the layer that they belong to, by their weights' names or, where these are lost, in order."""
    layer_nodes = name_layer_nodes(path)
    weight_owners = {weight.removesuffix(".weight") for weight, _ in layer_nodes if weight}
    nameless = iter(layer.name for layer in layers if layer.name not in weight_owners)
    owners: dict[str, str] = {}
    for weight, names in layer_nodes:
        owner = weight.removesuffix(".weight") or next(nameless, OTHERS)
        owners |= dict.fromkeys(names, owner)
    nodes_by_layer: dict[str, list[NodeTime]] = {}
    for node in nodes:
        nodes_by_layer.setdefault(owners.get(base_name(node.name), OTHERS), []).append(node)
    return nodes_by_layer


def name_layer_nodes(path: Path) -> list[tuple[str, frozenset[str]]]:
    """For each layer of a file, in order: its weight's parameter ("" where the name is lost), and names of its node.

    Raises:
        ExportError: not an ONNX file, or one with operators that no latency model knows.
    """
    with foreign("reading ONNX nodes", path):
        import onnx

        graph = onnx.load(path).graph
        layers = list(find_layers(graph, path))
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    fixed = {tensor.name for tensor in graph.initializer}
    return [(_parameter(node, makers, fixed), frozenset(_names(node, readers))) for node in layers]


def base_name(name: str) -> str:
    """A profiled node's name without what the runtime has appended."""
    return RENAMED.sub("", name)


def _parameter(node: Any, makers: dict[str, Any], fixed: set[str]) -> str:
    place = {**CONVOLUTIONS, **PRODUCTS}[node.op_type]
    name = node.input[place]
    while name not in fixed and name in makers:
        name = makers[name].input[0]
    return re.sub(r"_quantized$", "", name) if ".weight" in name else ""


def _names(node: Any, readers: dict[str, list[Any]]) -> Iterator[str]:
    """The node's own name, and outputs of what may be fused behind it."""
    yield base_name(node.name)
    for _ in range(STEPS):
        yield base_name(node.output[0])
        following = readers.get(node.output[0], [])
        if len(following) != 1 or following[0].op_type not in FUSED:
            return
        node = following[0]
