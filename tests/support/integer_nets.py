"""Small static int8 TFLite files, written by hand: a convolution, a mean, a matrix."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeprune.exporting.tflite.probes import Graph, make_quantization

SCALE = 0.05


def build_integer_net(channels: int = 8, padded: bool = True, ends: bool = False) -> bytes:
    """[1, 8, 8, 4] through a 3x3 convolution, a sum with itself, a mean over the image and a matrix to 3 numbers; the
    operators have version 1, as converters leave them. With `ends` it takes and gives float32."""
    rng, graph = np.random.default_rng(0), Graph(True)
    source = graph.add_activation("input", (8, 8, 4), SCALE, 3)
    begin = source
    if ends:
        graph.quantized = False
        begin = graph.add_activation("float_input", (8, 8, 4), SCALE)
        graph.quantized = True
        graph.add_operator("QUANTIZE", 1, [begin], source, schema.QuantizeOptionsT())
    weights = rng.integers(-127, 128, (channels, 3, 3, 4)).astype(np.int8)
    biases = rng.integers(-200, 200, channels).astype(np.int32)
    scales = np.full(channels, 0.004, np.float32)
    zeros = np.zeros(channels, np.int64)
    inner = [
        graph.add_constant("weights", weights, make_quantization(scales, zeros, 0)),
        graph.add_constant("biases", biases, make_quantization(scales * np.float32(SCALE), zeros, 0)),
    ]
    size = 8 if padded else 6
    convolved = graph.add_activation("convolved", (size, size, channels), SCALE, -128)
    options = schema.Conv2DOptionsT(
        padding=schema.Padding.SAME if padded else schema.Padding.VALID,
        strideW=1,
        strideH=1,
        fusedActivationFunction=schema.ActivationFunctionType.RELU,
    )
    graph.add_operator("CONV_2D", 1, [source, *inner], convolved, options)
    summed = graph.add_activation("summed", (size, size, channels), 2 * SCALE, -120)
    graph.add_operator("ADD", 1, [convolved, convolved], summed, schema.AddOptionsT())
    mean = graph.add_activation("mean", (channels,), SCALE, -100)
    axes = graph.add_constant("axes", np.array([1, 2], np.int32))
    graph.add_operator("MEAN", 1, [summed, axes], mean, schema.ReducerOptionsT())
    weight = make_quantization(scales[:1], zeros[:1], 0)
    bias = make_quantization(scales[:1] * np.float32(SCALE), zeros[:1], 0)
    matrix = [
        graph.add_constant("matrix", rng.integers(-127, 128, (3, channels)).astype(np.int8), weight),
        graph.add_constant("offsets", np.zeros(3, np.int32), bias),
    ]
    output = graph.add_activation("output", (3,), SCALE, 7)
    graph.add_operator("FULLY_CONNECTED", 1, [mean, *matrix], output, schema.FullyConnectedOptionsT())
    if ends:
        graph.quantized = False
        result = graph.add_activation("float_output", (3,), SCALE)
        graph.add_operator("DEQUANTIZE", 1, [output], result, schema.DequantizeOptionsT())
        output = result
    return graph.serialize(output, [begin])
