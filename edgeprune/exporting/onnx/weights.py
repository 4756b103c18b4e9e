"""The weights of a float ONNX file: read with what surrounds them, and written back changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.exporting.quantizing.weights import Changes, Node, PaddedWindow, WeightLayer, keep_owned


def read_layers(path: Path) -> tuple[WeightLayer, ...]:
    """Convolutions and linear layers with stored weights, in order."""
    import onnx

    nodes, graph = _read_nodes(path)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = [layer for node in nodes if (layer := _onnx_layer(node, stored)) is not None]
    return keep_owned(layers, nodes)


def read_nodes(path: Path) -> tuple[Node, ...]:
    """All operators in order."""
    return tuple(_read_nodes(path)[0])


def read_outputs(path: Path) -> tuple[str, ...]:
    """Names of the tensors that the file gives."""
    return tuple(output.name for output in _read_nodes(path)[1].output)


def _read_nodes(path: Path) -> tuple[list[Node], Any]:
    """The nodes and the graph that they are in."""
    import onnx

    graph = onnx.load(path).graph
    return [
        Node(operator.name or operator.output[0], operator.op_type, operator.input, operator.output, operator)
        for operator in graph.node
    ], graph


def _onnx_layer(node: Node, stored: Mapping[str, np.ndarray]) -> WeightLayer | None:
    if node.kind not in ("Conv", "Gemm", "MatMul") or node.inputs[1] not in stored:
        return None
    import onnx

    source, weight, bias = (*node.inputs, "")[:3]
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.operator.attribute}
    weights, biases = stored[weight], stored.get(bias)
    if node.kind != "Conv":
        weights = weights if attributes.get("transB") else weights.T
    plain = (
        weights.ndim > 1
        and not attributes.get("transA")
        and attributes.get("alpha", 1) == attributes.get("beta", 1) == 1
    )
    if not plain or weights.dtype != np.float32 or (bias and (biases is None or biases.shape != weights.shape[:1])):
        return None
    if node.kind != "Conv":
        return WeightLayer(node.name, source, weight, bias, weights, biases)
    spatial = weights.ndim - 2
    pads, ones = attributes.get("pads", [0] * 2 * spatial), [1] * spatial
    window = PaddedWindow(
        tuple(weights.shape[2:]),
        tuple(attributes.get("strides", ones)),
        tuple(attributes.get("dilations", ones)),
        tuple(pads[:spatial]),
        tuple(pads[spatial:]),
    )
    return WeightLayer(node.name, source, weight, bias, weights, biases, attributes.get("group", 1), window, axis=1)


def change_weights(path: Path, changes: Changes) -> bytes:
    """The file with other content in some of its stored tensors."""
    import onnx

    model = onnx.load(path)
    transposed = {
        node.input[1]
        for node in model.graph.node
        if node.op_type == "MatMul"
        or (
            node.op_type == "Gemm"
            and not any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        )
    }
    for tensor in model.graph.initializer:
        if tensor.name in changes:
            values = changes[tensor.name].T if tensor.name in transposed else changes[tensor.name]
            values = np.ascontiguousarray(values, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    content: bytes = model.SerializeToString(deterministic=True)
    return content
