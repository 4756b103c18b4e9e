"""The page of a comparison, looked at in a real browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import start_browser, why_no_browser
from report_documents import RMSE, FinishedRun

from edgeprune.core.choosing.document import Comparison
from edgeprune.core.choosing.points import UNFINISHED, Point, read_point
from edgeprune.report.comparison import render_comparison_page

HOSTILE = "<script>alert(1)</script>"


def make_comparison(metric: dict[str, str], quality: float) -> Comparison:
    runs = [
        read_point(
            f"speedup-{speedup:g}",
            FinishedRun(1 / speedup, quality - speedup / 10, metric=metric, spread=0.03).report(),
        )
        for speedup in (1.5, 2.0, 2.05, 3.0)
    ]
    odd = [
        replace(runs[0], name="failed", verdict="fail"),
        replace(runs[1], name=HOSTILE, problems=("throttled",)),
        read_point("on-two-threads", FinishedRun(0.3, quality, metric=metric, threads=2).report()),
        read_point("without-quality", FinishedRun(0.3, None, metric=metric).report()),
        Point("begun", UNFINISHED),
    ]
    return Comparison((*runs, *odd), "mine on local", without_run={"speedup-9": "ask for --speedup 5 at best"})


def make_pages() -> dict[str, Comparison]:
    """A page of many kinds of runs, one of an error, and one of which nothing may be believed."""
    doubtful = read_point("a", FinishedRun(problems=("throttled",)).report())
    return {
        "percent": make_comparison({"name": "top-1 accuracy", "better": "higher", "unit": "%"}, 95.0),
        "error": make_comparison(RMSE, 1.0),
        "nothing": Comparison((doubtful, Point("b", UNFINISHED)), "two runs"),
    }


@pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser())
def test_pages_fit_ask_for_nothing_and_complain_of_nothing(tmp_path: Path) -> None:
    with start_browser(tmp_path) as browser:
        for name, comparison in make_pages().items():
            page = tmp_path / f"{name}.html"
            page.write_text(render_comparison_page(comparison.to_dict()))
            browser.open(page, 1280)
            for width in (1280, 390):
                browser.resize(width)
                assert browser.evaluate("document.documentElement.scrollWidth") <= width, name
            assert (browser.complaints, browser.requests) == ([], [page.as_uri()]), name
            drawn = browser.evaluate("document.querySelectorAll('.plot svg').length")
            assert drawn == len(comparison.fronts) > 0, name


def test_the_page_says_what_to_choose_and_why(tmp_path: Path) -> None:
    document: dict[str, Any] = replace(
        make_comparison(RMSE, 1.0), points=make_comparison(RMSE, 1.0).points[:4], interleaved=True
    ).to_dict()
    text = render_comparison_page(document)
    assert f"choose {document['choice']['name']}" in text
    assert document["choice"]["reason"] in text
    assert "speedup-9: ask for --speedup 5 at best" in text


def test_what_runs_are_called_steers_no_page() -> None:
    text = render_comparison_page(make_comparison(RMSE, 1.0).to_dict())
    assert HOSTILE not in text
    assert "alert(1)" in text
