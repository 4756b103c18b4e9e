"""Words for people: what was probably meant, and rows in columns."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence


def suggest(word: str, valid: Collection[str]) -> str:
    """`; did you mean 'x'?` or a list of what is valid."""
    close = difflib.get_close_matches(word, valid, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; valid: {', '.join(sorted(valid))}"


def make_printable(text: str) -> str:
    """A text out of a file, such that it steers no terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def render_columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text: the first column left-aligned, the others right-aligned, a rule below the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def describe_duration(seconds: float) -> str:
    """A length of time for people: `2 h 5 min`, `40 s`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
