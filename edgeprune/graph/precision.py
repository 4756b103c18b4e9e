"""Floats of a traced program in one type, float32: what training, the proof and the files work in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate

from edgeprune.graph.trace import Example, copy_program, export_graph, graph_of

NARROW = (torch.float16, torch.bfloat16)


def widen(program: GraphModule, example: Example) -> tuple[GraphModule, tuple[torch.dtype, ...]]:
    """A copy of a program whose every float is float32, and what other floats it had; itself where it had none.

    Tensors in float16 and bfloat16 are held exactly by float32, and casts to these types are left out. float64 is
    rounded, where a parameter or buffer has it.

    Raises:
        GraphError: the program cannot be traced in float32.
    """
    dtypes = {tensor.dtype for _, _, tensor in _stored(program)}
    replaced = {*NARROW, *(dtypes & {torch.float64})}
    others = sorted(replaced & (dtypes | _cast_to(program)), key=str)
    if not others:
        return program, ()
    program = copy_program(program)
    for owner, name, tensor in _stored(program):
        if tensor.dtype in replaced and isinstance(tensor, torch.nn.Parameter):
            tensor.data = tensor.data.float()
        elif tensor.dtype in replaced:
            setattr(owner, name, tensor.float())

    def to_float32(value: Any) -> Any:
        return torch.float32 if isinstance(value, torch.dtype) and value in replaced else value

    for node in program.graph.nodes:
        node.args, node.kwargs = map_aggregate(node.args, to_float32), map_aggregate(node.kwargs, to_float32)
    program.recompile()
    return graph_of(export_graph(program, example)), tuple(others)


def _stored(program: GraphModule) -> Iterator[tuple[Any, str, Tensor]]:
    """Every tensor that the graph reads, with the module that holds it and its name there, each once."""
    for target in dict.fromkeys(str(node.target) for node in program.graph.find_nodes(op="get_attr")):
        owner, _, name = target.rpartition(".")
        module = program.get_submodule(owner)
        value = getattr(module, name, None)
        if isinstance(value, Tensor) and value.is_floating_point():
            yield module, name, value


def _cast_to(program: GraphModule) -> set[torch.dtype]:
    """Types that are named in the graph."""
    dtypes: set[torch.dtype] = set()

    def note(value: Any) -> Any:
        if isinstance(value, torch.dtype):
            dtypes.add(value)
        return value

    for node in program.graph.nodes:
        _note_all(node, note)
    return dtypes


def _note_all(node: Node, note: Any) -> None:
    map_aggregate(node.args, note)
    map_aggregate(node.kwargs, note)
