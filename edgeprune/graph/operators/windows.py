"""Pools, resizing, and windows that are laid out as channels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch.fx import Node

from edgeprune.core.latency import steps as kinds
from edgeprune.graph.nodes import arg, operator_of
from edgeprune.graph.operators.record import OperatorFamily, aten
from edgeprune.graph.walk import Value, Walk, untracked


def pool(node: Node, walk: Walk) -> Value:
    """Windows over the last dimensions, which have to stay whole; leading ones keep their labels."""
    dims = walk.dims(arg(node, 0))
    rank = _rank(operator_of(node))
    lead = len(dims) - rank
    walk.freeze(node, dims[lead:], f"{node.name} ({operator_of(node)}) slides along it")
    out = (*dims[:lead], *(None,) * rank)
    return [out, out] if isinstance(untracked(node), list) else out


def _rank(name: str) -> int:
    """How many axes of space an operator has, of its name: 2 for `avg_pool2d`."""
    return int(name.partition("d_")[0].rstrip("d_a")[-1])


def pixel_shuffle(node: Node, walk: Walk) -> Value:
    """Channels of a pixel's block become the block: `C * r * r` channels make `C`."""
    dims, factor = walk.dims(arg(node, 0)), int(arg(node, 1))
    out, *block = walk.labels.split(dims[-3], (walk.sizes(node)[-3], factor, factor))
    walk.freeze(node, block, f"{node.name} (aten.pixel_shuffle) lays it out in space")
    return (*dims[:-3], out, None, None)


def pixel_unshuffle(node: Node, walk: Walk) -> Value:
    """Every channel becomes a block of channels."""
    dims, factor = walk.dims(arg(node, 0)), int(arg(node, 1))
    return (*dims[:-3], None if dims[-3] is None else np.repeat(dims[-3], factor * factor), None, None)


def sliding(node: Node, walk: Walk) -> Value:
    """Windows along one axis, which has to stay whole, and a new last axis for the places within them."""
    dims = list(walk.dims(arg(node, 0)))
    axis = int(arg(node, 1)) % len(dims)
    walk.freeze(node, dims[axis : axis + 1], f"{node.name} (aten.unfold) slides along it")
    dims[axis] = None
    return (*dims, None)


def unfold(node: Node, walk: Walk) -> Value:
    """Windows laid out behind each other (`im2col`): a channel becomes as many as a window has places."""
    dims, window = walk.dims(arg(node, 0)), arg(node, 1)
    return (*dims[:-3], None if dims[-3] is None else np.repeat(dims[-3], window[0] * window[1]), None)


def fold(node: Node, walk: Walk) -> Value:
    """Windows summed back into an image (`col2im`)."""
    dims, window = walk.dims(arg(node, 0)), arg(node, 2)
    out, *places = walk.labels.split(dims[-2], (walk.sizes(node)[-3], window[0], window[1]))
    walk.freeze(node, places, f"{node.name} (aten.col2im) lays it out in space")
    return (*dims[:-2], out, None, None)


RESIZINGS = """
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d
    upsample_trilinear3d _upsample_nearest_exact2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
"""
ACTING_PER_CHANNEL = """
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d upsample_nearest1d upsample_nearest2d
    upsample_bilinear2d
"""
READING_INTEGERS = "adaptive_avg_pool1d adaptive_avg_pool2d avg_pool2d"
POOLS = {
    "avg_pool": {"kernel": 1, "stride": 2},
    "max_pool": {"kernel": 1, "stride": 2, "dilation": 4},
    "adaptive_avg_pool": {},
    "adaptive_max_pool": {},
}
"""Positions of what their window is, by the first part of their names; that of adaptive ones follows from sizes."""


def _sliding_family(name: str, kind: str, places: Mapping[str, int]) -> OperatorFamily:
    return OperatorFamily(
        aten(name),
        pool,
        kind=kind,
        places=places,
        window_rank=_rank(name),
        acts_per_channel=name in ACTING_PER_CHANNEL.split(),
        reads_integers=name in READING_INTEGERS.split(),
    )


FAMILIES = (
    *(
        _sliding_family(f"{name}{rank}d{tail}", kinds.POOL, places)
        for name, places in POOLS.items()
        for rank in (1, 2, 3)
        for tail in ("", "_with_indices")
        if not tail or name == "max_pool"
    ),
    *(_sliding_family(name, kinds.RESIZE, {}) for name in RESIZINGS.split()),
    OperatorFamily(aten("pixel_shuffle"), pixel_shuffle),
    OperatorFamily(aten("pixel_unshuffle"), pixel_unshuffle),
    OperatorFamily(aten("unfold"), sliding, may_view=True),
    OperatorFamily(aten("im2col"), unfold),
    OperatorFamily(aten("col2im"), fold),
)
