"""The tensors that a TFLite file holds in memory, and from when to when, as TensorFlow Lite Micro sees them."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from edgeprune.core.memory.arena import Buffer
from edgeprune.core.memory.learn import FileMemory
from edgeprune.exporting.tflite.schema import name_values, unpack_tflite

VALUE_BYTES = {"FLOAT32": 4, "FLOAT16": 2, "INT32": 4, "INT64": 8, "INT16": 2, "INT8": 1, "UINT8": 1, "BOOL": 1}


def read_memory(path: Path) -> FileMemory:
    """The tensors of a file that are no constants, with the steps at which each is alive (0: before any operator).

    After `AllocationInfoBuilder::MarkAllocationLifetimes` of TensorFlow Lite Micro: an input is there from the start,
    an output of the net until the end, all else from the operator that gives it to the last that reads it.
    """
    schema, model = unpack_tflite(path.read_bytes())
    graph = model.subgraphs[0]
    first = dict.fromkeys(map(int, graph.inputs), 0)
    last = dict(first)
    for step, operator in enumerate(graph.operators, 1):
        outputs = [int(index) for index in operator.outputs]
        first |= dict.fromkeys((index for index in outputs if index not in first), step)
        inputs = (int(index) for index in (() if operator.inputs is None else operator.inputs))
        last |= dict.fromkeys((index for index in (*outputs, *inputs) if index in first), step)
    last |= dict.fromkeys(map(int, graph.outputs), len(graph.operators))
    sizes = {index: _count_bytes(schema, graph.tensors[index]) for index in first}
    names = _name(graph, first)
    buffers = tuple(Buffer(names[index], sizes[index], begin, last[index]) for index, begin in sorted(first.items()))
    kinds = name_values(schema.BuiltinOperator)
    operators = tuple(kinds[model.operatorCodes[operator.opcodeIndex].builtinCode] for operator in graph.operators)
    return FileMemory(buffers, operators)


def _count_bytes(schema: Any, tensor: Any) -> int:
    types = name_values(schema.TensorType)
    shape = () if tensor.shape is None else tensor.shape
    return int(prod(map(int, shape))) * VALUE_BYTES[types[tensor.type]]


def _name(graph: Any, indices: Any) -> dict[int, str]:
    """A name for each tensor, short where that is enough, with its number where two have the same."""
    names = {index: shorten(graph.tensors[index].name.decode()) for index in indices}
    many = {name for name in names.values() if list(names.values()).count(name) > 1}
    return {index: f"{name} [{index}]" if name in many else name for index, name in names.items()}


def shorten(name: str) -> str:
    """`module.Net/torch.nn.modules.conv.Conv2d_body;2` as `Conv2d_body`; any other name as it is."""
    parts = [part for part in name.split(";") if "/" in part]
    return "/".join(step.rpartition(".")[2] for step in parts[-1].split("/")[1:]) if parts else name
