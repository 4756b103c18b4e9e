"""Read numpy arrays out of a pickled file without unpickling it.

The instructions are listed by `pickletools`, which runs nothing, and carried out here as data: no name that stands in
the file is ever imported or called. Only what numpy writes for arrays in lists and dicts is known; all else is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgeprune.errors import RecipeError

MARK = object()
ARRAY, DTYPE, ENCODE, NDARRAY = "array", "dtype", "encode", "ndarray"
KNOWN_NAMES = {
    "numpy.core.multiarray _reconstruct": ARRAY,
    "numpy._core.multiarray _reconstruct": ARRAY,
    "numpy dtype": DTYPE,
    "numpy ndarray": NDARRAY,
    "_codecs encode": ENCODE,
}
Stack = list[Any]


def read_pickled_arrays(document: bytes, where: str) -> Any:
    """The lists, dicts, strings, numbers and arrays of a pickled document; object arrays become nested values.

    Raises:
        RecipeError: the document names or does anything else.
    """
    stack: Stack = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in _instructions(document):
            if opcode.name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif opcode.name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            else:
                STEPS[opcode.name](stack, argument)
        return _finish(stack.pop())
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as exc:
        raise RecipeError(f"{where}: holds more than plain arrays ({type(exc).__name__} {exc}); not read") from exc


def _instructions(document: bytes) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    return pickletools.genops(document)


def _above_mark(stack: Stack) -> Stack:
    start = next(index for index in range(len(stack) - 1, -1, -1) if stack[index] is MARK)
    items = stack[start + 1 :]
    del stack[start:]
    return items


def _tuple_of(count: int) -> Callable[[Stack, Any], None]:
    def step(stack: Stack, _: Any) -> None:
        items = tuple(stack[len(stack) - count :])
        del stack[len(stack) - count :]
        stack.append(items)

    return step


def _append(stack: Stack, _: Any) -> None:
    item = stack.pop()
    stack[-1].append(item)


def _appends(stack: Stack, _: Any) -> None:
    items = _above_mark(stack)
    stack[-1].extend(items)


def _set_items(stack: Stack, _: Any) -> None:
    items = _above_mark(stack)
    stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _reduce(stack: Stack, _: Any) -> None:
    arguments, kind = stack.pop(), stack.pop()
    if kind == ENCODE:
        stack.append(arguments[0].encode("latin1"))
    elif kind in (ARRAY, DTYPE):
        stack.append({"kind": kind, "code": arguments[0] if kind == DTYPE else None})
    else:
        raise ValueError(f"call of {kind!r}")


def _build(stack: Stack, _: Any) -> None:
    state = stack.pop()
    stack[-1]["state"] = state


def _finish(value: Any) -> Any:
    if isinstance(value, dict) and value.get("kind") == ARRAY:
        return _array(value["state"])
    if isinstance(value, dict):
        return {key: _finish(item) for key, item in value.items()}
    return [_finish(item) for item in value] if isinstance(value, list) else value


def _array(state: tuple[Any, ...]) -> Any:
    _, shape, dtype, fortran, content = state
    if dtype["code"].startswith("O"):
        items = [_finish(item) for item in content]
        return items if shape else items[0]
    kind = np.dtype(dtype["code"]).newbyteorder(dtype["state"][1])
    return np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")


STEPS: dict[str, Callable[[Stack, Any], None]] = {
    **dict.fromkeys(("PROTO", "STOP"), lambda stack, argument: None),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"),
        lambda stack, argument: stack.append(argument),
    ),
    "GLOBAL": lambda stack, argument: stack.append(KNOWN_NAMES[argument]),
    "NONE": lambda stack, argument: stack.append(None),
    "NEWTRUE": lambda stack, argument: stack.append(True),
    "NEWFALSE": lambda stack, argument: stack.append(False),
    "EMPTY_LIST": lambda stack, argument: stack.append([]),
    "EMPTY_DICT": lambda stack, argument: stack.append({}),
    "EMPTY_TUPLE": lambda stack, argument: stack.append(()),
    "MARK": lambda stack, argument: stack.append(MARK),
    "TUPLE": lambda stack, argument: stack.append(tuple(_above_mark(stack))),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEMS": _set_items,
    "REDUCE": _reduce,
    "BUILD": _build,
}
"""What each instruction does to the stack; an instruction that is not here is refused."""
