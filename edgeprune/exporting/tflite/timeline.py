"""A TFLite file as the steps of TensorFlow Lite Micro: what each operator reads, makes and needs beside."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.core.memory.timeline import Activation, Step, Timeline
from edgeprune.errors import ExportError
from edgeprune.exporting.tflite.schema import name_kinds, name_values, unpack_tflite

ITEM_BYTES = {
    "FLOAT32": 4, "FLOAT64": 8, "INT8": 1, "UINT8": 1, "BOOL": 1, "INT16": 2, "UINT16": 2, "INT32": 4,
    "UINT32": 4, "INT64": 8, "UINT64": 8, "RESOURCE": 4,
}  # fmt: skip
SUM_BYTES = {"INT8": 4, "INT16": 8}
"""Of a sum of products of these types in a transposed convolution."""
SUMMING = ("MEAN", "SUM")
"""Operators that keep a sum of 32 bits for each output where they run in integers."""
REDUCING = (*SUMMING, "REDUCE_MAX", "REDUCE_MIN")
"""Operators that keep an index of 32 bits for each axis of their input, and for each axis that they reduce."""
MULTIPLYING = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL")
"""Operators whose second input holds weights; with float activations, TFLM wants those in float as well."""
UNREADABLE = (ValueError, TypeError, IndexError, AttributeError, OverflowError, KeyError, struct.error)
"""What the schema's reader raises for content that is no model."""


@dataclass(frozen=True)
class _Tensor:
    """A tensor of a file; its name is unique there."""

    name: str
    type: str
    shape: tuple[int, ...]
    is_constant: bool

    @property
    def items(self) -> int:
        return math.prod(self.shape)

    @property
    def activation(self) -> Activation:
        return Activation(self.type, self.shape, self.items * ITEM_BYTES[self.type])


def read_timeline(content: bytes, where: str) -> Timeline:
    """The only subgraph of a file, for a batch of one.

    Raises:
        ExportError: no TFLite file, or one that TensorFlow Lite Micro does not run; says what it does run.
        MissingExtra: ai-edge-litert is not installed.
    """
    if content[4:8] != b"TFL3":
        raise ExportError(f"{where}: not a TFLite file; give one that `edgeprune export` made as .tflite")
    try:
        timeline = _read(content, where)
    except UNREADABLE as exc:
        raise ExportError(f"{where}: cannot be read as a TFLite file of one graph: {exc}; export it anew") from exc
    _check_operators(timeline, where)
    return timeline


def _read(content: bytes, where: str) -> Timeline:
    schema, model = unpack_tflite(content)
    (graph,) = model.subgraphs
    tensors = _read_tensors(schema, (model, graph), where)
    kind, steps = name_kinds(schema, model), []
    for operator in graph.operators:
        op = _custom_name(model.operatorCodes[operator.opcodeIndex]) or kind(operator)
        read = [tensors[index] for index in _indices(operator.inputs)]
        written = [tensors[index] for index in _indices(operator.outputs)]
        _check_weights(op, read, where)
        scratch = _find_scratch(op, read, written)
        steps.append(Step(op, _changing(read), _changing(written), scratch))
    return Timeline(
        steps=tuple(steps),
        tensors={tensor.name: tensor.activation for tensor in tensors if not tensor.is_constant},
        inputs=tuple(tensors[index].name for index in _indices(graph.inputs)),
        outputs=tuple(tensors[index].name for index in _indices(graph.outputs)),
    )


def _check_operators(timeline: Timeline, where: str) -> None:
    missing = timeline.list_missing()
    if missing:
        names = ", ".join(f"{op} (step {', '.join(map(str, steps))})" for op, steps in missing.items())
        raise ExportError(
            f"{where}: TensorFlow Lite Micro has no {names}; use another layer there, or a target with another runtime"
        )


def _custom_name(code: Any) -> str:
    """The name of an operator that is no part of TFLite; empty for one that is."""
    return f"custom {bytes(code.customCode).decode(errors='replace')}" if code.customCode else ""


def _read_tensors(schema: Any, graph: tuple[Any, Any], where: str) -> list[_Tensor]:
    types, buffers, taken = name_values(schema.TensorType), graph[0].buffers, set[str]()
    tensors = []
    for index, tensor in enumerate(graph[1].tensors):
        data, kind = buffers[tensor.buffer].data, types[tensor.type]
        name = bytes(tensor.name or b"").decode(errors="replace")
        name = f"{name}#{index}" if name in taken or not name else name
        taken.add(name)
        is_constant = data is not None and len(data) > 0
        if kind == "FLOAT16" or (not is_constant and kind not in ITEM_BYTES):
            raise ExportError(
                f"{where}: tensor {name} is {kind}, which TensorFlow Lite Micro does not run; export int8 or fp32"
            )
        shape = tuple(max(int(size), 1) for size in (() if tensor.shape is None else tensor.shape))
        tensors.append(_Tensor(name, kind, shape, is_constant or bool(tensor.isVariable)))
    return tensors


def _check_weights(op: str, read: Sequence[_Tensor], where: str) -> None:
    """Refuse weights in integers under activations in float, which TensorFlow Lite Micro does not run."""
    types = [tensor.type for tensor in read]
    if op in MULTIPLYING and len(types) > 1 and "FLOAT32" in types[:2] and {"INT8", "UINT8", "INT4"} & set(types[:2]):
        raise ExportError(
            f"{where}: {op} has float activations and weights of 8 bits (dynamic range), which TensorFlow Lite Micro "
            "does not run; export int8 (static) or fp32"
        )


def _find_scratch(op: str, read: Sequence[_Tensor], written: Sequence[_Tensor]) -> tuple[int, ...]:
    """Bytes of the buffers that a reference kernel asks for beside its tensors, where it is known.

    Source: reduce_common.cc and transpose_conv.cc of tflite-micro, held to its counts.
    """
    kind = written[0].type if written else ""
    if op == "TRANSPOSE_CONV" and kind in SUM_BYTES:
        return (SUM_BYTES[kind] * written[0].items,)
    if op not in REDUCING:
        return ()
    indices = (4 * len(read[0].shape), 4 * read[1].items)
    return (*indices, 4 * written[0].items) if op in SUMMING and kind in SUM_BYTES else indices


def _changing(tensors: Iterable[_Tensor]) -> tuple[str, ...]:
    return tuple(tensor.name for tensor in tensors if not tensor.is_constant)


def _indices(indices: Any) -> list[int]:
    """Indices of tensors, without those that say that an optional one is left out."""
    return [int(index) for index in (() if indices is None else indices) if index >= 0]
