"""Biases of static integer files that are beyond their integers, made to fit.

A bias is held in steps of its layer's input scale times its channel's weight scale. Where next to nothing flows into a
layer, or the weights of a channel are as good as zero, as masks and weight decay leave them, that step is so small that
the bias is beyond 32 bits: ai-edge-quantizer clips it, ONNX Runtime's quantizer leaves sums no room beside it, and the
channel is lost. The weights of such a channel get a larger scale here, as TFLite's own converter has it. It costs
nothing that could be seen: beside a bias of 2^30 steps the products of K 8-bit weights make up K / 2^15 of it at most,
and what their coarser rounding changes is less than K / 2^15 of a step of the 8-bit output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.exporting.metadata import pack_tflite, unpack_tflite

LARGEST = {4: 2**30, 8: 2**40}
"""Most steps of a bias by its bytes: half of what 32 bits hold; TFLite's 16-bit kernels lose those from 2^46 on."""
CLIPPED = {4: 2**30, 8: 2**31 - 1}
"""From so many steps on a bias is looked at: those held in 64 bits are clipped to 32 by the quantizer."""
TFLITE_INPUTS = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
"""Operator to the places of what it reads, of its weights and of its bias."""
ONNX_INPUTS = {"QLinearConv": (1, 3, 4, 8), "QGemm": (1, 3, 4, 6)}
"""Integer operator to the places of its input's scale, of its weights, of their scale and of its bias."""


@dataclass(frozen=True)
class Held:
    """A layer of an integer file: its input's scale, the scale of each output channel's weights (or one), its bias.

    `weight` and `bias` say where these are in the file; `steps` is the bias as it is held.
    """

    name: str
    input_scale: float
    weight: Any
    scales: np.ndarray
    bias: Any
    steps: np.ndarray

    @property
    def overflows(self) -> bool:
        """Whether the bias is clipped, or leaves no room for a sum."""
        return bool((np.abs(self.steps.astype(np.float64)) >= CLIPPED[self.steps.itemsize]).any())

    def least_scales(self, biases: np.ndarray) -> np.ndarray:
        """The least scales of the weights that let these biases fit."""
        least = np.abs(biases.astype(np.float64)) / (self.input_scale * LARGEST[self.steps.itemsize])
        return np.broadcast_to(least if self.scales.size > 1 else least.max(), self.scales.shape)

    def hold(self, biases: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """These biases in steps, with these scales of the weights."""
        return np.asarray(np.rint(biases.astype(np.float64) / (self.input_scale * scales)), self.steps.dtype)


def widen_scales(layers: Sequence[Held], biases: Mapping[str, np.ndarray]) -> dict[Any, np.ndarray]:
    """Larger scales by weight, where the biases of its layers (by their name) do not fit; layers may share weights."""
    tight = {layer.weight for layer in layers if layer.overflows and layer.name in biases}
    widened: dict[Any, np.ndarray] = {}
    for layer in layers:
        if layer.weight in tight and layer.name in biases:
            scales = widened.get(layer.weight, layer.scales)
            widened[layer.weight] = np.maximum(scales, layer.least_scales(biases[layer.name])).astype(np.float32)
    return widened


def coarsen(values: np.ndarray, scales: np.ndarray, widened: np.ndarray, axis: int) -> np.ndarray:
    """Integer weights for larger scales; channels are on `axis`, where there are several scales."""
    shape = [1] * values.ndim
    shape[axis if scales.size > 1 else 0] = scales.size
    return np.asarray(np.rint(values * (scales.astype(np.float64) / widened).reshape(shape)), np.int8)


def fit_tflite_biases(content: bytes, source: Path) -> bytes:
    """A static integer TFLite file with biases that fit, given the float file that it was made from."""
    schema, model = unpack_tflite(content)
    layers = list(_tflite_layers(schema, model))
    if not any(layer.overflows for layer in layers):
        return content
    biases = _tflite_biases(source)
    tensors, widened = model.subgraphs[0].tensors, widen_scales(layers, biases)
    for layer in layers:
        scales = widened.get(layer.weight)
        if scales is None or layer.name not in biases:
            continue
        weight, bias = tensors[layer.weight], tensors[layer.bias]
        _store_(schema, model, bias, layer.hold(biases[layer.name], scales), layer.input_scale * scales)
        if not np.array_equal(weight.quantization.scale, scales):
            values = np.frombuffer(bytes(model.buffers[weight.buffer].data), np.int8).reshape(weight.shape)
            axis = weight.quantization.quantizedDimension
            _store_(schema, model, weight, coarsen(values, layer.scales, scales, axis), scales)
    return pack_tflite(model)


def _tflite_layers(schema: Any, model: Any) -> Iterator[Held]:
    """Layers with integer weights and biases, named by their bias."""
    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    graph = model.subgraphs[0]
    for operator in graph.operators:
        places = TFLITE_INPUTS.get(kinds[model.operatorCodes[operator.opcodeIndex].builtinCode], ())
        inputs = [int(operator.inputs[place]) for place in places if place < len(operator.inputs)]
        if len(inputs) == 3 and inputs[2] >= 0:
            source, weight, bias = (graph.tensors[index] for index in inputs)
            kind = {schema.TensorType.INT32: np.int32, schema.TensorType.INT64: np.int64}.get(bias.type)
            data = model.buffers[bias.buffer].data
            if kind is not None and weight.type == schema.TensorType.INT8 and data is not None:
                scales = np.asarray(weight.quantization.scale, np.float32)
                steps = np.frombuffer(bytes(data), kind)
                scale = float(source.quantization.scale[0])
                yield Held(bias.name.decode(), scale, inputs[1], scales, inputs[2], steps)


def _tflite_biases(path: Path) -> dict[str, np.ndarray]:
    """Stored vectors of a float file by their name."""
    schema, model = unpack_tflite(path.read_bytes())
    stored = [(one, model.buffers[one.buffer].data) for one in model.subgraphs[0].tensors]
    return {
        tensor.name.decode(): np.frombuffer(bytes(data), np.float32)
        for tensor, data in stored
        if tensor.type == schema.TensorType.FLOAT32 and len(tensor.shape) == 1 and data is not None
    }


def _store_(schema: Any, model: Any, tensor: Any, values: np.ndarray, scales: np.ndarray) -> None:
    """Give a tensor other values, in a buffer of its own, and other scales."""
    model.buffers.append(schema.BufferT())
    tensor.buffer = len(model.buffers) - 1
    model.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    tensor.quantization.scale = scales.astype(np.float32)


def fit_onnx_biases(content: bytes, prepared: Path) -> bytes:
    """A static int8 ONNX file with biases that fit, given the float file that it was made from."""
    import onnx

    model = onnx.load_from_string(content)
    stored = {one.name: one for one in model.graph.initializer}
    layers = list(_onnx_layers(model.graph, stored))
    if not any(layer.overflows for layer in layers):
        return content
    biases = _onnx_biases(prepared)
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


def _onnx_layers(graph: Any, stored: Mapping[str, Any]) -> Iterator[Held]:
    """Layers with integer weights and biases, by the name that they had in float."""
    import onnx

    makers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        found = _integer_operands(node) if node.op_type in ONNX_INPUTS else _dequantized_operands(node, makers)
        names, axis, bias_scale = found
        if len(names) == 4 and all(name in stored for name in names):
            input_scale, _, scales, steps = (onnx.numpy_helper.to_array(stored[name]) for name in names)
            if steps.dtype == np.int32 and stored[names[1]].data_type == onnx.TensorProto.INT8:
                weight, name = (names[1], names[2], axis), node.name.removesuffix("_quant")
                yield Held(name, float(input_scale), weight, scales.reshape(-1), (names[3], bias_scale), steps)


Operands = tuple[list[str], int, str]
"""Names of an input's scale, of weights, of their scale and of a bias; the axis of channels; the bias's scale or ""."""


def _integer_operands(node: Any) -> Operands:
    names = [node.input[place] for place in ONNX_INPUTS[node.op_type] if place < len(node.input)]
    is_turned = any(one.name == "transB" and one.i for one in node.attribute)
    return names, 0 if node.op_type == "QLinearConv" or is_turned else 1, ""


def _dequantized_operands(node: Any, makers: Mapping[str, Any]) -> Operands:
    operands = [makers[name] for name in node.input[:3] if name in makers]
    if len(operands) < 3:
        return [], 0, ""
    source, weight, bias = operands
    axis = next((one.i for one in weight.attribute if one.name == "axis"), 1)
    return [source.input[1], *weight.input[:2], bias.input[0]], axis, bias.input[1]


def _onnx_biases(path: Path) -> dict[str, np.ndarray]:
    """The bias of each layer of a float file by its node's name."""
    import onnx

    graph = onnx.load(path).graph
    stored = {one.name: one for one in graph.initializer}
    biases = {node.name: node.input[2] for node in graph.node if len(node.input) > 2 and node.input[2] in stored}
    return {name: onnx.numpy_helper.to_array(stored[bias]) for name, bias in biases.items()}
