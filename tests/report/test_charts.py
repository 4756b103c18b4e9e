"""Charts as fragments of a page: nothing in them ends a script, and without the library their table stands alone."""

from __future__ import annotations

import json
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.report import charts
from edgeprune.report.charts import Chart, can_draw, chart_script, colour_by, number_axis, render_chart, round_rows
from edgeprune.report.layout import INSTALL, POLICY, KeyFigure, Page, Section, paragraph, render_page
from edgeprune.report.tables import Column, Table

TABLE = Table((Column("ms"),), [("0.5",)])


def make_chart(name: str = "a") -> Chart:
    rows = [{"file": name, "ms": 0.5}]
    encoding = {"x": number_axis("ms", name), "color": colour_by("file", {name: "red"})}
    return Chart({"data": {"values": rows}, "mark": "point", "encoding": encoding}, name, TABLE, name)


@given(name=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_no_name_ends_the_script_or_the_attribute_that_it_stands_in(name: str) -> None:
    html = render_chart(make_chart(name))
    (text,) = re.findall(r"<script type='application/json'>([^<]*)</script>", html)
    spec = json.loads(text)
    assert spec["data"]["values"][0]["file"] == spec["description"] == name
    assert (
        len(re.findall(r"<(?!/?(?:figure|div|figcaption|details|summary|table|thead|tbody|tr|th|td|script)\b)", html))
        == 0
    )
    assert html.count("aria-label='") == 1


def test_a_figure_that_is_none_cannot_be_drawn() -> None:
    chart = make_chart()
    chart.spec["data"]["values"][0]["ms"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        render_chart(chart)


def test_the_library_stands_once_in_a_page_with_charts_and_not_in_others() -> None:
    chart, library = render_chart(make_chart()), chart_script()
    pages = [render_page(Page("t", "l", "h", [Section("s", body)])) for body in (chart + chart, paragraph("no chart"))]
    assert [page.count(library) for page in pages] == [1, 0]
    assert [INSTALL.split("`")[0] in page for page in pages] == [False, False]
    assert all(POLICY in page for page in pages)
    assert len(pages[0]) < 2_000_000


def test_without_the_library_the_table_stands_alone_and_the_page_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    monkeypatch.setattr(charts, "chart_script", chart_script.__wrapped__)
    assert not can_draw()
    html = render_chart(make_chart())
    page = render_page(Page("t", "l", "h", [Section("s", html)]))
    monkeypatch.undo()
    assert "<td data-name='ms'>0.5</td>" in html
    assert "application/json" not in html
    assert "edgeprune[report]" in page
    assert "vegaEmbed" not in page
    assert can_draw()


def test_what_first_meets_the_eye_is_escaped() -> None:
    page = render_page(
        Page("<b>", "<i>", "<u>", [Section("<s>", "")], "pass", ["<em>"], [KeyFigure("<a>", "<dfn>", "<q>")])
    )
    assert not re.search(r"<(b|i|u|s|em|a|dfn|q)>", page)


def test_commands_between_backticks_are_code() -> None:
    assert paragraph("run `a <b>` now", "warn") == "<p class=warn>run <code>a &lt;b&gt;</code> now</p>"


def test_rows_keep_five_digits_and_what_is_no_figure() -> None:
    assert round_rows([{"ms": 0.123456789, "count": 123456789, "name": "a"}]) == [
        {"ms": 0.12346, "count": 123456789, "name": "a"}
    ]
