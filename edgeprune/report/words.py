"""Figures as a page says them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.core.cost import INSTRUCTIONS, find_cost_unit
from edgeprune.core.summary import say_range

BEFORE_AFTER = ("before", "after")
"""The unpruned fp32 file, and the file that ships."""


def say_interval(latency: Mapping[str, Any]) -> str:
    """The interval of a median, without its confidence; of instructions the range over inputs."""
    if find_cost_unit() == INSTRUCTIONS:
        return f"{say_range(latency)} by input"
    return f"{latency['median_low_ms']:.4g} to {latency['median_high_ms']:.4g} ms"


def say_change(before: float, after: float) -> str:
    """From one count to another, with the change in percent where there is one."""
    if before == after:
        return f"{say_count(after)} as before"
    change = f" ({after / before - 1:+.0%})" if before else ""
    return f"{say_count(before)} to {say_count(after)}{change}"


def say_count(count: float) -> str:
    """A count to three digits, in thousands or millions."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(count) >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def say_span(values: Sequence[float], unit: str, digits: int = 0) -> str:
    """From the lowest to the highest, or the one value that there is."""
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def say_plainly(value: object) -> str:
    """A value of a document for people: lists without repetition, figures to four digits."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {say_plainly(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(dict.fromkeys(map(say_plainly, value)))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def count_of(number: int, name: str, plural: str = "") -> str:
    """A number of things."""
    return f"{number} {name if number == 1 else plural or name + 's'}"
