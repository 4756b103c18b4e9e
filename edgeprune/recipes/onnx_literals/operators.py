"""The operators of our own domain as PyTorch modules, and how onnx2torch is taught to read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

STANDARD = ("", "ai.onnx")
"""The names of ONNX's own domain."""
DOMAIN = "edgeprune"
REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceL2": lambda x, dim, keepdim: torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim),
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
