"""The card of a run: its layout is that of docs/metrics.md, its figures are right, and what is not known is null."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from statistics import stdev
from typing import Any

import pytest
from places import ROOT
from report_documents import RMSE, FinishedRun

from edgeprune.core.choosing.card import CardRun, Evidence, build_card, find_misfit, is_of_one_curve, render_card
from edgeprune.core.choosing.points import read_point

ROW = re.compile(r"^\| `(\w+)` \|", re.M)
ROBUSTNESS = {
    "rows": [
        {"corruption": "none", "severity": None, "before": 96.0, "after": 95.0},
        {"corruption": "noise", "severity": 1, "before": 90.0, "after": 86.0},
        {"corruption": "noise", "severity": 3, "before": 80.0, "after": 70.0},
    ]
}


def make_card(report: dict[str, Any], **more: Any) -> dict[str, Any]:
    return build_card(Evidence(CardRun("run", report), **more))


def read_section(title: str) -> list[str]:
    """The first column of the table below a title of docs/metrics.md."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    return ROW.findall(page.split(f"## {title}\n")[1].split("\n## ")[0])


def test_the_layout_is_that_of_the_page() -> None:
    card = make_card(FinishedRun().report())
    assert list(card) == read_section("The card")
    assert list(card["figures"]) == read_section("Figures")
    assert list(card["conditions"]) == read_section("Conditions")
    for figure in card["figures"].values():
        assert list(figure) == read_section("A figure")
        assert (figure["value"] is None) == (figure["reason"] is not None)
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_what_is_measured_counted_and_derived() -> None:
    figures = make_card(FinishedRun(0.5, 95.0).report())["figures"]
    expected = {
        "quality": 95.0, "quality_drop": 1.0, "quality_retained": 95 / 96, "latency_p50_ms": 0.5, "speedup": 2.0,
        "file_kb": 20.0, "file_compression": 4.0, "parameter_compression": 4.0, "mac_compression": 4.0,
        "peak_memory_mib": 30.0, "seeds": 1,
    }  # fmt: skip
    assert {name: figures[name]["value"] for name in expected} == pytest.approx(expected)
    assert (figures["speedup"]["low"], figures["speedup"]["high"]) == pytest.approx((1.98, 2.02))
    assert (figures["latency_p50_ms"]["original"], figures["file_kb"]["original"]) == (1.0, 80.0)
    assert figures["energy_mj"]["reason"] == "no power sensor"
    assert "different budgets" in figures["area_under_curve"]["reason"]


def test_energy_has_its_uncertainty_and_quality_its_interval() -> None:
    report = FinishedRun().report()
    report["result"] |= {"energy": {"energy_mj": 4.0, "uncertainty_mj": 0.5}, "quality_low": 93.0, "quality_high": 97.0}
    report["baseline"] |= {"energy": {"energy_mj": 8.0, "uncertainty_mj": 0.5}}
    figures = make_card(report)["figures"]
    energy = figures["energy_mj"]
    assert [energy[name] for name in ("value", "low", "high", "original")] == [4.0, 3.5, 4.5, 8.0]
    assert (figures["quality"]["low"], figures["quality"]["high"]) == (93.0, 97.0)


@pytest.mark.parametrize("side", ["result", "baseline"])
def test_an_invalid_run_gives_no_timed_figure(side: str) -> None:
    report = FinishedRun().report()
    report[side]["problems"] = ["throttled"]
    card = make_card(report)
    timed = ("latency_p50_ms", "latency_p95_ms", "speedup", "first_ms", "energy_mj", "peak_memory_mib")
    assert [card["figures"][name]["value"] for name in timed] == [None] * len(timed)
    assert card["figures"]["quality"]["value"] == 95.0
    assert [problem.removeprefix("the unpruned file: ") for problem in card["problems"]] == ["throttled"]


def test_of_a_metric_where_lower_is_better() -> None:
    figures = make_card(FinishedRun(0.5, 0.4, original=0.2, metric=RMSE).report())["figures"]
    assert figures["quality_drop"]["value"] == pytest.approx(0.2)
    assert figures["quality_retained"]["value"] == pytest.approx(0.5)
    assert figures["quality_drop"]["unit"] == "K"


@pytest.mark.parametrize(("quality", "original"), [(None, 96.0), (95.0, None), (0.0, 0.0), (None, None)])
def test_quality_that_is_no_number_is_null_with_the_reason(quality: float | None, original: float | None) -> None:
    card = make_card(FinishedRun(0.5, quality, original=original).report())
    retained = card["figures"]["quality_retained"]
    assert (retained["value"], bool(retained["reason"])) == (None, True)
    assert render_card(card)


def test_robustness_is_read_from_what_was_explained() -> None:
    run = CardRun("run", FinishedRun().report(), {"robustness": ROBUSTNESS})
    figures = build_card(Evidence(run))["figures"]
    assert (figures["corrupted_quality"]["value"], figures["corrupted_quality"]["original"]) == (78.0, 85.0)
    assert figures["corrupted_extra_drop"]["value"] == pytest.approx(7.0 - 1.0)
    for explanation, reason in (
        (None, "no explanation.json"),
        ({"robustness": None, "missing": {"robustness": "integers"}}, "integers"),
        ({}, "has no figure of it"),
    ):
        figures = build_card(Evidence(replace(run, explanation=explanation)))["figures"]
        assert reason in figures["corrupted_quality"]["reason"]


def test_seeds_give_mean_and_spread() -> None:
    other = CardRun("other", FinishedRun(0.4, 93.0, sha256="c" * 64).report())
    card = make_card(FinishedRun(0.5, 95.0).report(), repeats=[other])
    assert card["runs"] == ["run", "other"]
    figures = card["figures"]
    assert (figures["seeds"]["value"], figures["seed_quality_mean"]["value"]) == (2, 94.0)
    assert figures["seed_quality_sd"]["value"] == pytest.approx(stdev([95.0, 93.0]))
    assert figures["seed_speedup_mean"]["value"] == pytest.approx(2.25)
    invalid = CardRun("invalid", FinishedRun(0.4, problems=("throttled",)).report())
    figures = make_card(FinishedRun().report(), repeats=[invalid])["figures"]
    assert figures["seed_speedup_mean"]["value"] is None


def test_the_area_is_that_of_the_curve() -> None:
    curve = [read_point("a", FinishedRun(0.5, 96.0).report()), read_point("b", FinishedRun(0.25, 48.0).report())]
    assert make_card(FinishedRun().report(), curve=curve)["figures"]["area_under_curve"]["value"] == pytest.approx(0.75)


def test_runs_that_are_no_repeats_are_told_apart() -> None:
    run = CardRun("run", FinishedRun().report())
    other = FinishedRun(sha256="c" * 64).report()
    assert find_misfit(run, CardRun("other", other)) == ""
    assert "setting" in find_misfit(run, CardRun("other", FinishedRun(threads=2, sha256="c" * 64).report()))
    assert "budget" in find_misfit(run, CardRun("other", FinishedRun(speedup_budget=3, sha256="c" * 64).report()))
    assert "same file" in find_misfit(run, CardRun("other", FinishedRun().report()))
    narrower = {**other, "plan": {"groups": [{"group": "conv1", "size": 8, "keep": [0]}]}}
    assert "other widths" in find_misfit(run, CardRun("other", narrower))
    assert is_of_one_curve(run, CardRun("other", FinishedRun(speedup_budget=3).report()))
    assert not is_of_one_curve(run, CardRun("other", other))
    unlike = FinishedRun(speedup_budget=3).report()
    unlike["artifacts"][0]["sha256"] = "d" * 64
    assert not is_of_one_curve(run, CardRun("other", unlike))


def test_the_markdown_holds_every_figure_and_escapes_what_users_name() -> None:
    card = make_card({**FinishedRun().report(), "recipe": "mine|yours"})
    text = render_card(card)
    assert text.startswith("# mine\\|yours on local\n\ntop-1 accuracy 95.00 % at 0.5 ms, 20 kB: pass\n")
    for name in card["figures"]:
        assert f"\n| {name} |" in text
    assert "- energy_mj: no power sensor" in text


@pytest.mark.parametrize("side", ["result", "baseline"])
def test_means_of_several_runs_have_no_percentile(side: str) -> None:
    report = FinishedRun().report()
    report[side]["latency"] |= {"p95_ms": None, "p99_ms": None}
    figures = make_card(report)["figures"]
    place = "value" if side == "result" else "original"
    assert [figures[name][place] for name in ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")][1:] == [None, None]
    assert figures["latency_p50_ms"][place] is not None
    if side == "result":
        assert figures["latency_p99_ms"]["reason"] == "too few samples of single runs"
    assert render_card(make_card(report))


def test_cores_are_a_list_and_the_sizes_of_an_input_a_shape() -> None:
    report = FinishedRun().report()
    report["conditions"]["affinity"] = [0, 1]
    text = render_card(make_card(report))
    assert "| affinity | 0, 1 |" in text
    assert "| inputs | x 1 x 1 x 16 x 16 |" in text
