"""The unit in which a board tells what a file costs: milliseconds, or instructions where it counts and has no clock.

In memory a cost has one name, whatever its unit: `latency_ms`, `p50_ms`. The unit stands beside it, in every document
as `unit`; a document in instructions is written with names that say so (:func:`name_costs`), so that no file and no
page calls one the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

MS = "ms"
"""The unit of a board that times."""
INSTRUCTIONS = "instructions"
"""The unit of a board that counts; it is never made into milliseconds."""
NAMES = {MS: "latency", INSTRUCTIONS: "instructions"}
"""What a cost is called for people."""
KEPT = ("asked_instructions", "step_instructions")
"""Names that say instructions in memory too."""

WORDS = {
    "ms": "counted",
    "speedup": "instruction_ratio",
    "speedup_interval": "instruction_ratio_interval",
}
"""Names of fields that have another one as a whole."""
READ_WORDS = {named: name for name, named in WORDS.items()}

_unit: ContextVar[str] = ContextVar("unit", default=MS)


@contextmanager
def costs_in(unit: str) -> Iterator[None]:
    """Within it, texts say costs in this unit."""
    token = _unit.set(unit)
    try:
        yield
    finally:
        _unit.reset(token)


def find_cost_unit() -> str:
    """The unit that costs are said in now."""
    return _unit.get()


def say_cost(value: float) -> str:
    """A cost with its unit: `1.234 ms`, `1,234,567 instructions`."""
    return f"{show_cost(value)} {_unit.get()}"


def show_cost(value: float, pattern: str = ".4g") -> str:
    """A cost without its unit: milliseconds by the pattern, instructions to the last one."""
    sign = "+" if "+" in pattern else ""
    return format(value, pattern) if _unit.get() == MS else format(round(value), f"{sign},")


def per_cost() -> str:
    """One of the unit: `ms`, `instruction`."""
    return _unit.get() if _unit.get() == MS else "instruction"


def say_option(limit: float) -> str:
    """The option that limits a cost to so much: `--latency-ms 1.234`, `--instructions 1234567`."""
    return f"--latency-ms {limit:.4g}" if _unit.get() == MS else f"--instructions {round(limit)}"


def cost_name() -> str:
    """What a cost is called for people."""
    return NAMES[_unit.get()]


def title_cost() -> str:
    """Of an axis: `latency, ms`, `instructions`."""
    return f"{cost_name()}, ms" if _unit.get() == MS else cost_name()


def median_cost() -> str:
    """Of a column of medians: `p50 ms`, `instructions`."""
    return "p50 ms" if _unit.get() == MS else INSTRUCTIONS


def name_ratio(unit: str) -> str:
    """The metric of the unpruned file's cost by that of a cut one: "speedup", or what it is of counts."""
    return WORDS["speedup"] if unit == INSTRUCTIONS else "speedup"


def say_ratio(ratio: float) -> str:
    """The unpruned file's cost by that of a cut one: `speed-up 1.50`, `1.50 times fewer instructions`."""
    return f"speed-up {ratio:.2f}" if _unit.get() == MS else f"{ratio:.2f} times fewer instructions"


def name_costs(document: Any) -> Any:
    """A JSON-ready document with names that say instructions wherever `unit` does: `cost_instructions` in place of
    `latency_ms`, `p50_instructions` of `p50_ms`, `cost` of `latency`.
    """
    return _rename(document, False, _name)


def read_costs(document: Any) -> Any:
    """What :func:`name_costs` was given, from what it gave."""
    return _rename(document, False, _unname)


def _rename(node: Any, is_counted: bool, rename: Any) -> Any:
    if isinstance(node, list | tuple):
        return [_rename(item, is_counted, rename) for item in node]
    if not isinstance(node, dict):
        return node
    is_counted = is_counted or node.get("unit") == INSTRUCTIONS
    return {rename(key) if is_counted else key: _rename(item, is_counted, rename) for key, item in node.items()}


def _name(key: Any) -> Any:
    if not isinstance(key, str):
        return key
    if key in WORDS:
        return WORDS[key]
    key = f"instructions_{key.removeprefix('ms_')}" if key.startswith("ms_") else key
    key = f"{key.removesuffix('_ms')}_instructions" if key.endswith("_ms") else key
    return f"cost{key.removeprefix('latency')}" if key == "latency" or key.startswith("latency_") else key


def _unname(key: Any) -> Any:
    if not isinstance(key, str) or key in KEPT:
        return key
    if key in READ_WORDS:
        return READ_WORDS[key]
    key = f"ms_{key.removeprefix('instructions_')}" if key.startswith("instructions_") else key
    key = f"{key.removesuffix('_instructions')}_ms" if key.endswith("_instructions") else key
    return f"latency{key.removeprefix('cost')}" if key == "cost" or key.startswith("cost_") else key
