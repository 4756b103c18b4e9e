"""The shapes, axes, bounds and amounts of a node as literals, read from what is known without the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import RecipeError
from edgeprune.recipes.onnx_literals.operators import DOMAIN, REDUCTIONS, STANDARD

Array = NDArray[Any]


@dataclass(frozen=True)
class Known:
    """Tensors that do not hang on the data: one value for each batch size that was tried."""

    values: Mapping[str, Sequence[Array]]
    given: frozenset[str]
    """Names of those that stand in the file as they are."""
    batch: int
    """The batch that the file fixes, or 0."""

    def fixed(self, name: str) -> Array | None:
        """The value, if it is the same at every batch."""
        values = self.values.get(name, ())
        is_same = len(values) > 0 and all(np.array_equal(values[0], value) for value in values[1:])
        return values[0] if is_same else None

    def integers(self, node: Any, place: int, attribute: str = "") -> list[int] | None:
        """Whole numbers from an input or, in older files, from an attribute; None where neither is given."""
        for candidate in node.attribute:
            if candidate.name == attribute:
                return list(candidate.ints)
        if len(node.input) <= place or not node.input[place]:
            return None
        value = self.fixed(node.input[place])
        if value is None:
            what = "the batch size" if node.input[place] in self.values else "the data"
            raise RecipeError(f"{node.op_type} {node.name!r}: its sizes hang on {what}")
        return [int(number) for number in value.reshape(-1)]

    def shape(self, node: Any) -> list[int] | None:
        """A shape, its entry that follows the batch left open: -1, or 0 in front if -1 is taken."""
        shapes = self.values.get(node.input[1], ())
        if not shapes or len({len(other) for other in shapes}) > 1:
            return self.integers(node, 1)
        shape = [int(size) for size in shapes[0]]
        follows = [place for place, size in enumerate(shape) if any(int(other[place]) != size for other in shapes)]
        if self.batch and len(shape) > 1 and shape[0] == self.batch:
            follows = [0]
        for place in follows:
            shape[place] = 0 if -1 in shape else -1
        return shape


def rewrite_node(node: Any, known: Known) -> Any:
    """The node in our own domain, with literals; None where onnx2torch reads it as it is."""
    from onnx.helper import make_node

    if node.domain not in STANDARD or node.op_type not in LITERALS:
        return None
    literals = LITERALS[node.op_type](node, known)
    if literals is None:
        return None
    operands = literals.pop("operands", list(node.input[:1]))
    operator = literals.pop("operator", node.op_type)
    literals = {key: value for key, value in literals.items() if value is not None and value != []}
    return make_node(operator, operands, list(node.output), name=node.name or node.output[0], domain=DOMAIN, **literals)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    values = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


Literals = Callable[[Any, Known], dict[str, Any] | None]


def _shape(node: Any, known: Known) -> dict[str, Any]:
    return {"shape": known.shape(node)}


def _repeat(node: Any, known: Known) -> dict[str, Any]:
    return {"amounts": known.integers(node, 1)}


def _axes(node: Any, known: Known) -> dict[str, Any] | None:
    """Squeeze, unsqueeze and reductions."""
    axes = known.integers(node, 1, "axes")
    return None if axes is None else {"axes": axes, "keepdims": _attributes(node).get("keepdims", 1)}


def _split(node: Any, known: Known) -> dict[str, Any] | None:
    sizes = known.integers(node, 1, "split")
    if len(node.output) == 1:
        return None
    return {"sizes": sizes, "axis": _attributes(node).get("axis", 0), "count": len(node.output)}


def _slice(node: Any, known: Known) -> dict[str, Any]:
    starts, ends = known.integers(node, 1, "starts"), known.integers(node, 2, "ends")
    axes, steps = known.integers(node, 3, "axes"), known.integers(node, 4, "steps")
    count = len(starts or ())
    return {"starts": starts, "ends": ends, "axes": axes or list(range(count)), "steps": steps or [1] * count}


def _pad(node: Any, known: Known) -> dict[str, Any]:
    kind, amounts = str(_attributes(node).get("mode", "constant")), known.integers(node, 1, "pads") or []
    value = known.fixed(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    axes = known.integers(node, 3) or list(range(len(amounts) // 2))
    if axes != list(range(len(axes))):
        raise RecipeError(f"Pad {node.name!r}: of some axes only")
    filler = float(_attributes(node).get("value", 0.0) if value is None else value.reshape(-1)[0])
    return {"amounts": amounts, "kind": {"edge": "replicate", "wrap": "circular"}.get(kind, kind), "filler": filler}


def _resize(node: Any, known: Known) -> dict[str, Any]:
    inputs, attributes = len(node.input), _attributes(node)
    place = 1 if inputs == 2 else 2
    scales = known.fixed(node.input[place]) if inputs > place and node.input[place] else None
    factors = [float(factor) for factor in scales.reshape(-1)[2:]] if scales is not None and scales.size else None
    sizes = (known.integers(node, 3) or [])[2:] if factors is None else None
    rule = attributes.get("coordinate_transformation_mode", "half_pixel")
    kind, corners = attributes.get("mode", "nearest"), int(rule == "align_corners")
    return {"operator": "Resize", "factors": factors, "sizes": sizes, "kind": kind, "corners": corners}


def _pool(node: Any, known: Known) -> dict[str, Any]:
    return {}


def _gelu(node: Any, known: Known) -> dict[str, Any]:
    return {"approximate": _attributes(node).get("approximate", "none")}


def _product(node: Any, known: Known) -> dict[str, Any] | None:
    """A product with a constant matrix is a linear layer."""
    weight = known.fixed(node.input[1])
    if weight is None or weight.ndim != 2 or node.input[0] in known.values:
        return None
    return {"operator": "Linear", "operands": list(node.input)}


def _channelwise(node: Any, known: Known) -> dict[str, Any] | None:
    """A factor or summand for each channel that stands in the file is a weight, and not what has been computed."""
    for place, name in enumerate(node.input):
        value = known.fixed(name) if name in known.given else None
        if value is not None and value.dtype == np.float32 and value.size == max(value.shape, default=0) > 1:
            return {"operator": f"{node.op_type}Channels", "operands": [node.input[1 - place], name]}
    return None


LITERALS: dict[str, Literals] = {
    "Reshape": _shape,
    "Expand": _shape,
    "Tile": _repeat,
    "Squeeze": _axes,
    "Unsqueeze": _axes,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
    "GlobalMaxPool": _pool,
    "Gelu": _gelu,
    "MatMul": _product,
    "Add": _channelwise,
    "Mul": _channelwise,
    **dict.fromkeys(REDUCTIONS, _axes),
}
