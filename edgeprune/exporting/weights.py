"""The weights of a float ONNX or TFLite file: read with what surrounds them, and written back changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.core.layers import LayerShape, Window, describe_window
from edgeprune.exporting.metadata import pack_tflite, unpack_tflite


@dataclass(frozen=True)
class PaddedWindow:
    """What a convolution reads at a place: one number for each spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    def describe(self, channels: tuple[int, int], groups: int, size: tuple[int, ...]) -> LayerShape:
        """The shape of the convolution on an input of so many places."""
        axes = zip(size, self.kernel, self.stride, self.dilation, self.before, self.after, strict=True)
        output = tuple(
            (length + before + after - (width - 1) * step - 1) // stride + 1
            for length, width, stride, step, before, after in axes
        )
        window = Window(self.kernel, self.stride, self.dilation, groups)
        return describe_window("conv", channels, (size, output), window)


@dataclass(frozen=True)
class WeightLayer:
    """A layer with stored weights: `weights` is `[O, I / groups, *kernel]` or `[O, I]`, `biases` `[O]`.

    It reads the tensor `source`, whose channels are on `axis`. `weight` and `bias` name the stored tensors, which
    layers may share; `window` is None for a linear layer.
    """

    name: str
    source: str
    weight: str
    bias: str
    weights: np.ndarray
    biases: np.ndarray | None
    groups: int = 1
    window: PaddedWindow | None = None
    axis: int = -1


@dataclass(frozen=True)
class Node:
    """An operator of a file: `name` is unique, `operator` is as the format has it.

    `homogeneous`: what is fused into it, if anything, is a ReLU.
    """

    name: str
    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    operator: Any
    homogeneous: bool = True


Changes = Mapping[str, np.ndarray]
"""Name of a stored tensor to its new content, weights laid out as in :class:`WeightLayer`."""


def read_layers(path: Path) -> tuple[WeightLayer, ...]:
    """Convolutions and linear layers of a float file with stored weights, in order."""
    return {".onnx": _read_onnx, ".tflite": _read_tflite}[path.suffix](path)


def read_nodes(path: Path) -> tuple[Node, ...]:
    """All operators of a file in order."""
    return tuple({".onnx": _onnx_nodes, ".tflite": _tflite_nodes}[path.suffix](path)[0])


def read_outputs(path: Path) -> tuple[str, ...]:
    """Names of the tensors that a file gives."""
    if path.suffix == ".onnx":
        return tuple(one.name for one in _onnx_nodes(path)[1].output)
    graph = _tflite_nodes(path)[1][1].subgraphs[0]
    return tuple(_text(graph.tensors[one]) for one in graph.outputs)


def change_weights(path: Path, changes: Changes) -> bytes:
    """The file with other content in some of its stored tensors."""
    return {".onnx": _change_onnx, ".tflite": _change_tflite}[path.suffix](path, changes)


def _read_onnx(path: Path) -> tuple[WeightLayer, ...]:
    import onnx

    nodes, graph = _onnx_nodes(path)
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    found = [layer for node in nodes if (layer := _onnx_layer(node, stored)) is not None]
    return _keep_owned(found, nodes)


def _onnx_nodes(path: Path) -> tuple[list[Node], Any]:
    """The nodes and the graph that they are in."""
    import onnx

    graph = onnx.load(path).graph
    return [Node(one.name or one.output[0], one.op_type, one.input, one.output, one) for one in graph.node], graph


def _onnx_layer(node: Node, stored: Mapping[str, np.ndarray]) -> WeightLayer | None:
    if node.kind not in ("Conv", "Gemm", "MatMul") or node.inputs[1] not in stored:
        return None
    import onnx

    source, weight, bias = (*node.inputs, "")[:3]
    given = {one.name: onnx.helper.get_attribute_value(one) for one in node.operator.attribute}
    weights, biases = stored[weight], stored.get(bias)
    if node.kind != "Conv":
        weights = weights if given.get("transB") else weights.T
    plain = weights.ndim > 1 and not given.get("transA") and given.get("alpha", 1) == given.get("beta", 1) == 1
    if not plain or weights.dtype != np.float32 or (bias and (biases is None or biases.shape != weights.shape[:1])):
        return None
    if node.kind != "Conv":
        return WeightLayer(node.name, source, weight, bias, weights, biases)
    spatial = weights.ndim - 2
    pads, ones = given.get("pads", [0] * 2 * spatial), [1] * spatial
    window = PaddedWindow(
        tuple(weights.shape[2:]),
        tuple(given.get("strides", ones)),
        tuple(given.get("dilations", ones)),
        tuple(pads[:spatial]),
        tuple(pads[spatial:]),
    )
    return WeightLayer(node.name, source, weight, bias, weights, biases, given.get("group", 1), window, axis=1)


def _change_onnx(path: Path, changes: Changes) -> bytes:
    import onnx

    model = onnx.load(path)
    transposed = {
        node.input[1]
        for node in model.graph.node
        if node.op_type == "MatMul"
        or (node.op_type == "Gemm" and not any(one.name == "transB" and one.i for one in node.attribute))
    }
    for tensor in model.graph.initializer:
        if tensor.name in changes:
            values = changes[tensor.name].T if tensor.name in transposed else changes[tensor.name]
            values = np.ascontiguousarray(values, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _read_tflite(path: Path) -> tuple[WeightLayer, ...]:
    nodes, (schema, model) = _tflite_nodes(path)
    found = [layer for node in nodes if (layer := _tflite_layer(schema, model, node)) is not None]
    return _keep_owned(found, nodes)


def _tflite_nodes(path: Path) -> tuple[list[Node], tuple[Any, Any]]:
    """The operators, the schema and the model that they are in."""
    schema, model = unpack_tflite(path.read_bytes())
    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    graph = model.subgraphs[0]

    def names(indices: Any) -> list[str]:
        return [_text(graph.tensors[one]) if one >= 0 else "" for one in indices]

    nodes, plain = [], (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)
    for one in graph.operators:
        kind = kinds[model.operatorCodes[one.opcodeIndex].builtinCode]
        fused = getattr(one.builtinOptions, "fusedActivationFunction", plain[0])
        nodes.append(
            Node(names(one.outputs)[0], kind, names(one.inputs), names(one.outputs), one, homogeneous=fused in plain)
        )
    return nodes, (schema, model)


def _tflite_layer(schema: Any, model: Any, node: Node) -> WeightLayer | None:
    if node.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return None
    tensors: list[Any] = [model.subgraphs[0].tensors[one] if one >= 0 else None for one in node.operator.inputs]
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
        kernel, stride, dilation, tuple(one // 2 for one in total), tuple(one - one // 2 for one in total)
    )


def _stored(schema: Any, model: Any, tensor: Any) -> np.ndarray | None:
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data) or tensor.type != schema.TensorType.FLOAT32:
        return None
    return np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)


def _change_tflite(path: Path, changes: Changes) -> bytes:
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


def _keep_owned(layers: Sequence[WeightLayer], nodes: Sequence[Node]) -> tuple[WeightLayer, ...]:
    """The layers whose weights nothing else uses."""
    uses = Counter(name for node in nodes for name in node.inputs)
    owned = Counter(name for layer in layers for name in (layer.weight, layer.bias))
    return tuple(
        layer for layer in layers if all(uses[name] == owned[name] for name in (layer.weight, layer.bias) if name)
    )


def _text(tensor: Any) -> str:
    name: str = tensor.name.decode()
    return name
