"""Charts in a page: a Vega-Lite specification as a fragment of HTML, and the library's script once a page.

How to use: make a :class:`Chart` of a specification (a dict as https://vega.github.io/vega-lite/docs has it, without
size, theme and `$schema`, its rows under `data.values`), of its alternative text and of the same figures as a table.
Put `render_chart(chart)` where it belongs; :func:`edgeprune.report.layout.render_page` adds :func:`chart_script` to a
page that has one. Colours are the page's variables (:data:`BEFORE`, :data:`AFTER`, :func:`colour_by`), so that a chart
follows light, dark and paper. Without the extra `report` the table stands alone, and the page says what to install.

A chart is SVG and as wide as its place; it is drawn without `eval` and without any request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from edgeprune.errors import MissingExtra
from edgeprune.extras import comes_with
from edgeprune.report.tables import Table, render_table

BEFORE, AFTER, ACCENT, BAD, SOFT, INK = (
    f"var(--{name})" for name in ("before", "after", "accent", "bad", "soft", "ink")
)
HEIGHT = 260
"""Of a chart, in px, where its specification says none."""
ROW_PX = 24
"""Of a row of a chart that has one for each name: with a width of its place Vega-Lite wants a height in px."""
DRAWN, NOT_DRAWN = "<figure class=chart>", "<figure class=table-only>"
"""How a chart begins in a page, drawn and as its table alone."""
CONFIG = {
    "aria": False,  # the alternative text stands for the whole picture
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": SOFT,
        "titleColor": SOFT,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelLimit": 130,
    },
    "axisX": {"grid": False},
    "legend": {
        "orient": "top",
        "title": None,
        "labelColor": INK,
        "labelFontSize": 12,
        "labelLimit": 260,
        "symbolOpacity": 1,
    },
    "text": {"color": INK, "fontSize": 12},
    "rule": {"color": SOFT},
    "bar": {"color": AFTER},
}


@dataclass(frozen=True)
class Chart:
    """A picture of figures: `spec` is Vega-Lite; `alt` says in words what it shows, with the figures that matter.

    `table` has the same figures for whoever cannot see the picture; `caption` stands below it.
    """

    spec: Mapping[str, Any]
    alt: str
    table: Table
    caption: str = ""


def colour_by(field: str, colours: Mapping[str, str]) -> dict[str, Any]:
    """The encoding `color` (or `fill`, `stroke`) of a field of names, each with its colour, in that order."""
    scale = {"domain": list(colours), "range": list(colours.values())}
    return {"field": field, "type": "nominal", "scale": scale}


def number_axis(field: str, title: str, *, zero: bool = False, lines: bool = False, **more: Any) -> dict[str, Any]:
    """The encoding of figures along an axis; `lines` draws its grid where bars lie; `more` is Vega-Lite's."""
    scale = {"zero": True} if zero else {"zero": False, "padding": 8, "nice": False}
    axis = {"axis": {"grid": True}} if lines else {}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, **axis, **more}


def tooltip(**titles: str) -> list[dict[str, Any]]:
    """What is told under the pointer: a title for each field."""
    return [{"field": field, "title": title} for field, title in titles.items()]


def render_chart(chart: Chart) -> str:
    """The chart as HTML with its alternative text; where charts cannot be drawn, its table."""
    caption = f"<figcaption>{escape(chart.caption)}</figcaption>" if chart.caption else ""
    if not can_draw():
        return f"{NOT_DRAWN}{render_table(chart.table)}{caption}</figure>"
    spec = json.dumps(_complete(chart), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f"{DRAWN}<div class=plot role=img aria-label='{escape(chart.alt)}'></div>{caption}"
        f"<details><summary>the same in figures</summary>{render_table(chart.table)}</details>"
        f"<script type='application/json'>{spec}</script></figure>"
    )


def _complete(chart: Chart) -> dict[str, Any]:
    """The specification with size and theme; Vega labels what it draws by its description."""
    size = {"width": "container", "height": HEIGHT, "autosize": {"type": "fit-x", "contains": "padding"}}
    return {**size, **chart.spec, "description": chart.alt, "config": CONFIG}


def can_draw() -> bool:
    """Whether the library is there."""
    try:
        chart_script()
    except MissingExtra:
        return False
    return True


@cache
def chart_script() -> str:
    """The text of the library's script, which draws every chart of its page when it has been read.

    Raises:
        MissingExtra: the library is not installed.
    """
    with comes_with("report"):
        from vl_convert import javascript_bundle
    library = javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    return f"{library}\n{Path(__file__).with_name('charts.js').read_text()}"


def round_rows(rows: Sequence[Mapping[str, Any]], digits: int = 5) -> list[dict[str, Any]]:
    """Rows with their figures at so many significant digits: a page needs no more, and is smaller."""
    return [{name: _round(value, digits) for name, value in row.items()} for row in rows]


def _round(value: Any, digits: int) -> Any:
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
