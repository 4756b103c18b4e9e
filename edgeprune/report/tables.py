"""Tables in a page, which sort by a click on a column's name and can be filtered.

How to use: `render_table(Table((Column("layer", text=True), Column("ms")), [("stem", Cell("0.5", order=0.5))]))`.
A cell is a text, or a :class:`Cell` where what it sorts by is not its text. Everything is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

FILTER_FROM = 9
"""With so many rows a table that may be filtered has a field for it."""
CARDS_FROM = 5
"""With so many columns, or with prose in one of three, each row is a card on a phone, where columns would lie out of
sight.
"""


@dataclass(frozen=True)
class Column:
    """A column by its name; `text` for prose, which stands left; `wide` where it needs room for sentences."""

    name: str
    text: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Cell:
    """What is shown, and the figure that it sorts by; `kind` is a class of the page's style ("pass", "bad", ...)."""

    text: str
    order: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under columns. `sorts`: by a click on a column's name; `caption` is for readers of the screen, too."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""
    sorts: bool = True
    marked: frozenset[int] = field(default_factory=frozenset)
    """Rows that stand out, by their place."""


def render_table(table: Table) -> str:
    """The table as HTML, in a box that scrolls sideways on its own where it is wider than the page."""
    names = "".join(_head(column, table.sorts and len(table.rows) > 1) for column in table.columns)
    lines = "".join(_line(table, place) for place in range(len(table.rows)))
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    has_prose = len(table.columns) > 2 and any(column.wide for column in table.columns)
    cards, search = " class=cards" if has_prose or len(table.columns) >= CARDS_FROM else "", ""
    if table.sorts and len(table.rows) >= FILTER_FROM:
        search = "<input class=filter type=search placeholder='show rows with ...' aria-label='show rows with'>"
    return (
        f"<div class=table>{search}<div class=scroll tabindex=0><table{cards}>{caption}<thead><tr>{names}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div></div>"
    )


def _head(column: Column, sorts: bool) -> str:
    name = escape(column.name)
    label = f"<button type=button>{name}</button>" if sorts and name else name
    return f"<th scope=col{_kind(column)}>{label}</th>"


def _kind(column: Column, more: str = "") -> str:
    kinds = [*(["text"] if column.text else []), *(["wide"] if column.wide else []), *([more] if more else [])]
    return f" class='{' '.join(kinds)}'" if kinds else ""


def _line(table: Table, place: int) -> str:
    cells = "".join(_cell(column, cell) for column, cell in zip(table.columns, table.rows[place], strict=True))
    return f"<tr{' class=marked' if place in table.marked else ''}>{cells}</tr>"


def _cell(column: Column, cell: str | Cell) -> str:
    name = f" data-name='{escape(column.name)}'"
    if isinstance(cell, str):
        return f"<td{_kind(column)}{name}>{escape(cell)}</td>"
    order = "" if cell.order is None or cell.order != cell.order else f" data-order='{cell.order!r}'"
    return f"<td{_kind(column, escape(cell.kind))}{name}{order}>{escape(cell.text)}</td>"
