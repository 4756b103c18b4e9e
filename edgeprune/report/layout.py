"""The frame of a page: one HTML file for phones, paper, light and dark, that asks no network for anything.

How to use: `render_page(Page(title, lead, headline, sections))` gives the whole file. What matters first
goes into `figures` (two or three), the rest into `sections`, whose bodies are HTML made by
:func:`edgeprune.report.tables.render_table`, :func:`edgeprune.report.charts.render_chart` and :func:`paragraph`; all of
them escape what they are given. The page's own policy (Content-Security-Policy) forbids every request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

from edgeprune.report.charts import DRAWN, NOT_DRAWN, chart_script

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
COMMAND = re.compile("`([^`]+)`")
INSTALL = "Charts are left out, tables stand in their place: `pip install 'edgeprune[report]'` draws them."


@dataclass(frozen=True)
class KeyFigure:
    """One of the figures that come first; `detail` says its interval and conditions, `doubtful` greys it."""

    label: str
    value: str
    detail: str
    doubtful: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page under its title; `body` is HTML."""

    title: str
    body: str

    @property
    def anchor(self) -> str:
        """Its place in links of the page."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


@dataclass(frozen=True)
class Page:
    """A whole page. `outcome` is "pass", "fail", "inconclusive" or "" and colours the `headline`.

    `lead` stands below the title, `reasons` below the headline; all texts are escaped here, but for sections' bodies.
    """

    title: str
    lead: str
    headline: str
    sections: Sequence[Section]
    outcome: str = ""
    reasons: Sequence[str] = ()
    figures: Sequence[KeyFigure] = ()


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text, commands between backticks; `kind` is a class of the page's style ("soft", "bad",
    "warn").
    """
    words = COMMAND.sub(r"<code>\1</code>", escape(text))
    return f"<p{f' class={kind}' if kind else ''}>{words}</p>"


def render_page(page: Page) -> str:
    """The HTML file."""
    links = "".join(f"<a href='#{section.anchor}'>{escape(section.title)}</a>" for section in page.sections)
    body = "".join(
        f"<section id='{section.anchor}'><h2>{escape(section.title)}</h2>{section.body}</section>"
        for section in page.sections
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv=Content-Security-Policy content="{POLICY}">'
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(page.title)}</title><style>{_read('page.css')}</style></head><body>"
        f"<header><h1>{escape(page.title)}</h1>{paragraph(page.lead, 'lead')}{_banner(page)}{_figures(page.figures)}"
        f"<nav aria-label='parts of the page'>{links}</nav></header><main>{body}</main>"
        f"{paragraph(INSTALL, 'soft') if NOT_DRAWN in body else ''}"
        f"{_script(_read('tables.js'))}{_script(chart_script()) if DRAWN in body else ''}</body></html>\n"
    )


def _script(text: str) -> str:
    return f"<script type=module>{text}</script>"


@cache
def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text()


def _banner(page: Page) -> str:
    reasons = "".join(paragraph(reason) for reason in page.reasons)
    return (
        f"<div class='banner {escape(page.outcome)}'><p class=word>{escape(page.headline)}</p>{reasons}</div>"
        if page.headline
        else reasons
    )


def _figures(figures: Sequence[KeyFigure]) -> str:
    boxes = "".join(
        f"<div{' class=doubtful' if figure.doubtful else ''}><dt>{escape(figure.label)}</dt>"
        f"<dd class=value>{escape(figure.value)}</dd><dd class=detail>{escape(figure.detail)}</dd></div>"
        for figure in figures
    )
    return f"<dl class=figures>{boxes}</dl>" if boxes else ""
