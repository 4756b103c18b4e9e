"""The layers of an ONNX file: its convolutions and products with a weight, as the latency models count them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.core.layers import TRANSPOSED, LayerShape, Window, describe_linear, describe_window
from edgeprune.errors import ExportError
from edgeprune.export.foreign import foreign

CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "FusedConv": 1, "ConvTranspose": 1}
PRODUCTS = {"Gemm": 1, "FusedGemm": 1, "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3, "QGemm": 3}
"""Operators that are layers, and which of their inputs is the weight."""
RECURRENT = ("LSTM", "GRU", "RNN", "Attention", "QAttention", "MultiHeadAttention")
"""Operators whose work is not that of one layer; a net with them is refused rather than undercounted."""

Sizes = Mapping[str, tuple[int, ...]]


def read_onnx_layers(path: Path) -> tuple[LayerShape, ...]:
    """The layers of an ONNX file in order, for a batch of 1, float or quantized (QDQ and QOperator form).

    Sizes are those of one run in ONNX Runtime: its own operators have no shape inference.

    Raises:
        ExportError: not an ONNX file that runs, input sizes left open, or an operator whose work cannot be told.
    """
    with foreign("reading ONNX layers", path):
        import onnx

        model = onnx.load(path)
        _fix_batch_(model.graph, path)
        nodes = tuple(find_layers(model.graph, path))
        if not nodes:
            raise ExportError(f"{path}: no convolution and no product with a weight in it")
        sizes = _run_for_sizes(model, nodes)
    return tuple((_convolution if node.op_type in CONVOLUTIONS else _product)(node, sizes) for node in nodes)


def _fix_batch_(graph: Any, path: Path) -> None:
    """Set an open batch to 1, also where inner sizes were written down for another."""
    weights = {tensor.name for tensor in graph.initializer}
    for given in graph.input:
        for axis, size in enumerate(given.type.tensor_type.shape.dim if given.name not in weights else ()):
            if size.dim_value <= 0 and axis > 0:
                raise ExportError(f"{path}: input {given.name!r} leaves its size open; export it with fixed sizes")
            if axis == 0:
                size.dim_value = 1
    for made in graph.output:
        made.type.tensor_type.ClearField("shape")
    del graph.value_info[:]


def find_layers(graph: Any, path: Path) -> Iterator[Any]:
    """Nodes that are layers: what is computed from weights alone is a weight too."""
    fixed = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in RECURRENT:
            raise ExportError(f"{path}: operator {node.op_type} of {node.name!r}: no latency model of such layers")
        if all(name in fixed for name in node.input if name):
            fixed.update(node.output)
        elif node.op_type in CONVOLUTIONS or (node.op_type in PRODUCTS and node.input[PRODUCTS[node.op_type]] in fixed):
            yield node


def _run_for_sizes(model: Any, nodes: Sequence[Any]) -> Sizes:
    """Sizes of every operand and result of `nodes`."""
    import onnx
    import onnxruntime

    graph = model.graph
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in sizes]
    wanted = {name for node in nodes for name in (*node.input, *node.output) if name}
    wanted -= {*sizes, *(value.name for value in (*given, *graph.output))}
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(wanted))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {value.name: _zeros(value) for value in given}
    results = session.run(None, feed)
    found = {out.name: result.shape for out, result in zip(session.get_outputs(), results, strict=True)}
    return sizes | found | {name: value.shape for name, value in feed.items()}


def _zeros(value: Any) -> np.ndarray:
    import onnx

    kind = value.type.tensor_type
    return np.zeros([dim.dim_value for dim in kind.shape.dim], onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))


def _convolution(node: Any, sizes: Sizes) -> LayerShape:
    read, written = sizes[node.input[0]], sizes[node.output[0]]
    kernel = sizes[node.input[CONVOLUTIONS[node.op_type]]][2:]
    lists = {one.name: tuple(one.ints) for one in node.attribute}
    groups = next((one.i for one in node.attribute if one.name == "group"), 1)
    window = Window(kernel, lists.get("strides", (1,) * len(kernel)), lists.get("dilations", ()), groups)
    op = TRANSPOSED if node.op_type == "ConvTranspose" else "conv"
    return describe_window(op, (read[1], written[1]), (read[2:], written[2:]), window)


def _product(node: Any, sizes: Sizes) -> LayerShape:
    read, written = sizes[node.input[0]], sizes[node.output[0]]
    turned = node.op_type == "Gemm" and any(one.name == "transA" and one.i for one in node.attribute)
    return describe_linear(read[0] if turned else read[-1], written[-1], prod(written[:-1]))
