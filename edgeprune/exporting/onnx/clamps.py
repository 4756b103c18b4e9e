"""Clamps with stored bounds, written with numbers, for an exporter that writes them as a file that no runtime loads.

torch's exporter to ONNX (2.13) makes a minimum and a maximum of `aten.clamp.Tensor`, and its optimiser fuses these to
one operator that reads a tensor which is not there, where several clamps read the same tensor.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgeprune.exporting.onnx.graphs import copy_with

aten = torch.ops.aten
CLAMP = aten.clamp.Tensor


def number_clamps(program: nn.Module) -> nn.Module:
    """A program that computes the same, with the bounds of clamps as numbers where they are single stored values.

    It shares its tensors with the given one.
    """
    numbered = copy_with(program, CLAMP)
    if numbered is None:
        return program
    for node in numbered.graph.find_nodes(op="call_function", target=CLAMP):
        source, *bounds = (*node.args, None, None)[:3]
        numbers = [_read_number(numbered, bound) for bound in bounds]
        if all(bound is None or number is not None for bound, number in zip(bounds, numbers, strict=True)):
            node.target, node.args = aten.clamp.default, (source, *numbers)
    numbered.graph.eliminate_dead_code()
    numbered.recompile()
    return numbered


def _read_number(program: GraphModule, bound: Any) -> float | None:
    """The value of a stored tensor that holds one."""
    if not isinstance(bound, Node) or bound.op != "get_attr":
        return None
    owner, _, name = str(bound.target).rpartition(".")
    value = getattr(program.get_submodule(owner), name)
    return float(value) if isinstance(value, Tensor) and value.numel() == 1 and value.ndim == 0 else None
