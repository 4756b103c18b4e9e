"""The layers of a TFLite file as shapes, for estimates: all, and what is left where channels compute nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.latency.layers import LayerShape, Window, describe_linear, describe_window
from edgeprune.core.latency.steps import ADD, CONCAT, CURVE, MUL, POINTWISE, POOL, REDUCE, RESIZE, SOFTMAX
from edgeprune.errors import ExportError
from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.tflite.schema import name_values, unpack_tflite

Mask = NDArray[np.bool_]

ON_VALUES = {
    "ADD": ADD,
    "SUB": ADD,
    "MUL": MUL,
    "CONCATENATION": CONCAT,
    "SOFTMAX": SOFTMAX,
    "LOGISTIC": CURVE,
    "TANH": CURVE,
    "HARD_SWISH": "hardswish",
    "LEAKY_RELU": POINTWISE,
    "PRELU": POINTWISE,
    "RELU": POINTWISE,
    "RELU6": POINTWISE,
    "QUANTIZE": POINTWISE,
    "DEQUANTIZE": POINTWISE,
    "RESIZE_NEAREST_NEIGHBOR": RESIZE,
    "RESIZE_BILINEAR": RESIZE,
    "MEAN": REDUCE,
}
"""Operators without windows, and as what they are listed."""
FREE = (
    "RESHAPE",
    "SQUEEZE",
    "EXPAND_DIMS",
    "PAD",
    "PADV2",
    "TRANSPOSE",
    "STRIDED_SLICE",
    "SLICE",
    "SHAPE",
    "PACK",
    "SPLIT",
)
"""Operators that move values about, of which nothing is listed."""
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D")
STORED: dict[int, np.dtype[Any]] = {
    9: np.dtype(np.int8),
    0: np.dtype(np.float32),
    3: np.dtype(np.uint8),
    2: np.dtype(np.int32),
}
"""Element types of tensors by their number in the schema (TFLite schema, TensorType), where weights may be of them."""
INT8 = 9
MOST_CHANNELS = 1 << 22
"""Longest axis of a tensor; a file with a longer one is broken."""


@dataclass(frozen=True)
class FileLayers:
    """Layers of a file, in order.

    `live` are the same without the channels that compute nothing, their weights being zero: some runtimes leave those
    out. `is_int8`: the weights of all layers are int8. `parameters` are weights and biases.
    """

    whole: tuple[LayerShape, ...]
    live: tuple[LayerShape, ...]
    is_int8: bool
    parameters: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(shape.macs for shape in self.whole)


@dataclass(frozen=True)
class _Operator:
    """An operator with its tensors, and what is stored of them."""

    kind: str
    options: Any
    inputs: tuple[Any, ...]
    output: Any
    stored: Callable[[Any], np.ndarray | None]

    def size(self, tensor: Any) -> tuple[int, ...]:
        """Shape of a tensor without its batch."""
        return tuple(map(int, tensor.shape))[1:]


def read_file_layers(content: bytes, where: str) -> FileLayers:
    """The layers of a `.tflite` file's content.

    Raises:
        ExportError: not a TFLite file, or an operator that is not known here.
        MissingExtra: ai-edge-litert is not installed.
    """
    if content[4:8] != b"TFL3":
        raise ExportError(f"{where}: not a TFLite file; expected one that begins with TFL3 at its fifth byte")
    with foreign("reading its layers", Path(where)):
        return _read_layers(_list_operators(content), where)


def _read_layers(operators: Sequence[_Operator], where: str) -> FileLayers:
    masks: dict[int, Mask] = {}
    whole, live = list[LayerShape](), list[LayerShape]()
    for operator in operators:
        pair = _read_operator(operator, masks, where)
        whole += pair[:1]
        live += pair[1:]
    weights = [operator.inputs[1] for operator in operators if operator.kind in WEIGHTED]
    return FileLayers(
        tuple(whole),
        tuple(live),
        bool(weights) and all(tensor.type == INT8 for tensor in weights),
        sum(_count_parameters(operator) for operator in operators),
    )


def _list_operators(content: bytes) -> list[_Operator]:
    schema, model = unpack_tflite(content)
    kinds = name_values(schema.BuiltinOperator)
    graph = model.subgraphs[0]
    longest = max(int(np.max(tensor.shape, initial=0)) for tensor in graph.tensors if tensor.shape is not None)
    if longest > MOST_CHANNELS:
        raise ValueError(f"a tensor with an axis of {longest}; expected {MOST_CHANNELS} at most")

    def stored(tensor: Any) -> np.ndarray | None:
        data = model.buffers[tensor.buffer].data
        kind = STORED.get(tensor.type)
        if data is None or len(data) == 0 or kind is None:
            return None
        values: np.ndarray = np.frombuffer(np.asarray(data, np.uint8).tobytes(), kind).reshape(tensor.shape)
        return values

    operators = []
    for row in graph.operators:
        code = model.operatorCodes[row.opcodeIndex]
        kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        inputs = tuple(graph.tensors[index] for index in row.inputs if index >= 0)
        operators.append(_Operator(kind, row.builtinOptions, inputs, graph.tensors[row.outputs[0]], stored))
    return operators


def _count_parameters(operator: _Operator) -> int:
    if operator.kind not in WEIGHTED:
        return 0
    return sum(prod(map(int, tensor.shape)) for tensor in operator.inputs[1:])


def _read_operator(operator: _Operator, masks: dict[int, Mask], where: str) -> tuple[LayerShape, ...]:
    """The shape of an operator and that of its live channels, or nothing; notes which channels it writes are live."""
    if operator.kind in WEIGHTED:
        return _read_weighted(operator, masks)
    source = _mask(operator.inputs[0], masks)
    if operator.kind in FREE:
        target = int(operator.output.shape[-1])
        masks[id(operator.output)] = _carry(source, target)
        return ()
    if operator.kind in POOLS:
        masks[id(operator.output)] = source
        return _read_pool(operator, source)
    if operator.kind not in ON_VALUES:
        known = ", ".join((*WEIGHTED, *POOLS, *ON_VALUES, *FREE))
        raise ExportError(f"{where}: operator {operator.kind} is not known to estimates; known are {known}")
    return _read_values(operator, source, masks)


def _mask(tensor: Any, masks: Mapping[int, Mask]) -> Mask:
    """Which channels of a tensor are live: all, where nothing is known of it."""
    shape = tuple(tensor.shape) if tensor.shape is not None else ()
    return masks.get(id(tensor), np.ones(int(shape[-1]) if len(shape) else 1, bool))


def _carry(mask: Mask, channels: int) -> Mask:
    """A mask behind an operator that moves values: repeated by place where channels are flattened with them."""
    if channels % len(mask) == 0:
        return np.tile(mask, channels // len(mask))
    return np.ones(channels, bool)


def _read_weighted(operator: _Operator, masks: dict[int, Mask]) -> tuple[LayerShape, LayerShape]:
    source, weights = operator.inputs[0], operator.inputs[1]
    reads, values = _mask(source, masks), operator.stored(weights)
    channels = int(operator.output.shape[-1])
    is_depthwise, writes = operator.kind == "DEPTHWISE_CONV_2D", np.ones(channels, bool)
    if is_depthwise and channels == len(reads):
        writes = reads if values is None else reads & (values != 0).any(axis=tuple(range(values.ndim - 1)))
        reads = writes
    elif not is_depthwise and values is not None and values.shape[-1] == len(reads):
        writes = (values[..., reads] != 0).any(axis=tuple(range(1, values.ndim)))
    else:
        reads = np.ones(len(reads), bool)
    counts = (len(reads), channels), (int(reads.sum()), int(writes.sum()))
    shapes = [_describe(operator, cin, cout, is_depthwise) for cin, cout in counts]
    masks[id(operator.output)] = writes
    return shapes[0], shapes[1]


def _describe(operator: _Operator, cin: int, cout: int, is_depthwise: bool) -> LayerShape:
    source, weights, options = operator.inputs[0], operator.inputs[1], operator.options
    if operator.kind == "FULLY_CONNECTED":
        reads = prod(map(int, source.shape)) // int(weights.shape[-1])
        return describe_linear(cin, cout, reads)
    kernel = tuple(map(int, weights.shape[1:3]))
    stride = (int(options.strideH), int(options.strideW))
    dilation = (int(options.dilationHFactor), int(options.dilationWFactor))
    groups = cin if is_depthwise else max(1, int(source.shape[-1]) // int(weights.shape[-1]))
    window = Window(kernel, stride, dilation, max(1, groups))
    sizes = (operator.size(source)[:2], operator.size(operator.output)[:2])
    return describe_window("conv", (cin, cout), sizes, window)


def _read_pool(operator: _Operator, live: Mask) -> tuple[LayerShape, LayerShape]:
    options, source = operator.options, operator.inputs[0]
    window = Window((int(options.filterHeight), int(options.filterWidth)), (int(options.strideH), int(options.strideW)))
    sizes = (operator.size(source)[:2], operator.size(operator.output)[:2])
    whole, left = ((count, count) for count in (len(live), int(live.sum())))
    return describe_window(POOL, whole, sizes, window), describe_window(POOL, left, sizes, window)


def _read_values(operator: _Operator, source: Mask, masks: dict[int, Mask]) -> tuple[LayerShape, LayerShape]:
    op, channels = ON_VALUES[operator.kind], int(operator.output.shape[-1])
    live = np.ones(channels, bool)
    if len(source) == channels:
        live = source.copy()
        for tensor in operator.inputs[1:]:
            other = _mask(tensor, masks)
            live = live | (other if len(other) == channels else True)
    masks[id(operator.output)] = live
    read = operator.size(operator.inputs[0])
    places = tuple(read[:-1]) if op == REDUCE else tuple(operator.size(operator.output)[:-1])
    output = (1,) * len(places) if op == REDUCE else ()
    return tuple(  # type: ignore[return-value]  # two of them
        LayerShape(op, count, count, size=places, output=output) for count in (channels, int(live.sum()))
    )
