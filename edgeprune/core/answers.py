"""Reading values that came from elsewhere as JSON: the value, or a TypeError or ValueError that says what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

LARGEST = 1e18
"""No figure of a board is larger; sums and squares of such stay finite."""

Value = TypeVar("Value")
Reader = Callable[[Any], Value]


def number(value: Any) -> float:
    """A finite number of a size that boards have."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, found {_show(value)}")
    if not -LARGEST < value < LARGEST:
        raise ValueError(f"expected a finite number, found {_show(value)}")
    return float(value)


def positive(value: Any) -> float:
    """A number above zero, and not so near to it that a share of it would be zero."""
    if number(value) < 1 / LARGEST:
        raise ValueError(f"expected a number above zero, found {_show(value)}")
    return float(value)


def count(value: Any) -> int:
    """A whole number, zero or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected a whole number, found {_show(value)}")
    if not 0 <= value < LARGEST:
        raise ValueError(f"expected a count, found {_show(value)}")
    return value


def text(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {_show(value)}")
    return value


def optional(read: Reader[Value]) -> Reader[Value | None]:
    """A value, or None."""
    return lambda value: None if value is None else read(value)


def each(read: Reader[Value]) -> Reader[tuple[Value, ...]]:
    """A list of values."""

    def read_each(values: Any) -> tuple[Value, ...]:
        if not isinstance(values, list | tuple):
            raise TypeError(f"expected a list, found {_show(values)}")
        return tuple(read(value) for value in values)

    return read_each


def named(read: Reader[Value]) -> Reader[dict[str, Value]]:
    """Values by name."""

    def read_named(values: Any) -> dict[str, Value]:
        if not isinstance(values, dict):
            raise TypeError(f"expected an object, found {_show(values)}")
        return {text(name): read(value) for name, value in values.items()}

    return read_named


def read_fields(row: Any, readers: Mapping[str, Reader[Any]]) -> dict[str, Any]:
    """The fields of an object, each by its reader; one that has none is an error, one that lacks is left out."""
    if not isinstance(row, dict):
        raise TypeError(f"expected an object, found {_show(row)}")
    unknown = sorted(set(row) - set(readers))
    if unknown:
        raise ValueError(f"unknown: {_show(unknown)}")
    return {name: readers[name](value) for name, value in row.items()}


def describe_misfit(exc: BaseException) -> str:
    """What is wrong with a document, from the error that reading it raised, for people."""
    if isinstance(exc, KeyError):
        return f"{exc} is missing"
    return f"{exc}" or type(exc).__name__


def _show(value: Any) -> str:
    """The beginning of a value, also where it is a whole number of thousands of digits."""
    if isinstance(value, int) and abs(value) >= LARGEST:
        return "one beyond all bounds"
    return repr(value)[:80]
