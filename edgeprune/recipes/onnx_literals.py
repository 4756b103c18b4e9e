"""An ONNX graph made ready for onnx2torch: whatever hangs on sizes alone is computed now and written as literals.

Operators that take their shapes, bounds or amounts as tensors get them as attributes, in a domain of our own that
onnx2torch is taught to read; a bias that is added apart goes into its layer; the batch stays open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeprune.errors import RecipeError

Array = NDArray[Any]
Runner = Callable[[dict[str, Array], Sequence[str] | None], list[Array]]
"""Feeds and names to values, the graph's outputs where no names are given."""
DOMAIN = "edgeprune"
OPSET = 17
"""The newest that onnx2torch knows. What later ones changed beyond types is written as literals here."""
RANDOM = ("Random", "Bernoulli", "Multinomial", "Dropout")
DETECTION = {"NonMaxSuppression", "RoiAlign"}


@dataclass(frozen=True)
class _Known:
    """Tensors that do not hang on the data: one value for each batch size that was tried."""

    values: Mapping[str, Sequence[Array]]
    given: frozenset[str]
    """Names of those that stand in the file as they are."""
    batch: int
    """The batch that the file fixes, or 0."""

    def fixed(self, name: str) -> Array | None:
        """The value, if it is the same at every batch."""
        found = self.values.get(name, ())
        same = len(found) > 0 and all(np.array_equal(found[0], one) for one in found[1:])
        return found[0] if same else None

    def integers(self, node: Any, place: int, attribute: str = "") -> list[int] | None:
        """Whole numbers from an input or, in older files, from an attribute; None where neither is given."""
        for one in node.attribute:
            if one.name == attribute:
                return list(one.ints)
        if len(node.input) <= place or not node.input[place]:
            return None
        value = self.fixed(node.input[place])
        if value is None:
            what = "the batch size" if node.input[place] in self.values else "the data"
            raise RecipeError(f"{node.op_type} {node.name!r}: its sizes hang on {what}")
        return [int(one) for one in value.reshape(-1)]

    def shape(self, node: Any) -> list[int] | None:
        """A shape, its entry that follows the batch left open: -1, or 0 in front if -1 is taken."""
        found = self.values.get(node.input[1], ())
        if not found or len({len(one) for one in found}) > 1:
            return self.integers(node, 1)
        shape = [int(size) for size in found[0]]
        follows = [place for place, size in enumerate(shape) if any(int(one[place]) != size for one in found)]
        if self.batch and len(shape) > 1 and shape[0] == self.batch:
            follows = [0]
        for place in follows:
            shape[place] = 0 if -1 in shape else -1
        return shape


def lower(network: Any, run: Runner, feeds: Mapping[str, Sequence[Array]], batch: int) -> Any:
    """A copy of the network that onnx2torch can convert to a module with literal sizes and an open batch.

    `feeds` are the inputs at each batch to try; `batch` is the one that the file fixes, or 0.

    Raises:
        RecipeError: an operator that nobody converts, or sizes that hang on data.
    """
    _refuse_control_flow(network)
    known = _evaluate(network, run, feeds, batch)
    lowered = _without_known(network, known, {name: values[0].shape for name, values in feeds.items()})
    _fuse_biases_(lowered.graph, known)
    for place, node in enumerate(lowered.graph.node):
        rewritten = _rewritten(node, known)
        if rewritten is not None:
            lowered.graph.node[place].CopyFrom(rewritten)
    _refuse_missing(lowered)
    return lowered


def _refuse_control_flow(network: Any) -> None:
    found = sorted({node.op_type for node in network.graph.node if any(one.HasField("g") for one in node.attribute)})
    if found:
        raise RecipeError(f"control flow ({', '.join(found)}); export the network without it")


def _evaluate(network: Any, run: Runner, feeds: Mapping[str, Sequence[Array]], batch: int) -> _Known:
    from onnx.numpy_helper import to_array

    names, given, wanted = {one.name for one in network.graph.initializer}, set[str](), []
    for node in network.graph.node:
        if _hangs_on_sizes(node, names):
            names |= set(node.output)
            given |= set(node.output) if node.op_type == "Constant" else set()
        else:
            wanted += [name for name in node.input if name in names]
    values: dict[str, Sequence[Array]] = {one.name: (to_array(one),) for one in network.graph.initializer}
    computed = [name for name in dict.fromkeys(wanted) if name not in values]
    (source, examples), *_ = feeds.items()
    runs = [run({source: example}, computed) for example in examples] if computed else []
    values |= {name: [one[place] for one in runs] for place, name in enumerate(computed)}
    given |= {one.name for one in network.graph.initializer}
    return _Known(dict.fromkeys(names, ()) | values, frozenset(given), batch)


def _hangs_on_sizes(node: Any, known: set[str]) -> bool:
    if node.op_type in ("Shape", "Size"):
        return True
    return not node.op_type.startswith(RANDOM) and all(name in known for name in node.input if name)


def _without_known(network: Any, known: _Known, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """The network without what is known, at the given sizes and with an open batch, its shapes inferred."""
    from onnx.helper import make_operatorsetid
    from onnx.numpy_helper import from_array
    from onnx.shape_inference import infer_shapes

    lowered = type(network)()
    lowered.CopyFrom(network)
    graph = lowered.graph
    nodes = [node for node in network.graph.node if not all(name in known.values for name in node.output)]
    used = dict.fromkeys(name for node in nodes for name in node.input)
    fixed = {name: known.fixed(name) for name in used if name in known.values}
    for node in nodes:
        if node.op_type == "Reshape" and fixed.get(node.input[1], "") is None:
            fixed[node.input[1]] = np.asarray(known.shape(node), np.int64)
    for field in (graph.node, graph.initializer, graph.value_info):
        del field[:]
    graph.node.extend(nodes)
    graph.initializer.extend(from_array(value, name) for name, value in fixed.items() if value is not None)
    for one in [one for one in graph.input if one.name not in shapes]:
        graph.input.remove(one)
    for name, value in ((one.name, one) for one in graph.input):
        for place, size in enumerate(shapes[name]):
            value.type.tensor_type.shape.dim[place].CopyFrom(_dimension(size, place))
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    opset = min(OPSET, max(one.version for one in network.opset_import if one.domain in ("", "ai.onnx")))
    others = [one for one in network.opset_import if one.domain not in ("", "ai.onnx")]
    del lowered.opset_import[:]
    lowered.opset_import.extend([make_operatorsetid("", opset), make_operatorsetid(DOMAIN, 1), *others])
    return infer_shapes(lowered)


def _dimension(size: int, place: int) -> Any:
    from onnx import TensorShapeProto

    return TensorShapeProto.Dimension(dim_value=size) if place else TensorShapeProto.Dimension(dim_param="batch")


def _fuse_biases_(graph: Any, known: _Known) -> None:
    """Give what is added to a convolution or product without bias to it as its bias."""
    from onnx.numpy_helper import from_array

    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(one.name for one in graph.output)
    makers = {node.output[0]: node for node in graph.node}
    for add in [node for node in graph.node if node.op_type == "Add"]:
        for source, other in (tuple(add.input), tuple(add.input)[::-1]):
            layer, bias = makers.get(source), known.fixed(other)
            if layer is None or bias is None or readers[source] != 1 or not _takes_bias(layer, bias, known):
                continue
            graph.initializer.append(from_array(np.ascontiguousarray(bias.reshape(-1)), f"{add.output[0]}/bias"))
            layer.input.append(graph.initializer[-1].name)
            layer.output[0] = add.output[0]
            makers[layer.output[0]] = layer
            graph.node.remove(add)
            break


def _takes_bias(layer: Any, bias: Array, known: _Known) -> bool:
    weight = known.fixed(layer.input[1]) if len(layer.input) == 2 else None
    if weight is None or layer.op_type not in ("Conv", "ConvTranspose", "MatMul") or weight.ndim < 2:
        return False
    groups = next((one.i for one in layer.attribute if one.name == "group"), 1)
    width = {"Conv": weight.shape[0], "ConvTranspose": weight.shape[1] * groups, "MatMul": weight.shape[-1]}
    after = 0 if layer.op_type == "MatMul" else weight.ndim - 2
    is_linear = layer.op_type != "MatMul" or weight.ndim == 2
    wanted = (width[layer.op_type], *(1,) * after)
    return is_linear and bias.size == width[layer.op_type] and bias.shape[-len(wanted) :] == wanted


def _rewritten(node: Any, known: _Known) -> Any:
    """The node in our own domain, with literals; None where onnx2torch reads it as it is."""
    from onnx.helper import make_node

    if node.domain not in ("", "ai.onnx") or node.op_type not in LITERALS:
        return None
    literals = LITERALS[node.op_type](node, known)
    if literals is None:
        return None
    operands = literals.pop("operands", list(node.input[:1]))
    operator = literals.pop("operator", node.op_type)
    literals = {key: value for key, value in literals.items() if value is not None and value != []}
    return make_node(operator, operands, list(node.output), name=node.name or node.output[0], domain=DOMAIN, **literals)


def _refuse_missing(lowered: Any) -> None:
    from onnx2torch.node_converters import get_converter

    versions, missing = {one.domain: one.version for one in lowered.opset_import}, set()
    for node in lowered.graph.node:
        try:
            get_converter(domain=node.domain, operation_type=node.op_type, version=versions.get(node.domain, 1))
        except NotImplementedError:
            missing.add(f"{node.domain}.{node.op_type}".lstrip("."))
        if node.op_type in DETECTION:
            missing.add(f"{node.op_type} (cut the post-processing off the file)")
    if missing:
        raise RecipeError(f"no conversion of {', '.join(sorted(missing))}; export the network without")


def _attributes(node: Any) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    found = {one.name: get_attribute_value(one) for one in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


Literals = Callable[[Any, _Known], dict[str, Any] | None]


def _shape(node: Any, known: _Known) -> dict[str, Any]:
    return {"shape": known.shape(node)}


def _repeat(node: Any, known: _Known) -> dict[str, Any]:
    return {"amounts": known.integers(node, 1)}


def _axes(node: Any, known: _Known) -> dict[str, Any] | None:
    """Squeeze, unsqueeze and reductions."""
    axes = known.integers(node, 1, "axes")
    return None if axes is None else {"axes": axes, "keepdims": _attributes(node).get("keepdims", 1)}


def _split(node: Any, known: _Known) -> dict[str, Any] | None:
    sizes = known.integers(node, 1, "split")
    if len(node.output) == 1:
        return None
    return {"sizes": sizes, "axis": _attributes(node).get("axis", 0), "count": len(node.output)}


def _slice(node: Any, known: _Known) -> dict[str, Any]:
    starts, ends = known.integers(node, 1, "starts"), known.integers(node, 2, "ends")
    axes, steps = known.integers(node, 3, "axes"), known.integers(node, 4, "steps")
    count = len(starts or ())
    return {"starts": starts, "ends": ends, "axes": axes or list(range(count)), "steps": steps or [1] * count}


def _pad(node: Any, known: _Known) -> dict[str, Any]:
    kind, found = str(_attributes(node).get("mode", "constant")), known.integers(node, 1, "pads") or []
    value = known.fixed(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    axes = known.integers(node, 3) or list(range(len(found) // 2))
    if axes != list(range(len(axes))):
        raise RecipeError(f"Pad {node.name!r}: of some axes only")
    filler = float(_attributes(node).get("value", 0.0) if value is None else value.reshape(-1)[0])
    return {"amounts": found, "kind": {"edge": "replicate", "wrap": "circular"}.get(kind, kind), "filler": filler}


def _resize(node: Any, known: _Known) -> dict[str, Any]:
    given, attributes = len(node.input), _attributes(node)
    place = 1 if given == 2 else 2
    scales = known.fixed(node.input[place]) if given > place and node.input[place] else None
    factors = [float(one) for one in scales.reshape(-1)[2:]] if scales is not None and scales.size else None
    sizes = (known.integers(node, 3) or [])[2:] if factors is None else None
    rule = attributes.get("coordinate_transformation_mode", "half_pixel")
    kind, corners = attributes.get("mode", "nearest"), int(rule == "align_corners")
    return {"operator": "Resize", "factors": factors, "sizes": sizes, "kind": kind, "corners": corners}


def _pool(node: Any, known: _Known) -> dict[str, Any]:
    return {}


def _gelu(node: Any, known: _Known) -> dict[str, Any]:
    return {"approximate": _attributes(node).get("approximate", "none")}


def _product(node: Any, known: _Known) -> dict[str, Any] | None:
    """A product with a constant matrix is a linear layer."""
    weight = known.fixed(node.input[1])
    if weight is None or weight.ndim != 2 or node.input[0] in known.values:
        return None
    return {"operator": "Linear", "operands": list(node.input)}


def _channelwise(node: Any, known: _Known) -> dict[str, Any] | None:
    """A factor or summand for each channel that stands in the file is a weight, and not what has been computed."""
    for place, name in enumerate(node.input):
        value = known.fixed(name) if name in known.given else None
        if value is not None and value.dtype == np.float32 and value.size == max(value.shape, default=0) > 1:
            return {"operator": f"{node.op_type}Channels", "operands": [node.input[1 - place], name]}
    return None


REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceL2": lambda x, dim, keepdim: torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim),
}
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


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """ONNX Reshape: 0 takes the input's size."""
    return x.reshape([x.shape[place] if size == 0 else size for place, size in enumerate(shape)])


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """ONNX Expand: broadcasts both ways; -1, 0 and 1 take the input's size."""
    sizes = [-1] * (x.dim() - len(shape)) + list(shape)
    lead = len(sizes) - x.dim()
    return x.expand([-1 if place >= lead and size in (-1, 0, 1) else size for place, size in enumerate(sizes)])


def squeeze(x: Tensor, axes: Sequence[int], keepdims: int) -> Tensor:
    """ONNX Squeeze."""
    return x.squeeze(tuple(axes))


def unsqueeze(x: Tensor, axes: Sequence[int], keepdims: int) -> Tensor:
    """ONNX Unsqueeze: the axes are those of the result."""
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def split(x: Tensor, axis: int, count: int, sizes: Sequence[int] = ()) -> tuple[Tensor, ...]:
    """ONNX Split."""
    if sizes:
        return torch.split(x, list(sizes), axis)
    return torch.split(x, -(-x.shape[axis] // count), axis)


def take(x: Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]) -> Tensor:
    """ONNX Slice."""
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        around = (slice(None),) * (axis % x.dim())
        if step > 0:
            x = x[(*around, slice(start, end, step))]
        else:
            x = x.flip(axis)[(*around, slice(-start - 1, -end - 1, -step))]
    return x


def pad(x: Tensor, kind: str, filler: float, amounts: Sequence[int] = ()) -> Tensor:
    """ONNX Pad: all beginnings, then all ends."""
    half = len(amounts) // 2
    pairs = list(zip(amounts[:half], amounts[half:], strict=True))
    while pairs and pairs[0] == (0, 0):
        pairs = pairs[1:]
    flat = [amount for pair in reversed(pairs) for amount in pair]
    return nn.functional.pad(x, flat, kind, filler) if flat else x


def resize(x: Tensor, kind: str, corners: int, factors: Sequence[float] = (), sizes: Sequence[int] = ()) -> Tensor:
    """ONNX Resize of space, as far as `interpolate` has it."""
    mode = kind if kind == "nearest" else {1: "linear", 2: "bilinear", 3: "trilinear"}[x.dim() - 2]
    mode = "bicubic" if kind == "cubic" else mode
    align = None if mode == "nearest" else bool(corners)
    if sizes:
        return nn.functional.interpolate(x, size=list(sizes), mode=mode, align_corners=align)
    return nn.functional.interpolate(x, scale_factor=list(factors), mode=mode, align_corners=align)


def _reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, axes, keepdims: function(x, dim=tuple(axes), keepdim=bool(keepdims))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Reshape": reshape,
    "Expand": expand,
    "Tile": lambda x, amounts: x.repeat(*amounts),
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Split": split,
    "Slice": take,
    "Pad": pad,
    "Resize": resize,
    "GlobalMaxPool": lambda x: x.amax(tuple(range(2, x.dim())), keepdim=True),
    "Gelu": nn.functional.gelu,
    **{name: _reduction(function) for name, function in REDUCTIONS.items()},
}


class Operator(nn.Module):
    """An operator without weights, with its literals."""

    def __init__(self, name: str, literals: Mapping[str, Any]) -> None:
        super().__init__()
        self.name, self.literals = name, dict(literals)

    def forward(self, x: Tensor) -> Any:
        """Apply it."""
        return FUNCTIONS[self.name](x, **self.literals)


class Channelwise(nn.Module):
    """A factor or a summand for each channel."""

    def __init__(self, weight: Tensor, is_factor: bool) -> None:
        super().__init__()
        self.weight, self.is_factor = nn.Parameter(weight), is_factor

    def forward(self, x: Tensor) -> Tensor:
        """Multiply or add, broadcasting."""
        return x * self.weight if self.is_factor else x + self.weight


@cache
def register_converters() -> None:
    """Teach onnx2torch the operators of our domain; once in a process."""
    from onnx2torch.node_converters.registry import add_converter
    from onnx2torch.utils.common import OnnxMapping, OperationConverterResult

    def converter(node: Any, graph: Any) -> Any:
        module = _module(node, graph.initializers)
        return OperationConverterResult(module, OnnxMapping(node.input_values[:1], node.output_values))

    for name in (*FUNCTIONS, "Linear", "AddChannels", "MulChannels"):
        add_converter(name, 1, DOMAIN)(converter)


def _module(node: Any, initializers: Mapping[str, Any]) -> nn.Module:
    if node.operation_type in FUNCTIONS:
        return Operator(node.operation_type, node.attributes)
    weight, *bias = [initializers[name].to_torch() for name in node.input_values[1:]]
    if node.operation_type != "Linear":
        return Channelwise(weight, node.operation_type == "MulChannels")
    layer = nn.Linear(weight.shape[0], weight.shape[1], bias=bool(bias))
    with torch.no_grad():
        layer.weight.copy_(weight.T)
        if bias:
            layer.bias.copy_(bias[0])
    return layer
