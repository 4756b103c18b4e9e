"""What a graph computes that is the same for every input, found by running it on inputs of which nothing is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.graph.nodes import sizes_of
from edgeprune.graph.operators.table import find_operator

ROUNDING = 16
"""In units of the last place: how far values may lie apart to count as one."""


class Constants(Interpreter):
    """Runs a graph on inputs of which nothing is known, NaN: what comes out as a number is the same for all inputs."""

    def __init__(self, program: GraphModule) -> None:
        super().__init__(program, garbage_collect_values=False)
        self.unknown: set[Node] = set()
        """Whole numbers and truth values that hang on the input."""

    def find(self) -> Mapping[Node, Any]:
        """The value of every node at the batch that the program was traced with."""
        inputs = []
        for node in self.graph.find_nodes(op="placeholder"):
            traced = node.meta["val"]
            inputs.append(self._blank(node, traced))
        with torch.no_grad():
            self.run(*inputs)
        return self.env

    def run_node(self, n: Node) -> Any:
        """Run one node, or give up on it where it could turn NaN into a number."""
        family = find_operator(n)
        if n.op != "call_function" or n.meta.get("val") is None or family.is_size:
            return super().run_node(n)
        if any(source in self.unknown for source in n.all_input_nodes):
            return self._blank(n, n.meta["val"])
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if family.is_layer:
            return _layer(n.target, args, kwargs)
        trusted = family.acts_per_channel or family.reduces_per_channel
        is_random = torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ())
        if not trusted and (is_random or any(_has_nan(self.env[source]) for source in n.all_input_nodes)):
            return self._blank(n, n.meta["val"])
        result = n.target(*args, **kwargs)  # type: ignore[operator]
        if not _is_floating(result) and _has_nan(args):
            return self._blank(n, n.meta["val"])
        if family.is_zero_absorbing and _is_floating(result):
            return torch.where((torch.as_tensor(args[0]) == 0) | (torch.as_tensor(args[1]) == 0), 0.0, result)
        if family.is_batch_norm and args[1] is not None and args[2] is not None:
            shape = (1, -1) + (1,) * (result.dim() - 2)
            return torch.where(args[1].reshape(shape) == 0, args[2].reshape(shape), result)
        return result

    def _blank(self, node: Node, traced: Any) -> Any:
        """What stands for a tensor that hangs on the input: NaN, or zeros that are noted as unknown."""
        if isinstance(traced, (list, tuple)):
            return [self._blank(node, part) for part in traced]
        if not isinstance(traced, Tensor):
            return traced
        if traced.is_floating_point():
            return torch.full(sizes_of(traced), torch.nan, dtype=traced.dtype)
        self.unknown.add(node)
        return torch.zeros(sizes_of(traced), dtype=traced.dtype)


def _is_floating(value: Any) -> bool:
    first = value[0] if isinstance(value, (list, tuple)) else value
    return isinstance(first, Tensor) and first.is_floating_point()


def _has_nan(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_has_nan(part) for part in value)
    return isinstance(value, Tensor) and bool(value.isnan().any())


def _layer(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """A convolution or linear layer in which unknown inputs with zero weights have no effect."""
    inputs, weight, *rest = args
    unknown = inputs.isnan()
    result: Tensor = function(torch.where(unknown, 0.0, inputs), weight, *rest, **kwargs)
    without_bias = [None, *rest[1:]] if rest else []
    reached = function(unknown.to(weight.dtype), (weight != 0).to(weight.dtype), *without_bias, **kwargs)
    return result.masked_fill(reached > 0.5, torch.nan)


def one_value(value: Tensor, axis: int) -> Tensor:
    """The value of each slice along an axis, NaN where it has several."""
    rows = value.movedim(axis, 0).flatten(1)
    first = rows[:, :1]
    near = ((rows - first).abs() <= ROUNDING * torch.finfo(value.dtype).eps * first.abs()).all(1)
    return torch.where(near, first[:, 0], torch.nan)
