"""One-layer ONNX models; the int8 ones in QDQ form, with quantized tensors at both ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from edgeprune.core.layers import LayerShape
from edgeprune.export.probes_weights import INPUT_SCALE, OUTPUT_SCALE, ProbeWeights, make_weights

OPSET = 17
IR_VERSION = 8
"""Old enough for every runtime that boards still have: ONNX Runtime 1.12 and later."""


def build_onnx_probe(shape: LayerShape, quantized: bool) -> bytes:
    """A layer with a ReLU as an ONNX file: float32 from end to end, or uint8 with int8 weights and int32 bias.

    The quantized nodes are those which ONNX Runtime fuses to QLinearConv or QGemm, leaving no float operation. It runs
    quantized convolutions channels last and transposes at the ends of a network only; transposes here, which cancel
    its own, keep those out of the probe. Where it blocks the channels of float convolutions, a float32 probe contains
    the reordering of its input and output, which a network has at its ends only.
    """
    weights = make_weights(shape)
    nodes, constants = _quantized_layer(shape, weights) if quantized else _float_layer(shape, weights)
    channels_last = quantized and shape.op == "conv"
    if channels_last:
        nodes = _transpose_ends(nodes, axes=len(shape.size))
    model: ModelProto = helper.make_model(
        helper.make_graph(
            nodes,
            "probe",
            [_declare("input", (shape.cin, *shape.size), quantized, channels_last)],
            [_declare("output", (shape.cout, *shape.output_size), quantized, channels_last)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="edgeprune",
    )
    return bytes(model.SerializeToString())


def _declare(name: str, size: tuple[int, ...], quantized: bool, channels_last: bool) -> ValueInfoProto:
    element = TensorProto.UINT8 if quantized else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, element, [1, *size[1:], size[0]] if channels_last else [1, *size])


def _transpose_ends(nodes: list[NodeProto], axes: int) -> list[NodeProto]:
    """The same nodes between channels-last graph ends."""
    spatial = range(1, axes + 1)
    first = helper.make_node("Transpose", ["input"], ["input_channels_first"], perm=[0, axes + 1, *spatial])
    last = helper.make_node("Transpose", ["output_channels_first"], ["output"], perm=[0, *range(2, axes + 2), 1])
    nodes[0].input[0], nodes[-1].output[0] = first.output[0], last.input[0]
    return [first, *nodes, last]


def _layer(shape: LayerShape, inputs: list[str], output: str) -> list[NodeProto]:
    if shape.op == "linear":
        layer = helper.make_node("Gemm", inputs, ["sum"], transB=1)
    else:
        sides = {"kernel_shape": shape.kernel, "strides": shape.stride, "pads": shape.padding * 2}
        layer = helper.make_node("Conv", inputs, ["sum"], group=shape.groups, **sides)
    return [layer, helper.make_node("Relu", ["sum"], [output])]


def _float_layer(shape: LayerShape, weights: ProbeWeights) -> tuple[list[NodeProto], dict[str, NDArray[np.generic]]]:
    return _layer(shape, ["input", "weight", "bias"], "output"), {"weight": weights.weights, "bias": weights.bias}


def _quantized_layer(
    shape: LayerShape, weights: ProbeWeights
) -> tuple[list[NodeProto], dict[str, NDArray[np.generic]]]:
    constants: dict[str, NDArray[np.generic]] = {
        "input_scale": np.array(INPUT_SCALE, dtype=np.float32),
        "output_scale": np.array(OUTPUT_SCALE, dtype=np.float32),
        "zero": np.array(0, dtype=np.uint8),
        "weight": weights.integers,
        "weight_scale": weights.scales,
        "weight_zero": np.zeros(shape.cout, dtype=np.int8),
        "bias": weights.bias_integers,
        "bias_scale": weights.bias_scales,
        "bias_zero": np.zeros(shape.cout, dtype=np.int32),
    }
    dequantized = [
        helper.make_node("DequantizeLinear", ["input", "input_scale", "zero"], ["input_real"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["weight_real"], axis=0),
        helper.make_node("DequantizeLinear", ["bias", "bias_scale", "bias_zero"], ["bias_real"], axis=0),
    ]
    layer = _layer(shape, ["input_real", "weight_real", "bias_real"], "output_real")
    quantize = helper.make_node("QuantizeLinear", ["output_real", "output_scale", "zero"], ["output"])
    return [*dequantized, *layer, quantize], constants
