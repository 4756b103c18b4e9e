"""Versions of operators in static int8 TFLite files, by TFLite's own table.

A converter writes the versions of the float operators, and a quantizer leaves them: LiteRT takes them all the same, but
what reads versions strictly (code generators, TensorFlow Lite Micro's checks) refuses an int8 ADD of version 1.
Source: tensorflow/lite/tools/versioning/op_version.cc, GetBuiltinOperatorVersion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeprune.exporting.tflite.schema import name_kinds, pack_tflite, unpack_tflite

_SECOND = (
    "ADD",
    "SUB",
    "MAX_POOL_2D",
    "AVERAGE_POOL_2D",
    "RELU",
    "RELU6",
    "TANH",
    "LOGISTIC",
    "SOFTMAX",
    "MEAN",
    "MIRROR_PAD",
    "REDUCE_MAX",
    "REDUCE_MIN",
    "RSQRT",
    "PACK",
    "BATCH_MATMUL",
    "CONCATENATION",
    "GATHER",
    "STRIDED_SLICE",
    "MAXIMUM",
    "MINIMUM",
    "L2_NORMALIZATION",
    "DEQUANTIZE",
)
_DATA_INPUT = {"TRANSPOSE_CONV": 2, "SPLIT": 1}
"""The place of what an operator works on, where it is not the first."""

Rule = Callable[[Any, list[Any]], int]


def _version_of_mul(operator: Any, tensors: list[Any]) -> int:
    first, second, output = (float(tensor.quantization.scale[0]) for tensor in tensors)
    return 3 if first * second / output >= 1 else 2


def _version_of_linear(operator: Any, tensors: list[Any]) -> int:
    if len(operator.inputs) == 2:
        return 6
    return 5 if operator.builtinOptions.keepNumDims else 4


def _version_of_resize(operator: Any, tensors: list[Any]) -> int:
    options = operator.builtinOptions
    return 3 if options.halfPixelCenters or (getattr(options, "alignCorners", False) and _is_nearest(options)) else 2


def _is_nearest(options: Any) -> bool:
    return type(options).__name__.startswith("ResizeNearest")


def _version_of_transposed(operator: Any, tensors: list[Any]) -> int:
    if getattr(operator.builtinOptions, "fusedActivationFunction", 0):
        return 4
    return 3 if len(operator.inputs) == 4 and operator.inputs[3] >= 0 else 2


def _by_rank(up_to_four: int, above: int) -> Rule:
    return lambda operator, tensors: up_to_four if len(tensors[0].shape) <= 4 else above


RULES: dict[str, Rule] = {
    **dict.fromkeys(_SECOND, lambda operator, tensors: 2),
    "CONV_2D": lambda operator, tensors: 3 if tensors[0].shape[3] == tensors[1].shape[3] else 6,
    "DEPTHWISE_CONV_2D": lambda operator, tensors: 3,
    "FULLY_CONNECTED": _version_of_linear,
    "TRANSPOSE_CONV": _version_of_transposed,
    "MUL": _version_of_mul,
    "PAD": _by_rank(2, 4),
    "PADV2": _by_rank(2, 4),
    "SLICE": _by_rank(2, 5),
    "TRANSPOSE": _by_rank(2, 4),
    "RESIZE_BILINEAR": _version_of_resize,
    "RESIZE_NEAREST_NEIGHBOR": _version_of_resize,
    "SPLIT": lambda operator, tensors: 2,
}
"""Operator to its version where it works on int8; any other keeps its own."""


def settle_versions(content: bytes) -> bytes:
    """The same file, each operator that works on int8 in the version that TFLite's table gives it."""
    schema, model = unpack_tflite(content)
    kind = name_kinds(schema, model)
    versions: dict[int, set[int]] = {}
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            version = _settle(schema, graph, operator, kind(operator))
            versions.setdefault(operator.opcodeIndex, set()).add(code.version if version is None else version)
    for index, needed in versions.items():  # a code that float operators share has the newest that any of them needs
        model.operatorCodes[index].version = max(needed)
    return pack_tflite(model)


def _settle(schema: Any, graph: Any, operator: Any, name: str) -> int | None:
    """The version of an operator on int8; None for any other."""
    rule, place = RULES.get(name), _DATA_INPUT.get(name, 0)
    if rule is None or len(operator.inputs) <= place:
        return None
    ends = [*operator.inputs, operator.outputs[0]]
    tensors = [graph.tensors[index] for index in ends if index >= 0]
    is_int8 = graph.tensors[operator.inputs[place]].type == schema.TensorType.INT8
    return rule(operator, tensors) if is_int8 else None
