"""The report in a real browser: nothing overflows, complains or asks a network; light and dark, screen and paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import Browser, start_browser, why_no_browser
from report_page import EVIL, make_evidence, make_report

from edgeprune.report import charts
from edgeprune.report.page import render_report

pytestmark = pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser())
CHARTS = 10
OVERFLOW = "document.scrollingElement.scrollWidth - window.innerWidth"
COLOURS = "(e => [e.color, e.backgroundColor])(getComputedStyle(document.body))"
PLOTS = "[...document.querySelectorAll('.plot')].map(plot => [plot.ariaLabel, plot.querySelectorAll('svg').length])"
CHART_ENDS = (
    "[...document.querySelectorAll('.plot svg')].map(svg => svg.getBoundingClientRect().right - window.innerWidth)"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with start_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every part, all of whose names are markup; the browser has opened it."""
    path, evidence = tmp_path_factory.mktemp("page") / "report.html", make_evidence()
    path.write_text(render_report(make_report(evidence), evidence))
    browser.open(path)
    return path


@pytest.fixture
def shown(browser: Browser, page: Path) -> Browser:
    """The browser with that report, 1280 px wide and light."""
    browser.resize(1280)
    return browser


def test_nothing_complains_or_asks_a_network(shown: Browser, page: Path) -> None:
    assert shown.complaints == []
    assert shown.requests == [page.as_uri()]
    assert shown.evaluate("document.title") == f"{EVIL} on rpi4"


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(shown: Browser, width: int) -> None:
    shown.resize(width)
    assert shown.evaluate(OVERFLOW) <= 0
    assert max(shown.evaluate(CHART_ENDS)) <= 0


def test_every_chart_is_drawn_and_has_an_alternative_text(shown: Browser) -> None:
    plots = shown.evaluate(PLOTS)
    assert len(plots) == CHARTS
    assert all(len(text) > 40 and text != "Vega visualization" and drawn == 1 for text, drawn in plots)
    assert shown.evaluate("[...document.images].every(image => image.alt)")
    links = "[...document.querySelectorAll('nav a')].map(a => document.getElementById(a.hash.slice(1)) !== null)"
    assert all(shown.evaluate(links))


def test_dark_and_light_are_two(shown: Browser) -> None:
    text = "getComputedStyle(document.querySelector('.plot svg text')).fill"
    light, light_text = shown.evaluate(COLOURS), shown.evaluate(text)
    shown.resize(1280, dark=True)
    dark = shown.evaluate(COLOURS)
    assert light[1] == "rgb(255, 255, 255)"
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    assert shown.evaluate(text) != light_text


def test_it_prints_on_several_pages(shown: Browser) -> None:
    pdf = shown.print_pdf()
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 4


def read_column(browser: Browser, name: str) -> list[str]:
    """The cells of the column of that name in the table of files, top down."""
    cells = f"document.querySelectorAll(\"#files td[data-name='{name}']\")"
    return list(browser.evaluate(f"[...{cells}].map(cell => cell.textContent)"))


def click_head(browser: Browser, name: str) -> None:
    heads = "[...document.querySelectorAll('#files th button')]"
    browser.evaluate(f"{heads}.find(button => button.textContent === '{name}').click()")


def test_a_click_on_a_column_sorts_by_its_figures_and_again_the_other_way(shown: Browser) -> None:
    click_head(shown, "p50 ms")
    assert read_column(shown, "p50 ms")[:4] == ["0.3", "0.5", "1", "-"]
    click_head(shown, "p50 ms")
    assert read_column(shown, "p50 ms")[:4] == ["1", "0.5", "0.3", "-"], "what has no figure comes last"
    click_head(shown, "file")
    assert read_column(shown, "file")[0] == "original.fp32.onnx"


def test_a_filter_leaves_the_rows_that_have_its_words(shown: Browser) -> None:
    field = "document.querySelector('#files input.filter')"
    rows = "[...document.querySelectorAll('#files tbody tr')].filter(row => row.offsetHeight).length"
    for width in (1280, 360):
        shown.resize(width)
        shown.evaluate(f"{field}.value = 'PRUNED onnx', {field}.dispatchEvent(new Event('input'))")
        assert shown.evaluate(rows) == 2
        shown.evaluate(f"{field}.value = '', {field}.dispatchEvent(new Event('input'))")
        assert shown.evaluate(rows) == 12


def test_under_the_pointer_a_mark_says_what_it_is(shown: Browser) -> None:
    place = (
        "(() => { const mark = document.querySelector('#latency .plot svg .mark-symbol path'); "
        "mark.scrollIntoView({block: 'center'}); const box = mark.getBoundingClientRect(); "
        "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    x, y = shown.evaluate(place)
    for step in range(2):
        shown.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + step, y=y)
    text = "document.querySelector('#vg-tooltip-element').innerText"
    assert "median ms" in shown.evaluate(f"new Promise(done => setTimeout(() => done({text}), 100))")
    assert shown.complaints == []


def test_a_page_without_most_parts_is_whole_too(browser: Browser, tmp_path: Path) -> None:
    """Of a run without explanation, front, windows, sensors and gates."""
    evidence = make_evidence(temperature_c=(), frequency_mhz=())
    before, after = (replace(row, windows=()) for row in (evidence.before, evidence.after))
    evidence = replace(evidence, before=before, after=after, front=None, explanation=None)
    report = make_report(evidence, gates=[], verdict="pass", parity=[], notes=[])
    (tmp_path / "report.html").write_text(render_report(report, evidence))
    browser.open(tmp_path / "report.html", 360)
    assert browser.evaluate(OVERFLOW) <= 0
    assert browser.complaints == []


def test_without_the_library_tables_stand_in_the_charts_place(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "can_draw", lambda: False)
    evidence = make_evidence()
    (tmp_path / "report.html").write_text(render_report(make_report(evidence), evidence))
    browser.open(tmp_path / "report.html", 360)
    assert browser.evaluate(PLOTS) == []
    assert browser.evaluate("document.querySelectorAll('figure.table-only table').length") == CHARTS
    assert "pip install 'edgeprune[report]'" in browser.evaluate("document.body.innerText")
    assert browser.evaluate(OVERFLOW) <= 0
    assert browser.complaints == []
    assert (tmp_path / "report.html").stat().st_size < 100_000
