"""The weights of a float TFLite file: read with what surrounds them, and written back changed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.exporting.quantizing.weights import Changes, Node, PaddedWindow, WeightLayer, keep_owned
from edgeprune.exporting.tflite.schema import name_values, pack_tflite, unpack_tflite


def read_layers(path: Path) -> tuple[WeightLayer, ...]:
    """Convolutions and linear layers with stored weights, in order."""
    nodes, (schema, model) = _read_nodes(path)
    layers = [layer for node in nodes if (layer := _tflite_layer(schema, model, node)) is not None]
    return keep_owned(layers, nodes)


def read_nodes(path: Path) -> tuple[Node, ...]:
    """All operators in order."""
    return tuple(_read_nodes(path)[0])


def read_outputs(path: Path) -> tuple[str, ...]:
    """Names of the tensors that the file gives."""
    graph = _read_nodes(path)[1][1].subgraphs[0]
    return tuple(_text(graph.tensors[index]) for index in graph.outputs)


def _read_nodes(path: Path) -> tuple[list[Node], tuple[Any, Any]]:
    """The operators, the schema and the model that they are in."""
    schema, model = unpack_tflite(path.read_bytes())
    kinds = name_values(schema.BuiltinOperator)
    graph = model.subgraphs[0]

    def names(indices: Any) -> list[str]:
        return [_text(graph.tensors[index]) if index >= 0 else "" for index in indices]

    nodes, plain = [], (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)
    for operator in graph.operators:
        kind = kinds[model.operatorCodes[operator.opcodeIndex].builtinCode]
        fused = getattr(operator.builtinOptions, "fusedActivationFunction", plain[0])
        nodes.append(
            Node(
                names(operator.outputs)[0],
                kind,
                names(operator.inputs),
                names(operator.outputs),
                operator,
                homogeneous=fused in plain,
            )
        )
    return nodes, (schema, model)


def _tflite_layer(schema: Any, model: Any, node: Node) -> WeightLayer | None:
    if node.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return None
    tensors: list[Any] = [model.subgraphs[0].tensors[index] if index >= 0 else None for index in node.operator.inputs]
    source, weight, bias = (*node.inputs, "")[:3]
    weights = _stored(schema, model, tensors[1])
    biases = _stored(schema, model, tensors[2]) if bias else None
    if weights is None or (bias and biases is None):
        return None
    options = node.operator.builtinOptions
    if node.kind == "FULLY_CONNECTED":
        return WeightLayer(node.name, source, weight, bias, weights, biases)
    weights = np.moveaxis(weights, -1, 0 if node.kind == "DEPTHWISE_CONV_2D" else 1)
    groups, window = int(tensors[0].shape[-1]) // weights.shape[1], _tflite_window(schema, options, tensors[0], weights)
    return WeightLayer(node.name, source, weight, bias, weights, biases, groups, window)


def _tflite_window(schema: Any, options: Any, source: Any, weights: np.ndarray) -> PaddedWindow:
    kernel, stride = weights.shape[2:], (options.strideH, options.strideW)
    dilation = (options.dilationHFactor, options.dilationWFactor)
    total = [0, 0]
    if options.padding == schema.Padding.SAME:
        sizes = zip(map(int, source.shape[1:3]), kernel, stride, dilation, strict=True)
        total = [max((-(-size // step) - 1) * step + (k - 1) * d + 1 - size, 0) for size, k, step, d in sizes]
    return PaddedWindow(
        kernel,
        stride,
        dilation,
        tuple(amount // 2 for amount in total),
        tuple(amount - amount // 2 for amount in total),
    )


def _stored(schema: Any, model: Any, tensor: Any) -> np.ndarray | None:
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data) or tensor.type != schema.TensorType.FLOAT32:
        return None
    return np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)


def change_weights(path: Path, changes: Changes) -> bytes:
    """The file with other content in some of its stored tensors."""
    schema, model = unpack_tflite(path.read_bytes())
    depthwise = {
        operator.inputs[1]
        for operator in model.subgraphs[0].operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.DEPTHWISE_CONV_2D
    }
    uses = Counter(tensor.buffer for graph in model.subgraphs for tensor in graph.tensors)
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        if _text(tensor) in changes:
            values = changes[_text(tensor)]
            if values.ndim == 4:
                values = np.moveaxis(values, 0 if index in depthwise else 1, -1)
            if uses[tensor.buffer] > 1:
                model.buffers.append(schema.BufferT())
                tensor.buffer = len(model.buffers) - 1
            content = np.ascontiguousarray(values, np.float32).tobytes()
            model.buffers[tensor.buffer].data = np.frombuffer(content, np.uint8)
    return pack_tflite(model)


def _text(tensor: Any) -> str:
    name: str = tensor.name.decode()
    return name
