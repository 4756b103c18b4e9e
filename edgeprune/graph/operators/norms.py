"""Norms: statistics over channels or over each of them, scales along them."""

from __future__ import annotations

from torch.fx import Node

from edgeprune.core.latency import steps as kinds
from edgeprune.graph.cut import Cut
from edgeprune.graph.nodes import arg
from edgeprune.graph.operators.convolutions import group_count
from edgeprune.graph.operators.record import OperatorFamily, aten
from edgeprune.graph.walk import Value, Walk


def channel_norm(node: Node, walk: Walk) -> Value:
    """Batch and instance norm: statistics and scales for each channel."""
    dims = walk.dims(arg(node, 0))
    for vector in node.args[1:5]:
        if walk.dims(vector):
            walk.tie(node, dims[1], walk.dims(vector)[0])
    return dims


def group_norm(node: Node, walk: Walk) -> Value:
    """Statistics over groups of neighbouring channels, scales for each channel."""
    dims, groups = walk.dims(arg(node, 0)), int(arg(node, 1))
    channels = walk.sizes(arg(node, 0))[1]
    for place, name in ((2, "weight"), (3, "bias")):
        vector = walk.dims(arg(node, place, name))
        if vector:
            walk.tie(node, dims[1], vector[0])
    outer, _ = walk.labels.split(dims[1], (groups, channels // groups))
    if groups not in (1, channels):
        walk.labels.call(outer, "groups")
    walk.inner[node.name] = outer
    return dims


def layer_norm(node: Node, walk: Walk) -> Value:
    """Statistics over the last dimensions, scales along them."""
    dims = walk.dims(arg(node, 0))
    for place, name in ((2, "weight"), (3, "bias")):
        vector = walk.dims(arg(node, place, name))
        for own, other in zip(dims[len(dims) - len(vector) :], vector, strict=True):
            walk.tie(node, own, other)
    return dims


def normalized_shape(node: Node, cut: Cut) -> None:
    """The literal shape of layer norm and RMS norm."""
    shape = list(arg(node, 1))
    dims = cut.dims(node)[-len(shape) :]
    node.update_arg(1, [cut.count(dim, size) for dim, size in zip(dims, shape, strict=True)])


FAMILIES = (
    OperatorFamily(
        aten("batch_norm"),
        channel_norm,
        kind=kinds.SCALE,
        places={"training": 5},
        is_batch_norm=True,
        is_statistic=True,
        acts_per_channel=True,
    ),
    OperatorFamily(aten("instance_norm"), channel_norm, kind=kinds.NORM, is_statistic=True),
    OperatorFamily(
        aten("group_norm"), group_norm, group_count(1), kind=kinds.NORM, places={"groups": 1}, is_statistic=True
    ),
    OperatorFamily(
        aten("layer_norm rms_norm"),
        layer_norm,
        normalized_shape,
        kind=kinds.NORM,
        places={"shape": 1},
        is_statistic=True,
    ),
)
