"""Rules of the operators that move slices about: views, permutations, joins, cuts, gathers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from edgeprune.graph.labels import Array, Dim, join
from edgeprune.graph.rules_layers import broadcast
from edgeprune.graph.trace import operator_of
from edgeprune.graph.walk import Dims, Rule, Shuffle, Value, Walk, arg, freeze_all, untracked

VIEWS = ("aten.view", "aten.reshape", "aten._unsafe_view", "aten.flatten", "aten.unflatten")


def same(node: Node, walk: Walk) -> Value:
    """The operand itself: copies, casts, dropout."""
    return walk.values[node.all_input_nodes[0]]


def view(node: Node, walk: Walk) -> Value:
    """Merge and split dimensions; a view that ends a channel shuffle reorders its source's channels."""
    if node in walk.shuffles:
        shuffle = walk.shuffles[node]
        dims = list(walk.dims(_named(node, shuffle.source)))
        dim = dims[shuffle.axis]
        dims[shuffle.axis] = None if dim is None else dim[shuffle.order]
        return tuple(dims)
    source = node.all_input_nodes[0]
    if _find_shuffle(node, source, walk):
        return untracked(node)
    return reshape(walk.dims(source), walk.sizes(source), walk.sizes(node), walk)


def view_as(node: Node, walk: Walk) -> Value:
    """Merge and split dimensions to the sizes of another tensor, whose slices then are the same."""
    source, other = node.args
    dims = reshape(walk.dims(source), walk.sizes(source), walk.sizes(node), walk)
    for left, right in zip(dims, walk.dims(other), strict=True):
        if left is not None and right is not None:
            walk.tie(node, left, right)
        elif left is not None or right is not None:
            walk.freeze(node, (left, right))
    return dims


def reshape(dims: Dims, old: Sequence[int], new: Sequence[int], walk: Walk) -> Dims:
    """Labels of dimensions `old` when they are viewed as `new`."""
    out: list[Dim] = [None] * len(new)
    for before, after in match_sizes(old, new):
        merged = walk.labels.merge([dims[axis] for axis in before], [old[axis] for axis in before])
        for axis, dim in zip(after, walk.labels.split(merged, [new[axis] for axis in after]), strict=True):
            out[axis] = dim
    return tuple(out)


def match_sizes(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes of equal product, axes of size 1 left out."""
    left = [axis for axis, size in enumerate(old) if size != 1]
    right = [axis for axis, size in enumerate(new) if size != 1]
    runs = []
    while left and right:
        before, after = [left.pop(0)], [right.pop(0)]
        while prod(old[axis] for axis in before) != prod(new[axis] for axis in after):
            if prod(old[axis] for axis in before) < prod(new[axis] for axis in after):
                before.append(left.pop(0))
            else:
                after.append(right.pop(0))
        runs.append((before, after))
    return runs


def _named(node: Node, name: str) -> Node:
    source = node
    while source.name != name:
        source = source.all_input_nodes[0]
    return source


def _find_shuffle(node: Node, source: Node, walk: Walk) -> bool:
    """Whether `node` begins a channel shuffle (view to one more dimension, swap two, view back)."""
    sizes, inner = walk.sizes(source), walk.sizes(node)
    swap = _only_user(node)
    if len(inner) != len(sizes) + 1 or swap is None or operator_of(swap) not in ("aten.transpose", "aten.permute"):
        return False
    last = _only_user(swap)
    while last is not None and operator_of(last) in ("aten.contiguous", "aten.clone"):
        last = _only_user(last)
    swapped = walk.sizes(swap)
    axis = next((axis for axis in range(len(sizes)) if sizes[axis] != inner[axis]), 0)
    expected = [*range(axis), axis + 1, axis, *range(axis + 2, len(inner))]
    if last is None or operator_of(last) not in VIEWS or walk.sizes(last) != sizes:
        return False
    if swapped_axes(swap, len(inner)) != expected:
        return False
    if tuple(inner[place] for place in expected) != swapped or inner[axis] * inner[axis + 1] != sizes[axis]:
        return False
    order = np.arange(sizes[axis]).reshape(inner[axis], inner[axis + 1]).T.reshape(-1)
    walk.shuffles[last] = Shuffle(source.name, axis, order)
    step: Node = swap
    while step is not last:
        walk.skipped.add(step)
        step = next(iter(step.users))
    return True


def swapped_axes(node: Node, rank: int) -> list[int]:
    """The order of axes that a transpose or permute node gives."""
    order = list(range(rank))
    if operator_of(node) == "aten.permute":
        axes = arg(node, 1, "dims")
        return [axis % rank for axis in axes]
    first, second = (int(arg(node, place)) % rank for place in (1, 2))
    order[first], order[second] = order[second], order[first]
    return order


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def permute(node: Node, walk: Walk) -> Value:
    """Axes in another order."""
    dims = walk.dims(arg(node, 0))
    return tuple(dims[axis] for axis in swapped_axes(node, len(dims)))


def matrix_transpose(node: Node, walk: Walk) -> Value:
    """The last two axes swapped (`t`, `mT`)."""
    dims = walk.dims(arg(node, 0))
    return (*dims[:-2], *dims[:-3:-1])


def move_axis(node: Node, walk: Walk) -> Value:
    """One axis to another place."""
    dims = list(walk.dims(arg(node, 0)))
    if not isinstance(arg(node, 1), int) or not isinstance(arg(node, 2), int):
        return freeze_all(node, walk)
    moved = dims.pop(arg(node, 1) % len(dims))
    dims.insert(arg(node, 2) % (len(dims) + 1), moved)
    return tuple(dims)


def squeeze(node: Node, walk: Walk) -> Value:
    """Axes of size 1 away or added: what is left keeps its labels in order."""
    source = node.all_input_nodes[0]
    kept = iter([dim for dim, size in zip(walk.dims(source), walk.sizes(source), strict=True) if size != 1])
    return tuple(None if size == 1 else next(kept) for size in walk.sizes(node))


def concatenate(node: Node, walk: Walk) -> Value:
    """Labels end to end along the axis, tied along the others; untracked parts always stay."""
    parts = [part for part in arg(node, 0) if walk.sizes(part) != (0,)]
    rank = len(walk.sizes(node))
    axis = int(arg(node, 1, "dim", 0)) % rank
    out: list[Dim] = []
    for place in range(rank):
        dims = [walk.dims(part)[place] for part in parts]
        if place == axis:
            out.append(join(dims, [walk.sizes(part)[axis] for part in parts]))
            continue
        for other in dims[1:]:
            walk.tie(node, dims[0], other)
        out.append(dims[0])
    return tuple(out)


def stack(node: Node, walk: Walk) -> Value:
    """Tensors side by side along a new axis."""
    parts = arg(node, 0)
    axis = int(arg(node, 1, "dim", 0)) % len(walk.sizes(node))
    dims = [walk.dims(part) for part in parts]
    for place in range(len(dims[0])):
        for other in dims[1:]:
            walk.tie(node, dims[0][place], other[place])
    return (*dims[0][:axis], None, *dims[0][axis:])


def cut_slice(node: Node, walk: Walk) -> Value:
    """`x[start:end:step]` along one axis."""
    dims = list(walk.dims(arg(node, 0)))
    axis = int(arg(node, 1, "dim", 0)) % len(dims)
    dim, bounds = dims[axis], (arg(node, 2, "start"), arg(node, 3, "end"), arg(node, 4, "step", 1))
    if dim is not None and any(isinstance(bound, Node) for bound in bounds):  # an open size
        return freeze_all(node, walk)
    if dim is not None:
        dims[axis] = _several(node, walk, dim[slice(*bounds)])
    return tuple(dims)


def _several(node: Node, walk: Walk, part: Array) -> Dim:
    """Labels cut out of others; a single slice has to stay."""
    if len(part) > 1:
        return part
    walk.freeze(node, (part,), f"{node.name} ({operator_of(node)}) takes it alone")
    return None


def narrow(node: Node, walk: Walk) -> Value:
    """`length` slices from `start`."""
    dims = list(walk.dims(arg(node, 0)))
    axis, start, length = (arg(node, place) for place in (1, 2, 3))
    dim = dims[axis]
    if dim is not None:
        dims[axis] = _several(node, walk, dim[start : start + length])
    return tuple(dims)


def select(node: Node, walk: Walk) -> Value:
    """One slice, which then has to stay."""
    dims = list(walk.dims(arg(node, 0)))
    axis = int(arg(node, 1)) % len(dims)
    dim = dims.pop(axis)
    if dim is not None:
        place = int(arg(node, 2))
        walk.freeze(node, (dim[place : place + 1 or None],), f"{node.name} (aten.select) takes it alone")
    return tuple(dims)


def unbind(node: Node, walk: Walk) -> Value:
    """Every slice alone: all of them have to stay."""
    dims = list(walk.dims(arg(node, 0)))
    dim = dims.pop(int(arg(node, 1, "dim", 0)) % len(dims))
    walk.freeze(node, (dim,), f"{node.name} (aten.unbind) takes its slices apart")
    return [tuple(dims)] * len(node.meta["val"])


def cut(node: Node, walk: Walk) -> Value:
    """`split`, `chunk`, `split_with_sizes`: labels cut where the tensor is."""
    dims = walk.dims(arg(node, 0))
    axis = int(arg(node, 2, "dim", 0)) % len(dims)
    pieces: list[Dims] = []
    start = 0
    for value in node.meta["val"]:
        size, dim = int(value.shape[axis]), dims[axis]
        piece = None if dim is None else _several(node, walk, dim[start : start + size])
        pieces.append((*dims[:axis], piece, *dims[axis + 1 :]))
        start += size
    return pieces


def get_item(node: Node, walk: Walk) -> Value:
    """One of several tensors."""
    values = walk.values[arg(node, 0)]
    return values[int(arg(node, 1))] if isinstance(values, list) else untracked(node)


def expand(node: Node, walk: Walk) -> Value:
    """Repeat a dimension of size 1: the copies can be as many as their use has slices."""
    source = node.all_input_nodes[0]
    dims, old, new = walk.dims(source), walk.sizes(source), walk.sizes(node)
    dims, old = (None,) * (len(new) - len(dims)) + dims, (1,) * (len(new) - len(old)) + old
    traced = node.meta["val"].shape
    return tuple(
        walk.labels.fresh(size) if before == 1 and isinstance(one, int) else dim
        for dim, before, size, one in zip(dims, old, new, traced, strict=True)
    )


def expand_as(node: Node, walk: Walk) -> Value:
    """Repeat dimensions of size 1 as often as another tensor has slices, whose slices the others are."""
    return broadcast(node, walk, (arg(node, 0), arg(node, 1)))


def repeat(node: Node, walk: Walk) -> Value:
    """Whole copies end to end (`repeat`, `tile`)."""
    source = arg(node, 0)
    dims, old, new = walk.dims(source), walk.sizes(source), walk.sizes(node)
    dims, old = (None,) * (len(new) - len(dims)) + dims, (1,) * (len(new) - len(old)) + old
    traced = node.meta["val"].shape
    out: list[Dim] = []
    for dim, before, size, one in zip(dims, old, new, traced, strict=True):
        if dim is not None:
            out.append(np.tile(dim, size // before))
        else:
            out.append(walk.labels.fresh(size) if before == 1 and isinstance(one, int) else None)
    return tuple(out)


def repeat_interleave(node: Node, walk: Walk) -> Value:
    """Every slice several times in a row."""
    times, axis = arg(node, 1), arg(node, 2, "dim")
    dims = list(walk.dims(arg(node, 0)))
    if not isinstance(times, int) or axis is None:
        return freeze_all(node, walk)
    dim = dims[axis]
    dims[axis] = None if dim is None else np.repeat(dim, times)
    return tuple(dims)


def flip(node: Node, walk: Walk) -> Value:
    """Axes in reverse order."""
    dims = list(walk.dims(arg(node, 0)))
    for axis in arg(node, 1):
        dim = dims[axis]
        dims[axis] = None if dim is None else dim[::-1]
    return tuple(dims)


def roll(node: Node, walk: Walk) -> Value:
    """Axes rotated."""
    dims, axes = list(walk.dims(arg(node, 0))), arg(node, 2, "dims", [])
    if not axes:
        return freeze_all(node, walk)
    for shift, axis in zip(arg(node, 1), axes, strict=True):
        dim = dims[axis]
        dims[axis] = None if dim is None else np.roll(dim, shift)
    return tuple(dims)


def index_select(node: Node, walk: Walk) -> Value:
    """Slices picked by an index; a constant one only reorders the labels."""
    dims = list(walk.dims(arg(node, 0)))
    axis = int(arg(node, 1)) % len(dims)
    dim, order = dims[axis], _constant(arg(node, 2), walk)
    dims[axis] = None if dim is None or order is None else dim[order]
    if order is None:
        walk.freeze(node, (dim,))
    return tuple(dims)


def _constant(value: object, walk: Walk) -> Any:
    if not isinstance(value, Node) or value.op != "get_attr":
        return None
    owner: Any = walk.program
    for part in str(value.target).split("."):
        owner = getattr(owner, part)
    return owner.numpy() if isinstance(owner, torch.Tensor) and owner.dim() == 1 else None


def index(node: Node, walk: Walk) -> Value:
    """`x[:, idx]`: the indexed dimension stays whole, the others keep their labels."""
    dims, indices = walk.dims(arg(node, 0)), list(arg(node, 1))
    used = [place for place, one in enumerate(indices) if one is not None]
    for place in used:
        walk.freeze(node, (dims[place],), f"{node.name} (aten.index) picks from it")
    is_mask = any(indices[place].meta["val"].dtype is torch.bool for place in used)
    if is_mask or used != list(range(used[0], used[0] + len(used))):
        return freeze_all(node, walk)
    rank = max(len(walk.sizes(indices[place])) for place in used)
    return (*dims[: used[0]], *(None,) * rank, *dims[used[-1] + 1 :])


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


def made(node: Node, walk: Walk) -> Value:
    """A constant tensor of a literal size: as wide as its use needs."""
    value = node.meta["val"]
    return tuple(walk.labels.fresh(size) if isinstance(size, int) else None for size in value.shape)


RULES: dict[str, Rule] = {
    **dict.fromkeys(VIEWS, view),
    **{
        f"aten.{name}": same
        for name in (
            "contiguous",
            "clone",
            "detach",
            "alias",
            "dropout",
            "feature_dropout",
            "alpha_dropout",
            "to",
            "_to_copy",
            "type_as",
            "lift_fresh_copy",
            "float",
            "zeros_like",
            "ones_like",
            "full_like",
            "rand_like",
            "bernoulli",
            "feature_alpha_dropout",
            "empty_like",
            "identity",
        )
    },
    "aten.view_as": view_as,
    "aten.reshape_as": view_as,
    "aten.permute": permute,
    "aten.transpose": permute,
    "aten.swapaxes": permute,
    "aten.t": matrix_transpose,
    "aten.mT": matrix_transpose,
    "aten.numpy_T": matrix_transpose,
    "aten.movedim": move_axis,
    "aten.squeeze": squeeze,
    "aten.unsqueeze": squeeze,
    "aten.cat": concatenate,
    "aten.concat": concatenate,
    "aten.stack": stack,
    "aten.slice": cut_slice,
    "aten.narrow": narrow,
    "aten.select": select,
    "aten.unbind": unbind,
    "aten.split": cut,
    "aten.chunk": cut,
    "aten.split_with_sizes": cut,
    "aten.tensor_split": cut,
    "getitem": get_item,
    "aten.expand": expand,
    "aten.expand_as": expand_as,
    "aten.broadcast_to": expand,
    "aten.repeat": repeat,
    "aten.tile": repeat,
    "aten.repeat_interleave": repeat_interleave,
    "aten.flip": flip,
    "aten.roll": roll,
    "aten.index_select": index_select,
    "aten.index": index,
    "aten.pad": pad,
    "aten.constant_pad_nd": pad,
    "aten.unfold": sliding,
    "aten.im2col": unfold,
    "aten.col2im": fold,
    "aten.pixel_shuffle": pixel_shuffle,
    "aten.pixel_unshuffle": pixel_unshuffle,
    **{f"aten.{new}{name}": made for new in ("", "new_") for name in ("zeros", "ones", "full", "empty")},
}
