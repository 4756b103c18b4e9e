"""Attention written out as products and a softmax, for an exporter that refuses the operator.

torch's exporter to ONNX (2.13) takes it on four dimensions only, and lays out in memory what it gives otherwise than
torch does, so that a view behind it fails. What is written here are the nodes that it writes where it does not fail,
but for two that only view the keys in another shape.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from edgeprune.exporting.onnx.graphs import copy_with

aten = torch.ops.aten
ATTENTION = aten.scaled_dot_product_attention.default
Call = Callable[..., Node]
"""Adds an operator and gives its node."""


def write_out_attention(program: nn.Module) -> nn.Module:
    """A program that computes the same without the operator for attention; it shares its tensors with the given one."""
    module = copy_with(program, ATTENTION)
    if module is None:
        return program
    for node in module.graph.find_nodes(op="call_function", target=ATTENTION):
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(_write_out(node, module.graph.call_function))
        module.graph.erase_node(node)
    module.recompile()
    return module


def _write_out(node: Node, call: Call) -> Node:
    """`softmax(scale * query @ key^T + mask) @ value`, the scale's root on either side, as the exporter has it."""
    operands: list[Any] = [*node.args, *(None, 0.0, False)[len(node.args) - 3 :]]
    query, key, value, mask, _, is_causal = operands
    scale: Any = node.kwargs.get("scale")
    factor = sqrt(_sizes(query)[-1] ** -0.5 if scale is None else scale)
    if node.kwargs.get("enable_gqa"):
        times = _sizes(query)[-3] // _sizes(key)[-3]
        key, value = (call(aten.repeat_interleave.self_int, (tensor, times, -3)) for tensor in (key, value))
    turned = call(aten.transpose.int, (key, -2, -1))
    scores = call(
        aten.matmul.default, (call(aten.mul.Tensor, (query, factor)), call(aten.mul.Tensor, (turned, factor)))
    )
    if is_causal:
        ones = call(aten.ones.default, ([_sizes(query)[-2], _sizes(key)[-2]],), {"dtype": torch.bool})
        scores = call(aten.masked_fill.Scalar, (scores, call(aten.triu.default, (ones, 1)), -inf))
    elif isinstance(mask, Node) and mask.meta["val"].dtype is torch.bool:
        scores = call(aten.masked_fill.Scalar, (scores, call(aten.logical_not.default, (mask,)), -inf))
    elif isinstance(mask, Node):
        scores = call(aten.add.Tensor, (scores, mask))
    return call(aten.matmul.default, (call(aten.softmax.int, (scores, -1)), value))


def _sizes(node: Any) -> Any:
    return node.meta["val"].shape
