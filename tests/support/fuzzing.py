"""Values and texts that are almost right: what the fuzzing tries on parsers."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

HUGE = st.sampled_from([10**400, -(10**30), 1 << 64, 2**31, -1, 0])
HOSTILE = st.just("\ud800\x1b[2J")
JUNK = (
    st.none() | st.booleans() | st.integers() | HUGE | st.floats() | st.text(max_size=5) | HOSTILE
    | st.lists(st.integers() | st.floats() | st.text(max_size=2), max_size=3)
    | st.dictionaries(st.text(max_size=2), st.integers() | st.none(), max_size=2)
)  # fmt: skip
TOKENS = st.sampled_from(
    ["[", "]]", "=", '"', "'''", "\\u0000", "\n", "#", "nan", "1e400", "{", ".", "true", "1979-05-27"]
)
LONG = st.sampled_from([f"\nx = {'9' * 5000}\n", f"\nx = {'[' * 5000}", f"\nthreads = {'9' * 4000}\n"])


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with something else in one place, or without it."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 5)):
            return {**value, key: draw(changed(value[key]))}
        return {name: member for name, member in value.items() if name != key}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(changed(value[at])), *value[at + 1 :]]
    return draw(JUNK)


@st.composite
def changed_often(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value that was changed up to three times."""
    for _ in range(draw(st.integers(0, 3))):
        value = draw(changed(value))
    return value


@st.composite
def spliced(draw: st.DrawFn, text: str) -> str:
    """A text with pieces of it gone, repeated, or replaced."""
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.integers(0, 40)))
        piece = draw(st.text(max_size=5) | TOKENS | LONG | st.just(text[begin:end] * 2) | st.just(""))
        text = text[:begin] + piece + text[end:]
    return text
