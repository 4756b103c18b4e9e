"""Tables of a page: whatever they are given comes back as text, and what sorts them is a figure."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.report.tables import CARDS_FROM, FILTER_FROM, Cell, Column, Table, render_table

LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")
TEXTS = st.text(st.sampled_from("<>&'\"/;=a ") | LETTERS, max_size=30) | st.just("</td><b>&amp;'\"")


class Reader(HTMLParser):
    """Tags with their attributes, and the text of each cell and head."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.is_open = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th", "caption"):
            self.texts.append("")
            self.is_open = True

    def handle_endtag(self, tag: str) -> None:
        self.is_open = self.is_open and tag not in ("td", "th", "caption")

    def handle_data(self, data: str) -> None:
        if self.is_open:
            self.texts[-1] += data


@given(name=TEXTS, texts=st.lists(st.tuples(TEXTS, TEXTS), max_size=3), caption=TEXTS.filter(bool), kind=TEXTS)
def test_whatever_stands_in_a_table_is_read_as_text(
    name: str, texts: list[tuple[str, str]], caption: str, kind: str
) -> None:
    columns = (Column(name, text=True), Column("ms"))
    reader = Reader(render_table(Table(columns, [(left, Cell(right, kind=kind)) for left, right in texts], caption)))
    assert reader.texts == [caption, name, "ms", *(text for row in texts for text in row)]
    assert {tag for tag, _ in reader.tags} <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "button"}
    assert all(attributes["data-name"] in (name, "ms") for tag, attributes in reader.tags if tag == "td")


@pytest.mark.parametrize(("order", "expected"), [(0.25, "0.25"), (-3, "-3"), (None, None), (math.nan, None)])
def test_a_cell_sorts_by_its_figure_if_it_has_one(order: float | None, expected: str | None) -> None:
    reader = Reader(render_table(Table((Column("ms"),), [(Cell("x", order),)])))
    assert [attributes.get("data-order") for tag, attributes in reader.tags if tag == "td"] == [expected]


def test_only_what_has_rows_to_sort_has_buttons_and_only_what_is_long_a_filter() -> None:
    def count(tag: str, rows: int, sorts: bool = True) -> int:
        html = render_table(Table((Column("a"), Column("")), [("x", "y")] * rows, sorts=sorts))
        return sum(name == tag for name, _ in Reader(html).tags)

    assert [count("button", rows) for rows in (0, 1, 2)] == [0, 0, 1]
    assert count("button", 2, sorts=False) == 0
    assert [count("input", rows) for rows in (FILTER_FROM - 1, FILTER_FROM)] == [0, 1]


def test_broad_tables_are_cards_on_a_phone() -> None:
    narrow, broad = ([Column(str(number)) for number in range(size)] for size in (CARDS_FROM - 1, CARDS_FROM))
    assert "class=cards" not in render_table(Table(narrow, []))
    assert "class=cards" in render_table(Table(broad, []))
    pair = [Column(""), Column("why", wide=True)]
    assert ["class=cards" in render_table(Table(columns, [])) for columns in (pair, [*pair, Column("ms")])] == [
        False,
        True,
    ]


def test_marked_rows_stand_out() -> None:
    reader = Reader(render_table(Table((Column("a"),), [("x",), ("y",)], marked=frozenset({1}))))
    assert [attributes.get("class") for tag, attributes in reader.tags if tag == "tr"] == [None, None, "marked"]
