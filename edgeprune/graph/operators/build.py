"""Operators that are put into graphs, and nodes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from edgeprune.graph.cut import Cut
from edgeprune.graph.labels import Array, Dim

ADD = torch.ops.aten.add.Tensor
INDEX_SELECT = torch.ops.aten.index_select.default
MASKED_FILL = torch.ops.aten.masked_fill.Scalar
MASKED_FILL_IN_PLACE = torch.ops.aten.masked_fill_.Scalar
PAD = torch.ops.aten.constant_pad_nd.default
SIZE = torch.ops.aten.sym_size.int
SPLIT = torch.ops.aten.split_with_sizes.default
ZEROS_LIKE = torch.ops.aten.zeros_like.default


def plain_form(target: object) -> Callable[..., Any] | None:
    """The operator that computes what an in-place one does, without writing; None of what is not in place."""
    name = str(getattr(target, "overloadpacket", ""))
    if not name.startswith("aten.") or not name.endswith("_"):
        return None
    plain = getattr(torch.ops.aten, name.removeprefix("aten.").removesuffix("_"), None)
    form = getattr(plain, getattr(target, "_overloadname", "default"), None)
    return form if callable(form) else None


def gather_(node: Node, source: Any, axis: int, dim: Dim, order: Array, cut: Cut) -> None:
    """Turn `node` into a gather along `axis` of the slices at `order` (places before surgery) that stay."""
    mask = cut.mask(dim)
    if mask is None:
        return
    places = (np.cumsum(mask) - 1)[order[mask[order]]]
    with node.graph.inserting_before(node):
        constant = places_node(node, "order", places, cut)
    node.target, node.args, node.kwargs = INDEX_SELECT, (source, axis, constant), {}


def places_node(node: Node, role: str, places: Array, cut: Cut) -> Node:
    """A node that reads constant places, at the graph's present insertion point."""
    name = f"{role}_{node.name}"
    while hasattr(cut.program, name):
        name += "_"
    index = torch.from_numpy(np.ascontiguousarray(places, np.int64))
    cut.program.register_buffer(name, index)
    constant = node.graph.get_attr(name)
    constant.meta["val"] = node.meta["val"].new_empty([len(index)], dtype=torch.int64)
    return constant
