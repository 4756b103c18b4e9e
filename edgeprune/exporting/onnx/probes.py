"""ONNX models of one layer or a few; the int8 ones in QDQ form, with quantized tensors at both ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from edgeprune.core.latency.layers import TRANSPOSED, LayerShape
from edgeprune.exporting.probing.weights import INPUT_SCALE, OUTPUT_SCALE, ProbeWeights, make_weights

OPSET = 17
IR_VERSION = 8
"""Old enough for every runtime that boards still have: ONNX Runtime 1.12 and later."""


def build_onnx_probe(layers: Sequence[tuple[LayerShape, bool]]) -> bytes:
    """Layers one behind the other, each with a ReLU and with whether it is quantized, as an ONNX file.

    Float32, or uint8 with int8 weights and int32 biases: the quantized nodes are those which ONNX Runtime fuses to
    QLinearConv or QGemm, leaving no float operation but a conversion where the two meet. It runs quantized convolutions
    channels last and transposes at the ends of a network only; transposes here, which cancel its own, keep those out of
    the probe. Where it blocks the channels of float convolutions, a float32 probe contains the reordering of its input
    and output.
    """
    nodes, constants = list[NodeProto](), dict[str, NDArray[np.generic]]()
    for number, (shape, quantized) in enumerate(layers):
        source = "input" if number == 0 else f"between{number}"
        target = "output" if number == len(layers) - 1 else f"between{number + 1}"
        if number and quantized != layers[number - 1][1]:
            source, node, own_constants = _conversion(source, quantized)
            nodes, constants = [*nodes, node], constants | own_constants
        own_nodes, own_constants = (_quantized_layer if quantized else _float_layer)(
            shape, _Names(source, target, f"{number}.")
        )
        nodes, constants = nodes + own_nodes, constants | own_constants
    (first, starts), (last, ends) = layers[0], layers[-1]
    if starts and first.op == "conv":
        nodes = _transpose_input(nodes, axes=len(first.size))
    if ends and last.op == "conv":
        nodes = _transpose_output(nodes, axes=len(last.size))
    model: ModelProto = helper.make_model(
        helper.make_graph(
            nodes,
            "probe",
            [_declare("input", first.op, (first.cin, *first.size), starts)],
            [_declare("output", last.op, (last.cout, *last.output_size), ends)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="edgeprune",
    )
    return bytes(model.SerializeToString())


@dataclass(frozen=True)
class _Names:
    """Tensors that a layer reads and writes, and what the names of its own begin with."""

    source: str
    target: str
    prefix: str

    def make_weights(self, shape: LayerShape) -> ProbeWeights:
        """Weights of a layer that reads the model's input, or what another layer gives."""
        return replace(make_weights(shape), input_scale=INPUT_SCALE if self.source == "input" else OUTPUT_SCALE)


def _declare(name: str, op: str, size: tuple[int, ...], quantized: bool) -> ValueInfoProto:
    """An end of the model, given its channels and axes; the tokens of a linear layer are rows of a matrix."""
    channels, *axes = size
    if op == "linear":
        shape = [*(axes or [1]), channels]
    else:
        shape = [1, *axes, channels] if quantized and op == "conv" else [1, channels, *axes]
    return helper.make_tensor_value_info(name, TensorProto.UINT8 if quantized else TensorProto.FLOAT, shape)


def _transpose_input(nodes: list[NodeProto], axes: int) -> list[NodeProto]:
    """The same nodes behind an input with its channels last."""
    perm = [0, axes + 1, *range(1, axes + 1)]
    first = helper.make_node("Transpose", ["input"], ["input_channels_first"], perm=perm)
    nodes[0].input[0] = first.output[0]
    return [first, *nodes]


def _transpose_output(nodes: list[NodeProto], axes: int) -> list[NodeProto]:
    """The same nodes with an output that has its channels last."""
    perm = [0, *range(2, axes + 2), 1]
    last = helper.make_node("Transpose", ["output_channels_first"], ["output"], perm=perm)
    nodes[-1].output[0] = last.input[0]
    return [*nodes, last]


def _conversion(source: str, quantized: bool) -> tuple[str, NodeProto, dict[str, NDArray[np.generic]]]:
    """What turns a tensor between layers to uint8, or back: the name of what it gives, the node, its constants."""
    scale, zero, target = f"{source}_scale", f"{source}_zero", f"{source}_converted"
    operator = "QuantizeLinear" if quantized else "DequantizeLinear"
    node = helper.make_node(operator, [source, scale, zero], [target])
    return target, node, {scale: np.array(OUTPUT_SCALE, dtype=np.float32), zero: np.array(0, dtype=np.uint8)}


def _layer(shape: LayerShape, inputs: list[str], output: str, prefix: str) -> list[NodeProto]:
    total = f"{prefix}sum"
    if shape.op == "linear":
        layer = helper.make_node("Gemm", inputs, [total], transB=1)
    else:
        before, after = zip(*shape.ends, strict=True)
        sides = {"kernel_shape": shape.kernel, "strides": shape.stride, "dilations": shape.steps}
        sides["pads"] = (*before, *(max(0, end) for end in after))
        if shape.op == TRANSPOSED:
            sides["output_padding"] = tuple(max(0, -end) for end in after)
        operator = "ConvTranspose" if shape.op == TRANSPOSED else "Conv"
        layer = helper.make_node(operator, inputs, [total], group=shape.groups, **sides)
    return [layer, helper.make_node("Relu", [total], [output])]


def _float_layer(shape: LayerShape, names: _Names) -> tuple[list[NodeProto], dict[str, NDArray[np.generic]]]:
    weights, weight, bias = names.make_weights(shape), f"{names.prefix}weight", f"{names.prefix}bias"
    nodes = _layer(shape, [names.source, weight, bias], names.target, names.prefix)
    return nodes, {weight: _laid_out(weights.weights, shape), bias: weights.bias}


def _laid_out(values: NDArray[Any], shape: LayerShape) -> NDArray[Any]:
    """Weights with the input's channels first, within each group, where the layer is a transposed convolution."""
    if shape.op != TRANSPOSED:
        return values
    grouped = values.reshape(shape.groups, -1, *values.shape[1:]).swapaxes(1, 2)
    return np.ascontiguousarray(grouped.reshape(shape.cin, -1, *values.shape[2:]))


def _quantized_layer(shape: LayerShape, names: _Names) -> tuple[list[NodeProto], dict[str, NDArray[np.generic]]]:
    weights = names.make_weights(shape)
    tensors: dict[str, NDArray[np.generic]] = {
        "input_scale": np.array(weights.input_scale, dtype=np.float32),
        "output_scale": np.array(OUTPUT_SCALE, dtype=np.float32),
        "zero": np.array(0, dtype=np.uint8),
        "weight": _laid_out(weights.integers, shape),
        "weight_scale": weights.scales,
        "weight_zero": np.zeros(shape.cout, dtype=np.int8),
        "bias": weights.bias_integers,
        "bias_scale": weights.bias_scales,
        "bias_zero": np.zeros(shape.cout, dtype=np.int32),
    }
    own = {
        name: names.prefix + name
        for name in (*tensors, "input", "input_real", "weight_real", "bias_real", "output_real")
    }

    def dequantize(name: str, *constants: str, source: str = "", **axis: int) -> NodeProto:
        inputs = [source or own[name], *(own[constant] for constant in constants)]
        return helper.make_node("DequantizeLinear", inputs, [own[f"{name}_real"]], **axis)

    dequantized = [
        dequantize("input", "input_scale", "zero", source=names.source),
        dequantize("weight", "weight_scale", "weight_zero", axis=1 if shape.op == TRANSPOSED else 0),
        dequantize("bias", "bias_scale", "bias_zero", axis=0),
    ]
    if shape.op == TRANSPOSED and shape.groups > 1:  # no axis of its weights is that of its output channels: in float
        ends = {name: tensors[name] for name in ("input_scale", "output_scale", "zero")}
        tensors = ends | {"weight_real": _laid_out(weights.weights, shape), "bias_real": weights.bias}
        del dequantized[1:]
    inputs = [own["input_real"], own["weight_real"], own["bias_real"]]
    layer = _layer(shape, inputs, own["output_real"], names.prefix)
    scaled = [own["output_real"], own["output_scale"], own["zero"]]
    quantize = helper.make_node("QuantizeLinear", scaled, [names.target])
    return [*dequantized, *layer, quantize], {own[name]: value for name, value in tensors.items()}
