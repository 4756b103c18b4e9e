"""What layers ask of a board, counted in the terms that an estimated profile has a price for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.latency import steps
from edgeprune.core.latency.layers import ACTIVATIONS, ATTENTION, TRANSPOSED, WEIGHTED, LayerShape
from edgeprune.errors import ProfileError

Array = NDArray[np.float64]

KERNELS = ("conv", "winograd", "pointwise", "depthwise", "grouped", "linear")
"""Kinds of kernel with an efficiency each, in multiply-accumulates; `winograd`: 3x3 convolutions by that algorithm."""
SIMPLE = ("pool", "add", "activation")
"""Kinds of work without weights, in values: those that windows see, those that are added, those whose exponential, root
or like is taken."""
TERMS = (*KERNELS, "starts", "packing", *SIMPLE, "weights", "far", "near", "calls", "nets")
"""`starts` are sums of products, `packing` input values copied to where a kernel wants them (once for each place of its
window), `weights`, `far` and `near` values moved: weights, activations by memory and by cache; `calls` operators."""
KNOWN = (*WEIGHTED, *steps.LISTED)
"""Operators that the model knows: all that the lists of a net hold."""
ON_VALUES = {
    **dict.fromkeys((steps.ADD, steps.MUL), ("add", 3)),
    **dict.fromkeys((steps.POINTWISE, steps.RESIZE), ("add", 2)),
    **dict.fromkeys((steps.CURVE, steps.SOFTMAX, steps.NORM, *ACTIVATIONS), ("activation", 2)),
    steps.CONCAT: ("", 2),
}
"""Operators on single values: the work that each written value is, and how many values are moved for it."""
TILE = 8
"""Output channels that the kernels of common runtimes compute at once on Arm."""


@dataclass(frozen=True)
class Machine:
    """What the count depends on: values that the cache holds, and whether 3x3 kernels use Winograd's algorithm
    (Lavin and Gray 2016)."""

    cache_values: float
    winograd: bool


def count_work(shapes: Sequence[LayerShape], machine: Machine, where: str) -> Array:
    """Work of each layer. Shape (layers, terms).

    Raises:
        ProfileError: an operator that the model does not know.
    """
    for shape in shapes:
        if shape.op not in KNOWN:
            raise ProfileError(
                f"estimated profile ({where}): operator {shape.op!r} of {shape.describe()!r} is unknown; "
                f"known are {', '.join(KNOWN)}; measure this layer on the board instead"
            )
    return np.array([_count(shape, machine) for shape in shapes]).reshape(-1, len(TERMS))


@lru_cache(maxsize=100_000)
def _count(shape: LayerShape, machine: Machine) -> tuple[float, ...]:
    if shape.is_gone:
        return (0.0,) * len(TERMS)
    if shape.has_weights:
        work = _count_weighted(shape, machine.winograd)
    elif shape.op in (ATTENTION, steps.PRODUCT):
        work = _count_product(shape)
    elif shape.op in ON_VALUES:
        work = _count_values(shape)
    else:
        work = _count_windows(shape)
    moved = work.pop("moved")
    spilled = min(max(moved / machine.cache_values - 0.5, 0.0), 1.0)
    work |= {"far": spilled * moved, "near": (1 - spilled) * moved, "calls": 1.0}
    return tuple(work.get(term, 0.0) for term in TERMS)


def _count_weighted(shape: LayerShape, winograd: bool) -> dict[str, float]:
    """Multiply-accumulates with output channels rounded up to a tile; with Winograd's algorithm, transforms too."""
    kernel = find_kernel(shape, winograd)
    places = prod(shape.size if shape.op == TRANSPOSED else shape.output_size)
    summed = shape.cin // shape.groups * prod(shape.kernel)
    channels = shape.cout if shape.groups == shape.cin else shape.cout // shape.groups
    sums = float(-(-channels // TILE) * TILE * shape.cout // channels * places)
    work = {"weights": float(summed * shape.cout)}
    work["moved"] = float(shape.cin * prod(shape.size) + shape.cout * prod(shape.output_size))
    if kernel == "winograd":
        return work | {kernel: (summed + prod(shape.kernel)) * sums}
    if kernel == "depthwise":
        return work | {kernel: summed * sums}
    packed = 0.0 if kernel == "linear" else float(summed * shape.groups * places)
    return work | {kernel: summed * sums, "starts": sums, "packing": packed}


def _count_product(shape: LayerShape) -> dict[str, float]:
    """A product of two tensors; of attention, that of queries and keys, its softmax, and that of it with the values.

    A product has `cin` by `cout` values on its right in `groups` blocks.
    """
    if shape.op == ATTENTION:
        queries, keys = shape.size
        products = float(queries * keys * (shape.cin + shape.cout))
        moved = float((queries + keys) * (shape.cin + shape.cout))
        return {"pointwise": products, "activation": float(shape.groups * queries * keys), "moved": moved}
    rows, right = prod(shape.size), shape.cin * shape.cout // shape.groups
    return {"pointwise": float(rows * right), "moved": float(rows * (shape.cin + shape.cout) + right)}


def _count_values(shape: LayerShape) -> dict[str, float]:
    term, moved = ON_VALUES[shape.op]
    written = float(shape.cout * prod(shape.output_size))
    read = float(shape.cin * prod(shape.size))
    return {"moved": written + (moved - 1) * read} | ({term: written} if term else {})


def _count_windows(shape: LayerShape) -> dict[str, float]:
    """A pool sees every value of each window, a reduction every value that it reads."""
    read, written = float(shape.cin * prod(shape.size)), float(shape.cout * prod(shape.output_size))
    return {"pool": written * prod(shape.kernel) if shape.kernel else read, "moved": read + written}


def find_kernel(shape: LayerShape, winograd: bool) -> str:
    """The kind of kernel that computes a convolution or a linear layer."""
    if shape.op == "linear":
        return "linear" if prod(shape.size) == 1 else "pointwise"
    if shape.groups > 1:
        return "depthwise" if shape.is_depthwise else "grouped"
    if prod(shape.kernel) == 1:
        return "pointwise"
    plain = shape.op == "conv" and set(shape.stride) == {1} and not shape.dilation
    return "winograd" if winograd and plain and shape.kernel == (3, 3) else "conv"
