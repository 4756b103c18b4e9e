"""Biases of static int8 ONNX files that are beyond their integers, made to fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.exporting.quantizing.biases import IntegerLayer, coarsen, widen_scales

INPUTS = {"QLinearConv": (1, 3, 4, 8), "QGemm": (1, 3, 4, 6)}
"""Integer operator to the places of its input's scale, of its weights, of their scale and of its bias."""


def fit_onnx_biases(content: bytes, prepared: Path) -> bytes:
    """A static int8 ONNX file with biases that fit, given the float file that it was made from."""
    import onnx

    model = onnx.load_from_string(content)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = list(_read_layers(model.graph, stored))
    if not any(layer.overflows for layer in layers):
        return content
    biases = _read_biases(prepared)
    widened = widen_scales(layers, biases)
    for layer in layers:
        scales = widened.get(layer.weight)
        if scales is None or layer.name not in biases:
            continue
        weight, scale, axis = layer.weight
        _replace_(stored, layer.bias[0], layer.hold(biases[layer.name], scales))
        _replace_(stored, layer.bias[1], np.asarray(layer.input_scale * scales, np.float32))
        if not np.array_equal(onnx.numpy_helper.to_array(stored[scale]).reshape(-1), scales):
            values = onnx.numpy_helper.to_array(stored[weight])
            _replace_(stored, weight, coarsen(values, layer.scales, scales, axis))
            _replace_(stored, scale, scales)
    fitted: bytes = model.SerializeToString(deterministic=True)
    return fitted


def _replace_(stored: Mapping[str, Any], name: str, values: np.ndarray) -> None:
    """Give an initializer other values of the same shape; integer operators have no scale of their bias, ""."""
    import onnx

    if name:
        stored[name].CopyFrom(onnx.numpy_helper.from_array(values.reshape(tuple(stored[name].dims)), name))


def _read_layers(graph: Any, stored: Mapping[str, Any]) -> Iterator[IntegerLayer]:
    """Layers with integer weights and biases, by the name that they had in float."""
    import onnx

    makers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        operands = _integer_operands(node) if node.op_type in INPUTS else _dequantized_operands(node, makers)
        names, axis, bias_scale = operands
        if len(names) == 4 and all(name in stored for name in names):
            input_scale, _, scales, steps = (onnx.numpy_helper.to_array(stored[name]) for name in names)
            if steps.dtype == np.int32 and stored[names[1]].data_type == onnx.TensorProto.INT8:
                weight, name = (names[1], names[2], axis), node.name.removesuffix("_quant")
                yield IntegerLayer(name, float(input_scale), weight, scales.reshape(-1), (names[3], bias_scale), steps)


Operands = tuple[list[str], int, str]
"""Names of an input's scale, of weights, of their scale and of a bias; the axis of channels; the bias's scale or ""."""


def _integer_operands(node: Any) -> Operands:
    names = [node.input[place] for place in INPUTS[node.op_type] if place < len(node.input)]
    is_turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return names, 0 if node.op_type == "QLinearConv" or is_turned else 1, ""


def _dequantized_operands(node: Any, makers: Mapping[str, Any]) -> Operands:
    operands = [makers[name] for name in node.input[:3] if name in makers]
    if len(operands) < 3:
        return [], 0, ""
    source, weight, bias = operands
    axis = next((attribute.i for attribute in weight.attribute if attribute.name == "axis"), 1)
    return [source.input[1], *weight.input[:2], bias.input[0]], axis, bias.input[1]


def _read_biases(path: Path) -> dict[str, np.ndarray]:
    """The bias of each layer of a float file by its node's name."""
    import onnx

    graph = onnx.load(path).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    biases = {node.name: node.input[2] for node in graph.node if len(node.input) > 2 and node.input[2] in stored}
    return {name: onnx.numpy_helper.to_array(stored[bias]) for name, bias in biases.items()}
