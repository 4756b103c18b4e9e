"""Padding."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node

from edgeprune.graph.cut import Cut
from edgeprune.graph.nodes import arg, operator_of, sizes_of
from edgeprune.graph.operators.record import OperatorFamily, aten
from edgeprune.graph.walk import Value, Walk, freeze_all

PADS = aten("pad constant_pad_nd")


def pad(node: Node, walk: Walk) -> Value:
    """Padding along a tracked axis is as wide as its use needs."""
    dims, amounts = list(walk.dims(arg(node, 0))), list(arg(node, 1))
    mode = arg(node, 2, "mode", "constant")
    for place in range(len(amounts) // 2):
        axis, before, after = len(dims) - 1 - place, amounts[2 * place], amounts[2 * place + 1]
        if dims[axis] is None or (not before and not after):
            continue
        if min(before, after) < 0 or (isinstance(mode, str) and mode != "constant"):
            return freeze_all(node, walk)
        ends = [np.arange(walk.labels.count, walk.labels.count + size) for size in (before, before + after)]
        walk.labels.count += before + after
        dims[axis] = np.concatenate([ends[0], dims[axis], ends[1][before:]])
    return tuple(dims)


def pad_amounts(node: Node, cut: Cut) -> None:
    """Padding along a tracked axis: as many slices as stay at each end."""
    amounts, source, out = list(arg(node, 1)), cut.dims(arg(node, 0)), cut.dims(node)
    for place in range(len(amounts) // 2):
        axis = len(out) - 1 - place
        mask = cut.mask(out[axis])
        if mask is None or out[axis] is source[axis]:
            continue
        before, after = amounts[2 * place], amounts[2 * place + 1]
        amounts[2 * place] = int(mask[:before].sum())
        amounts[2 * place + 1] = int(mask[len(mask) - after :].sum())
    node.update_arg(1, amounts)


def without_padding(source: Any, axis: int) -> Any:
    """What a convolution's input is before zeros are put around it in space, the axes after `axis`."""
    if not isinstance(source, Node) or operator_of(source) not in PADS:
        return source
    rank = len(sizes_of(source.meta["val"])) - axis - 1
    has_mode = operator_of(source) == PADS[0]
    amounts, zeros = arg(source, 1), not arg(source, 3 if has_mode else 2, "value", 0)
    is_plain = not has_mode or arg(source, 2, "mode", "constant") == "constant"
    return arg(source, 0) if is_plain and zeros and len(amounts) <= 2 * rank and min(amounts) >= 0 else source


FAMILIES = (OperatorFamily(PADS, pad, pad_amounts, acts_per_channel=True),)
