"""What a node of a graph says of itself: its operator, its sizes, its arguments."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import Node

LEAST_BATCH = 2
"""torch.export takes a batch of 1 for a constant."""


def operator_of(node: Node) -> str:
    """The operator without overload and without the underscore of its in-place form: `aten.conv2d`."""
    if node.op != "call_function":
        return node.op
    packet = getattr(node.target, "overloadpacket", None)
    if packet is None:
        return getattr(node.target, "__name__", str(node.target))
    return str(packet).removesuffix("_")


def sizes_of(value: object) -> tuple[int, ...]:
    """The sizes of a traced tensor; an open batch counts as in the example."""
    if not isinstance(value, Tensor):
        return ()
    return tuple(size if isinstance(size, int) else hint_of(size) for size in value.shape)


def hint_of(size: Any) -> int:
    """The example's value of an open size."""
    hint = size.node.hint
    return int(hint if hint is not None else size.node.maybe_as_int() or LEAST_BATCH)


def arg(node: Node, place: int, name: str = "", default: Any = None) -> Any:
    """An argument by position or keyword; a keyword-only one has a position beyond all others."""
    if len(node.args) > place:
        return node.args[place]
    return node.kwargs.get(name, default)
