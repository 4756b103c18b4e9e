"""Copies of graphs that are written otherwise for torch's exporter to ONNX."""

from __future__ import annotations

import copy
import warnings
from typing import Any

from torch import nn
from torch.fx import GraphModule


def copy_with(program: nn.Module, operator: Any) -> GraphModule | None:
    """A copy of a graph that calls an operator, which shares its tensors; None where it calls none."""
    if not isinstance(program, GraphModule) or not program.graph.find_nodes(op="call_function", target=operator):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch copies its own tree specs in a way that it deprecates
        return GraphModule(program, copy.deepcopy(program.graph))
