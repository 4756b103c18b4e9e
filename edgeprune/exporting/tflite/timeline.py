"""A TFLite file as its steps: what each operator reads, makes and needs beside, and what lies in memory when."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.core.memory.arena import Buffer
from edgeprune.core.memory.learn import FileMemory
from edgeprune.core.memory.timeline import Activation, Step, Timeline
from edgeprune.errors import ExportError
from edgeprune.exporting.tflite.schema import name_kinds, name_values, unpack_tflite

ITEM_BYTES = {
    "FLOAT32": 4, "FLOAT64": 8, "INT8": 1, "UINT8": 1, "BOOL": 1, "INT16": 2, "UINT16": 2, "INT32": 4,
    "UINT32": 4, "INT64": 8, "UINT64": 8, "RESOURCE": 4, "FLOAT16": 2,
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


@dataclass(frozen=True)
class _Graph:
    """A file as it is written: its operators with what each reads and makes."""

    tensors: Sequence[_Tensor]
    operators: Sequence[tuple[str, Sequence[_Tensor], Sequence[_Tensor]]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def timeline(self) -> Timeline:
        steps = [
            Step(op, _changing(read), _changing(written), _find_scratch(op, read, written))
            for op, read, written in self.operators
        ]
        changing = {tensor.name: tensor.activation for tensor in self.tensors if not tensor.is_constant}
        return Timeline(tuple(steps), changing, self.inputs, self.outputs)


def read_timeline(content: bytes, where: str) -> Timeline:
    """The only subgraph of a file, for a batch of one.

    Raises:
        ExportError: no TFLite file, or one that TensorFlow Lite Micro does not run; says what it does run.
        MissingExtra: ai-edge-litert is not installed.
    """
    graph = _read_graph(content, where)
    _check_tensors(graph, where)
    for op, read, _ in graph.operators:
        _check_weights(op, read, where)
    with _readable(where):
        timeline = graph.timeline
    _check_operators(timeline, where)
    return timeline


def read_memory(path: Path) -> FileMemory:
    """What any file of one graph holds in memory, whatever runs it: step 0 is before the first operator.

    Raises:
        ExportError: no TFLite file of one graph.
        MissingExtra: ai-edge-litert is not installed.
    """
    graph = _read_graph(path.read_bytes(), str(path))
    with _readable(str(path)):
        timeline = graph.timeline
    buffers = tuple(
        Buffer(timeline.labels[buffer.name], buffer.size_bytes, first, buffer.last + 1)
        for buffer in timeline.buffers
        for first in (0 if buffer.name in timeline.inputs else buffer.first + 1,)
    )
    return FileMemory(buffers, tuple(step.op for step in timeline.steps))


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Content that is no model is an error of ours."""
    try:
        yield
    except UNREADABLE as exc:
        raise ExportError(f"{where}: cannot be read as a TFLite file of one graph: {exc}; export it anew") from exc


def _read_graph(content: bytes, where: str) -> _Graph:
    if content[4:8] != b"TFL3":
        raise ExportError(f"{where}: not a TFLite file; give one that `edgeprune export` made as .tflite")
    with _readable(where):
        schema, model = unpack_tflite(content)
        (graph,) = model.subgraphs
        tensors, kind = _read_tensors(schema, (model, graph)), name_kinds(schema, model)
        operators = [
            (
                _custom_name(model.operatorCodes[operator.opcodeIndex]) or kind(operator),
                [tensors[index] for index in _indices(operator.inputs)],
                [tensors[index] for index in _indices(operator.outputs)],
            )
            for operator in graph.operators
        ]
        ends = (tuple(tensors[index].name for index in _indices(side)) for side in (graph.inputs, graph.outputs))
        return _Graph(tensors, operators, *ends)


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


def _read_tensors(schema: Any, graph: tuple[Any, Any]) -> list[_Tensor]:
    types, buffers, taken = name_values(schema.TensorType), graph[0].buffers, set[str]()
    tensors = []
    for index, tensor in enumerate(graph[1].tensors):
        data, kind = buffers[tensor.buffer].data, types[tensor.type]
        name = bytes(tensor.name or b"").decode(errors="replace")
        name = f"{name}#{index}" if name in taken or not name else name
        taken.add(name)
        is_constant = data is not None and len(data) > 0
        shape = tuple(max(int(size), 1) for size in (() if tensor.shape is None else tensor.shape))
        tensors.append(_Tensor(name, kind, shape, is_constant or bool(tensor.isVariable)))
    return tensors


def _check_tensors(graph: _Graph, where: str) -> None:
    for tensor in graph.tensors:
        if tensor.type == "FLOAT16" or (not tensor.is_constant and tensor.type not in ITEM_BYTES):
            what = f"tensor {tensor.name} is {tensor.type}"
            raise ExportError(f"{where}: {what}, which TensorFlow Lite Micro does not run; export int8 or fp32")


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
