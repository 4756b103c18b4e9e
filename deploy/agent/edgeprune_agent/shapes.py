"""The sizes that a model is run at: those it fixes, those a request gives, and 1 for an open batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeprune_agent.errors import AgentError

if TYPE_CHECKING:
    Size = int | str | None
    """A fixed size, the name of an open one, or None where an open one has no name."""

ONLY = ""
"""Stands for the one input of a model, where a request does not name it."""


def settle_shapes(
    declared: Mapping[str, Sequence[Size]], request_shapes: Mapping[str, Sequence[int]], several: bool = False
) -> dict[str, tuple[int, ...]]:
    """The shape of every input: as it is wanted, else as declared, where only the batch may be open: that is 1.

    An open size is a batch where it is the first of an input, or has the name of such a one. Of `several` models each
    has the shapes that are wanted of its inputs, whatever is wanted of those of others.

    Raises:
        AgentError: an open size that nothing says, or a wanted shape that does not fit.
    """
    if several:
        request_shapes = {name: shape for name, shape in request_shapes.items() if name in declared or name == ONLY}
    shapes = {find_input(name, declared): list(shape) for name, shape in request_shapes.items()}
    if len(shapes) < len(request_shapes):
        raise AgentError("request", f"shape: that of {next(iter(shapes))} is given twice")
    batches = {sizes[0] for sizes in declared.values() if sizes and isinstance(sizes[0], str)}
    return {name: settle_shape(name, sizes, shapes.get(name), batches) for name, sizes in declared.items()}


def find_input(name: str, declared: Mapping[str, Sequence[Size]]) -> str:
    """The input that a wanted shape is for.

    Raises:
        AgentError: there is none of that name, or several and none is named.
    """
    if name in declared:
        return name
    if name == ONLY and len(declared) == 1:
        return next(iter(declared))
    names = ", ".join(declared)
    problem = f"no input {name!r}; the inputs are {names}" if name else f"there are several inputs ({names}); name one"
    raise AgentError("request", f"shape: {problem}, as --shape {next(iter(declared), 'input')}=1,3,224,224")


def settle_shape(
    name: str, sizes: Sequence[Size], request_shape: Sequence[int] | None, batches: set[Any]
) -> tuple[int, ...]:
    """The shape of one input.

    Raises:
        AgentError: an open size that nothing says, or a wanted shape that does not fit.
    """
    if request_shape is not None:
        fits = len(request_shape) == len(sizes) and all(
            not is_fixed(size) or size == value for size, value in zip(sizes, request_shape)
        )
        if not fits or not all(is_fixed(value) and value > 0 for value in request_shape):
            raise AgentError("request", f"shape of {name}: {list(request_shape)} does not fit {describe(sizes)}")
        return tuple(request_shape)
    shape: list[Any] = [
        size if is_fixed(size) else 1 if place == 0 or size in batches else None for place, size in enumerate(sizes)
    ]
    if None in shape:
        example = ",".join("SIZE" if size is None else str(size) for size in shape)
        raise AgentError(
            "request",
            f"input {name} {describe(sizes)} has open sizes beside the batch, which decide its latency; "
            f"give them: --shape {name}={example}",
        )
    return tuple(shape)


def is_fixed(size: Any) -> bool:
    """Whether a declared size is a number, not open (files write an open one as -1)."""
    return isinstance(size, int) and size >= 0


def describe(sizes: Sequence[Size]) -> str:
    """A declared shape, for people: open sizes by their names, or `?`."""
    return f"[{', '.join(str(size) if is_fixed(size) or isinstance(size, str) else '?' for size in sizes)}]"
