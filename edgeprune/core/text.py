"""Words for people: what was probably meant, and rows in columns."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Collection, Sequence
from contextvars import ContextVar
from decimal import Decimal
from itertools import zip_longest

WIDTH: ContextVar[int | None] = ContextVar("width", default=None)
"""Columns that a table may take; None: as many as it needs. The command line sets it."""
GAP = "  "
LEAST_WIDTH = 10
UNITS = "%|ms|s|min|h|B|bytes|[KMGk]i?B|[mk]?W|mJ|dB|K|points?|cores?|cycles?|inputs?|°C|[kMG]?Hz"
NUMBER = re.compile(rf"(?:(?<![\w.])[-+±])?\d+(?:[.,:]\d+)*(?:e[-+]?\d+)?(?: (?:{UNITS})(?!\w))?")
"""A number with its sign and its unit, which no line breaks."""
PIECE = re.compile(rf"(?:{NUMBER.pattern}|[^\s/_.,:;-])*[/_.,:;-]*\s*")
KEPT = "\0"
"""Stands for a space at which no line is broken."""


def suggest(word: str, valid: Collection[str]) -> str:
    """`; did you mean 'x'?` or a list of what is valid."""
    close = difflib.get_close_matches(word, valid, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; valid: {', '.join(sorted(valid))}"


BYTE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "kib": 2**10, "mib": 2**20}
BYTES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str) -> int:
    """A number of bytes such as "49152", "48KiB" or "0.5 MiB"; of KB and MB a thousand and a million.

    Raises:
        ValueError: it is none, or no whole number of them.
    """
    match = BYTES.fullmatch(text)
    unit = BYTE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is no number of bytes; write it as 49152, 48KiB or 1.5MiB")
    size = Decimal(match[1]) * unit
    if size != int(size):
        raise ValueError(f"{text!r} is no whole number of bytes")
    return int(size)


def make_printable(text: str) -> str:
    """A text out of a file, such that it steers no terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def wrap(text: str, width: int | None) -> str:
    """Lines that fit, broken at spaces, the rest of each below its beginning; a number keeps its unit, and a word
    too long stays whole, as a path that is cut cannot be copied.
    """
    return text if width is None else "\n".join(wrap_line(line, width) for line in text.split("\n"))


def wrap_line(line: str, width: int, hanging: str = "  ") -> str:
    """One line as :func:`wrap` breaks it, `hanging` before what goes on below its beginning."""
    if len(line) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip()))
    whole = NUMBER.sub(lambda number: number[0].replace(" ", KEPT), line.strip())
    lines = textwrap.wrap(
        whole, width, initial_indent=indent, subsequent_indent=indent + hanging,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join(lines).replace(KEPT, " ")


def render_columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text: the first column left-aligned, the others right-aligned, a rule below the head.

    Within WIDTH, where it is set: the widest columns are folded, and where that is not enough, each row is told a cell
    a line.
    """
    natural = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    widths = narrow(natural, [_least_width(rows, column) for column in range(len(rows[0]))], WIDTH.get())
    if widths is None:
        return _render_cells(rows)
    left = [column == 0 or width < natural[column] for column, width in enumerate(widths)]
    folded = [_fold_row(row, widths, left) for row in rows]
    rule = "-" * max(len(line) for lines in folded for line in lines)
    return "\n".join([*folded[0], rule, *(line for lines in folded[1:] for line in lines)])


def narrow(natural: Sequence[int], least: Sequence[int], most: int | None) -> list[int] | None:
    """Widths of columns that fit into `most` with their gaps, the widest narrowed first; None where none do."""
    widths, gaps = list(natural), len(GAP) * (len(natural) - 1)
    while most is not None and sum(widths) + gaps > most:
        room = [column for column, width in enumerate(widths) if width > least[column]]
        if not room:
            return None
        widths[max(room, key=lambda column: widths[column])] -= 1
    return widths


def fold(text: str, width: int) -> list[str]:
    """A text in lines of so many characters, broken at spaces or behind `-/_.,:;`; in a number only if it is wider."""
    lines, line = list[str](), ""
    for piece in PIECE.findall(text):
        if line and len(line + piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
        while len(line.rstrip()) > width:
            lines.append(line[:width])
            line = line[width:]
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def _least_width(rows: Sequence[Sequence[str]], column: int) -> int:
    """As far as a column may be narrowed: figures stay whole with their units, and so does what is short."""
    cells = [row[column] for row in rows[1:]]
    figures = max((len(number[0]) for cell in cells for number in NUMBER.finditer(cell)), default=0)
    if any(map(str.isalpha, "".join(cells))):
        return max(figures, min(max(map(len, cells)), LEAST_WIDTH))
    return max((len(word) for cell in cells for word in cell.split()), default=figures)


def _fold_row(row: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> list[str]:
    cells = [fold(cell, width) for cell, width in zip(row, widths, strict=True)]
    columns = list(zip(widths, left, strict=True))
    return [
        GAP.join(
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, (width, is_left) in zip(line, columns, strict=True)
        ).rstrip()
        for line in zip_longest(*cells, fillvalue="")
    ]


def _render_cells(rows: Sequence[Sequence[str]]) -> str:
    """Each row as lines of `name: cell`, without those that say nothing, an empty line between rows."""
    head, *body = rows
    return "\n\n".join(
        "\n".join(
            f"{name}: {cell}" if name and number else f"{'  ' * bool(number)}{cell}"
            for number, (name, cell) in enumerate(zip(head, row, strict=True))
            if cell
        )
        for row in body
    )


def describe_duration(seconds: float) -> str:
    """A length of time for people: `2 h 5 min`, `40 s`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
