"""TFLite models of a single operator that is no layer: attention products, an activation."""

from __future__ import annotations

import numpy as np

from edgeprune.core.latency.layers import ATTENTION, LayerShape
from edgeprune.exporting.probing.weights import INPUT_SCALE
from edgeprune.exporting.tflite.probes import ZERO_POINT, Graph, make_quantization
from edgeprune.extras import comes_with

with comes_with("tflite"):
    from ai_edge_litert import schema_py_generated as schema

UNIT_SCALE = 1 / 256
"""Real value of one step of int8 between 0 and 1: what TFLite's specification demands of softmax and sigmoid."""
MIDDLE = 0
"""The int8 number of a real zero in values of either sign."""


def build_tflite_operator(shape: LayerShape, quantized: bool) -> bytes:
    """The operator as litert-torch 0.10 writes it, as a TFLite file of float32 or int8.

    Attention takes queries, keys and values, `[1, tokens, channels]` each; an activation takes `[1, values, channels]`.
    """
    graph = Graph(quantized)
    if shape.op != ATTENTION:
        return graph.serialize(_add_activation(graph, shape))
    (queries, keys), sizes = shape.size, (shape.cin, shape.cin, shape.cout)
    inputs = [
        graph.add_activation(name, (tokens, channels), INPUT_SCALE, MIDDLE)
        for name, tokens, channels in zip(("query", "key", "value"), (queries, keys, keys), sizes, strict=True)
    ]
    return graph.serialize(_add_attention(graph, shape, inputs), inputs)


def _add_activation(graph: Graph, shape: LayerShape) -> int:
    size = (shape.size[0], shape.cin)
    source = graph.add_activation("input", size, INPUT_SCALE, MIDDLE)
    if shape.op == "silu":
        gate = graph.add_activation("gate", size, UNIT_SCALE, ZERO_POINT)
        graph.add_operator("LOGISTIC", 2, [source], gate)
        output = graph.add_activation("output", size, INPUT_SCALE, MIDDLE)
        graph.add_operator("MUL", 2, [source, gate], output, schema.MulOptionsT())
        return output
    output = graph.add_activation("output", size, INPUT_SCALE, MIDDLE)
    if shape.op == "gelu":
        graph.add_operator("GELU", 2, [source], output, schema.GeluOptionsT())
    else:
        graph.add_operator("HARD_SWISH", 1, [source], output, schema.HardSwishOptionsT())
    return output


def _add_attention(graph: Graph, shape: LayerShape, inputs: list[int]) -> int:
    heads, (queries, keys) = shape.groups, shape.size
    width, value_width = shape.cin // heads, shape.cout // heads

    def step(name: str, operands: list[int], size: tuple[int, ...], options: object = None, version: int = 2) -> int:
        scale, zero_point = (UNIT_SCALE, ZERO_POINT) if name == "SOFTMAX" else (INPUT_SCALE, MIDDLE)
        output = graph.add_activation(f"{name.lower()}{len(graph.tensors)}", size, scale, zero_point)
        graph.add_operator(name, version, operands, output, options)
        return output

    def whole(values: list[int]) -> int:
        return graph.add_constant(f"whole{len(graph.tensors)}", np.array(values, np.int32))

    def transpose(source: int, order: list[int], size: tuple[int, ...]) -> int:
        return step("TRANSPOSE", [source, whole(order)], size, version=4)

    def in_heads(source: int, tokens: int, channels: int) -> int:
        split = step("RESHAPE", [source, whole([1, tokens, heads, channels])], (tokens, heads, channels), version=1)
        return transpose(split, [0, 2, 1, 3], (heads, tokens, channels))

    query, key = in_heads(inputs[0], queries, width), in_heads(inputs[1], keys, width)
    factor = _add_factor(graph, width**-0.25)
    query = step("MUL", [query, factor], (heads, queries, width), schema.MulOptionsT())
    key = step("MUL", [key, factor], (heads, keys, width), schema.MulOptionsT())
    turned = transpose(key, [0, 1, 3, 2], (heads, width, keys))
    scores = step("BATCH_MATMUL", [query, turned], (heads, queries, keys), schema.BatchMatMulOptionsT())
    shares = step("SOFTMAX", [scores], (heads, queries, keys), schema.SoftmaxOptionsT(beta=1.0))
    value = in_heads(inputs[2], keys, value_width)
    mixed = step("BATCH_MATMUL", [shares, value], (heads, queries, value_width), schema.BatchMatMulOptionsT())
    tokens = transpose(mixed, [0, 2, 1, 3], (queries, heads, value_width))
    return step("RESHAPE", [tokens, whole([1, queries, shape.cout])], (queries, shape.cout), version=1)


def _add_factor(graph: Graph, factor: float) -> int:
    if not graph.quantized:
        return graph.add_constant("factor", np.array(factor, np.float32))
    quantization = make_quantization(np.array([factor / 127], np.float32), np.array([0]), 0)
    return graph.add_constant("factor", np.array(127, np.int8), quantization)
