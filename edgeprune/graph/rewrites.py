"""How the literals of an operator follow when channels go: one small function for each operator family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from edgeprune.errors import GraphError
from edgeprune.graph.groups import Analysis
from edgeprune.graph.labels import Array, Dim, Mask
from edgeprune.graph.trace import operator_of, sizes_of
from edgeprune.graph.walk import Dims, Value, arg


@dataclass
class Cut:
    """One plan on one graph: which slices are left of any dimension. A mask is None where all are.

    `program` is the copy that is being cut.
    """

    analysis: Analysis
    alive: Mask
    program: GraphModule
    traced: dict[tuple[object, ...], torch.Tensor] = field(default_factory=dict)
    """Traced tensors by type and sizes: making one takes longer than all else that is done for a node."""
    _masks: dict[int, Mask | None] = field(default_factory=dict)

    def mask(self, dim: Dim) -> Mask | None:
        """Which slices stay."""
        if dim is None:
            return None
        if id(dim) not in self._masks:
            mask = np.asarray(self.alive[self.analysis.solution.atoms[dim]].all(axis=1))
            self._masks[id(dim)] = None if bool(mask.all()) else mask
        return self._masks[id(dim)]

    def count(self, dim: Dim, size: int) -> int:
        """How many of `size` slices stay."""
        mask = self.mask(dim)
        return size if mask is None else int(mask.sum())

    def dims(self, node: object) -> Dims:
        """The labels of a node's dimensions, as they were in the analysed graph."""
        value = self.analysis.values.get(node.name) if isinstance(node, Node) else None
        return value if isinstance(value, tuple) else ()

    def touches(self, node: Node) -> bool:
        """Whether the node reads or makes a tensor that becomes smaller."""
        if node.op == "output":
            return False
        inner = self.analysis.inner.get(node.name)
        return self.mask(inner) is not None or any(
            self._is_cut(self.analysis.values.get(one.name)) for one in (node, *node.all_input_nodes)
        )

    def _is_cut(self, value: Value) -> bool:
        pieces = value if isinstance(value, list) else [value or ()]
        return any(self.mask(dim) is not None for piece in pieces for dim in piece)

    def position(self, dim: Dim, place: int) -> int:
        """Where the slice at `place` (or the end) lies among those that stay."""
        mask = self.mask(dim)
        return place if mask is None else int(mask[:place].sum())


Rewrite = Callable[[Node, Cut], None]


def view_sizes(node: Node, cut: Cut) -> None:
    """`view`, `reshape`: every literal size counted anew; an open size that shrinks becomes -1."""
    if _end_shuffle(node, cut):
        return
    new: list[Any] = []
    for dim, size, real in zip(cut.dims(node), arg(node, 1), _traced_sizes(node), strict=True):
        if cut.mask(dim) is None:
            new.append(real if size == -1 and isinstance(real, int) else size)
        else:
            new.append(cut.count(dim, real) if isinstance(real, int) else -1)
    node.update_arg(1, new)


def flatten_sizes(node: Node, cut: Cut) -> None:
    """`flatten` has no literal; it can end a channel shuffle."""
    _end_shuffle(node, cut)


def _end_shuffle(node: Node, cut: Cut) -> bool:
    """A channel shuffle becomes a gather, since what stays need not fill the rectangle that it transposes."""
    shuffle = cut.analysis.shuffles.get(node.name)
    if shuffle is None:
        return False
    source = node
    while source.name != shuffle.source:
        source = source.all_input_nodes[0]
    _select_(node, source, shuffle.axis, cut.dims(source)[shuffle.axis], shuffle.order, cut)
    return True


def _traced_sizes(node: Node) -> tuple[Any, ...]:
    """The sizes before surgery, open ones as symbols."""
    return tuple(node.meta["val"].shape)


def unflatten_sizes(node: Node, cut: Cut) -> None:
    """`unflatten(dim, sizes)`."""
    sizes = list(arg(node, 2))
    start = int(arg(node, 1)) % len(sizes_of(node.all_input_nodes[0].meta["val"]))
    made = list(zip(cut.dims(node), _traced_sizes(node), strict=True))[start : start + len(sizes)]
    node.update_arg(2, [cut.count(dim, size) if isinstance(size, int) else -1 for dim, size in made])


def expand_sizes(node: Node, cut: Cut) -> None:
    """`expand`, `zeros`, `full`, `new_zeros`...: literal sizes of what is made."""
    place = 0 if operator_of(node).removeprefix("aten.") in MADE else 1
    sizes = list(arg(node, place))
    for axis, (dim, size) in enumerate(zip(cut.dims(node), sizes, strict=True)):
        if cut.mask(dim) is not None:
            sizes[axis] = cut.count(dim, 0) if isinstance(size, int) and size != -1 else -1
    node.update_arg(place, sizes)


def repeat_sizes(node: Node, cut: Cut) -> None:
    """`repeat`: a dimension of size 1 is repeated as often as its use has slices."""
    source, times = cut.dims(arg(node, 0)), list(arg(node, 1))
    lead = len(times) - len(source)
    for axis, dim in enumerate(cut.dims(node)):
        if cut.mask(dim) is not None and (axis < lead or source[axis - lead] is None):
            times[axis] = cut.count(dim, 0)
    node.update_arg(1, times)


def slice_bounds(node: Node, cut: Cut) -> None:
    """`x[start:end]` counted among the slices that stay; with a step, a gather."""
    source = cut.dims(arg(node, 0))
    axis = int(arg(node, 1, "dim", 0)) % len(source)
    dim = source[axis]
    if cut.mask(dim) is None:
        return
    size, step = sizes_before(arg(node, 0), cut)[axis], arg(node, 4, "step", 1)
    start, end, step = slice(arg(node, 2, "start"), arg(node, 3, "end"), step).indices(size)
    if step != 1:
        _select_(node, arg(node, 0), axis, dim, np.arange(start, end, step), cut)
        return
    node.args = (arg(node, 0), axis, cut.position(dim, start), cut.position(dim, max(start, end)))
    node.kwargs = {}


def narrow_bounds(node: Node, cut: Cut) -> None:
    """`narrow(dim, start, length)`."""
    dim = cut.dims(arg(node, 0))[int(arg(node, 1))]
    start, length = int(arg(node, 2)), int(arg(node, 3))
    first = cut.position(dim, start)
    node.args = (arg(node, 0), arg(node, 1), first, cut.position(dim, start + length) - first)


def sizes_before(node: object, cut: Cut) -> tuple[int, ...]:
    """The sizes that an operand had before surgery."""
    sizes = sizes_of(node.meta["val"]) if isinstance(node, Node) else ()
    return tuple(size if dim is None else len(dim) for dim, size in zip(cut.dims(node), sizes, strict=True))


def select_place(node: Node, cut: Cut) -> None:
    """The slice that `select` takes, counted among those that stay."""
    source = cut.dims(arg(node, 0))
    axis, place = int(arg(node, 1)) % len(source), int(arg(node, 2))
    if cut.mask(source[axis]) is not None:
        size = sizes_before(arg(node, 0), cut)[axis]
        node.args = (arg(node, 0), axis, cut.position(source[axis], place % size))


def cut_sizes(node: Node, cut: Cut) -> None:
    """`split` and `chunk` become a split into pieces as wide as what stays of each."""
    source = cut.dims(arg(node, 0))
    axis = int(arg(node, 2, "dim", 0)) % len(source)
    if cut.mask(source[axis]) is None:
        return
    pieces = [int(value.shape[axis]) for value in node.meta["val"]]
    bounds = [cut.position(source[axis], place) for place in np.cumsum([0, *pieces])]
    node.target = torch.ops.aten.split_with_sizes.default
    node.args = (arg(node, 0), [end - start for start, end in pairwise(bounds)], axis)
    node.kwargs = {}


def reordered(node: Node, cut: Cut) -> None:
    """`flip`, `roll`, `index_select` along a shrunken axis become gathers of what stays."""
    source = cut.dims(arg(node, 0))
    moved = [axis for axis in _moved_axes(node) if cut.mask(source[axis]) is not None]
    if moved and len(_moved_axes(node)) > 1:
        raise GraphError(f"{node.name}: reorders several dimensions at once, one of them pruned")
    for axis in moved:
        _select_(node, arg(node, 0), axis, source[axis], _order(node, sizes_before(arg(node, 0), cut)[axis], cut), cut)


def _moved_axes(node: Node) -> list[int]:
    rank = len(sizes_of(node.meta["val"]))
    axes = arg(node, 2) if operator_of(node) == "aten.roll" else arg(node, 1)
    return [int(axis) % rank for axis in (axes if isinstance(axes, (list, tuple)) else [axes])]


def _order(node: Node, size: int, cut: Cut) -> Array:
    positions = np.arange(size)
    if operator_of(node) == "aten.flip":
        return positions[::-1]
    if operator_of(node) == "aten.roll":
        return np.roll(positions, int(arg(node, 1)[0]))
    if not isinstance(arg(node, 2), Node):
        raise GraphError(f"{node.name}: gathers a pruned dimension by an index that is not a constant")
    return np.asarray(cut.program.get_buffer(str(arg(node, 2).target)).numpy(), np.int64)


def _select_(node: Node, source: Any, axis: int, dim: Dim, order: Array, cut: Cut) -> None:
    """Turn `node` into a gather along `axis` of the slices at `order` (places before surgery) that stay."""
    mask = cut.mask(dim)
    if mask is None:
        return
    places = (np.cumsum(mask) - 1)[order[mask[order]]]
    with node.graph.inserting_before(node):
        constant = _index(node, "order", places, cut)
    node.target, node.args, node.kwargs = torch.ops.aten.index_select.default, (source, axis, constant), {}


def normalized_shape(node: Node, cut: Cut) -> None:
    """The literal shape of layer norm and RMS norm."""
    shape = list(arg(node, 1))
    dims = cut.dims(node)[-len(shape) :]
    node.update_arg(1, [cut.count(dim, size) for dim, size in zip(dims, shape, strict=True)])


def group_count(place: int) -> Rewrite:
    """The number of groups, an argument at `place` (or a keyword), of a convolution or group norm."""

    def rewrite(node: Node, cut: Cut) -> None:
        inner = cut.analysis.inner.get(node.name)
        if cut.mask(inner) is None:
            return
        count = cut.count(inner, 0)
        if len(node.args) > place:
            node.update_arg(place, count)
        else:
            node.update_kwarg("groups", count)

    return rewrite


def convolution(place: int) -> Rewrite:
    """The group count, and channels along an axis that the window slides along (see `rules_layers`)."""

    def rewrite(node: Node, cut: Cut) -> None:
        group_count(place)(node, cut)
        source = cut.dims(arg(node, 0))
        window = sizes_of(arg(node, 1).meta["val"])[2:]
        for axis, width in enumerate(window, len(source) - len(window)):
            if width > 1 and cut.mask(source[axis]) is not None:
                _spread_(node, axis, source[axis], cut)

    return rewrite


def _spread_(node: Node, axis: int, dim: Dim, cut: Cut) -> None:
    """Let `node` see what stays in its old place, zeros between, and take what stays from its result."""
    mask, source = cut.mask(dim), arg(node, 0)
    if mask is None or not isinstance(source, Node):
        return
    rank, kept, sizes = len(cut.dims(source)), int(mask.sum()), list(source.meta["val"].shape)
    aten, places = torch.ops.aten, np.where(mask, np.cumsum(mask) - 1, kept)
    with node.graph.inserting_before(node):
        padded = node.graph.call_function(aten.constant_pad_nd.default, (source, [0, 0] * (rank - axis - 1) + [0, 1]))
        old_places = _index(node, "places", places, cut)
        spread = node.graph.call_function(aten.index_select.default, (padded, axis, old_places))
        window = node.graph.node_copy(node)
        window.update_arg(0, spread)
        taken = _index(node, "kept", mask.nonzero()[0], cut)
    node.target, node.args, node.kwargs = aten.index_select.default, (window, axis, taken), {}
    for one, width in ((padded, kept + 1), (spread, len(mask))):
        one.meta["val"] = source.meta["val"].new_empty([*sizes[:axis], width, *sizes[axis + 1 :]])
    out = [cut.mask(dim) for dim in cut.dims(node)]
    window.meta["val"] = node.meta["val"].new_empty(
        [
            size if here is None or place == axis else int(here.sum())
            for place, (size, here) in enumerate(zip(node.meta["val"].shape, out, strict=True))
        ]
    )


def _index(node: Node, role: str, places: Array, cut: Cut) -> Node:
    """A node that reads constant places, at the graph's present insertion point."""
    name = f"{role}_{node.name}"
    while hasattr(cut.program, name):
        name += "_"
    index = torch.from_numpy(np.ascontiguousarray(places, np.int64))
    cut.program.register_buffer(name, index)
    constant = node.graph.get_attr(name)
    constant.meta["val"] = node.meta["val"].new_empty([len(index)], dtype=torch.int64)
    return constant


def attention_scale(node: Node, cut: Cut) -> None:
    """The scale that follows from the head's width is the original one."""
    if arg(node, 6, "scale") is None:
        width = sizes_before(arg(node, 0), cut)[-1]
        node.args = node.args[:6]
        node.update_kwarg("scale", 1.0 / sqrt(width))


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


MADE = ("zeros", "ones", "full", "empty")

REWRITES: dict[str, Rewrite] = {
    "aten.view": view_sizes,
    "aten.reshape": view_sizes,
    "aten._unsafe_view": view_sizes,
    "aten.flatten": flatten_sizes,
    "aten.unflatten": unflatten_sizes,
    **{f"aten.{name}": expand_sizes for name in ("expand", "broadcast_to", *MADE, *(f"new_{one}" for one in MADE))},
    "aten.repeat": repeat_sizes,
    "aten.slice": slice_bounds,
    "aten.narrow": narrow_bounds,
    "aten.select": select_place,
    "aten.split": cut_sizes,
    "aten.chunk": cut_sizes,
    "aten.split_with_sizes": cut_sizes,
    "aten.tensor_split": cut_sizes,
    "aten.flip": reordered,
    "aten.roll": reordered,
    "aten.index_select": reordered,
    "aten.layer_norm": normalized_shape,
    "aten.rms_norm": normalized_shape,
    "aten.group_norm": group_count(1),
    **{f"aten.conv{rank}d": convolution(6) for rank in (1, 2, 3)},
    **{f"aten.conv_transpose{rank}d": group_count(6) for rank in (1, 2, 3)},
    "aten.convolution": group_count(8),
    "aten.scaled_dot_product_attention": attention_scale,
    "aten.pad": pad_amounts,
    "aten.constant_pad_nd": pad_amounts,
}
