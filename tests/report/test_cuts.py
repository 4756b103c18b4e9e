"""What was cut, in words and by layer and step."""

from __future__ import annotations

from typing import Any

import pytest
from report_page import EVIL, GROUPS, make_evidence, make_explanation, make_report

from edgeprune.report.cuts import describe_cut, draw_layers, draw_waterfall, render_cuts


@pytest.fixture
def report() -> dict[str, Any]:
    return make_report(make_evidence())


def with_groups(report: dict[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
    return {**report, "plan": {**report["plan"], "groups": groups}}


def test_channels_and_branches_are_counted_apart_and_what_went_with_a_branch_not_twice(report: dict[str, Any]) -> None:
    text = describe_cut(report)
    assert text.startswith("Cut: 61 of 72 channels, in 1 of 2 groups and 1 of 1 residual branch; ")
    assert "multiply-accumulates 200 k to 100 k (-50%), parameters 10 k to 5 k (-50%), " in text
    assert text.endswith("file bytes 50 k to 20 k (-60%).")
    assert describe_cut(with_groups(report, GROUPS[2:])).startswith("Cut: 1 of 1 residual branch; ")
    assert describe_cut(with_groups(report, GROUPS[:1])).startswith("Cut: 61 of 64 channels, in 1 of 1 group; ")


def test_a_net_that_stayed_whole_is_said_to_have(report: dict[str, Any]) -> None:
    report["result"] = {**report["result"], "macs": 200_000}
    text = describe_cut(with_groups(report, GROUPS[3:]))
    assert text.startswith("Nothing was cut; multiply-accumulates 200 k as before, parameters 10 k to 5 k")
    assert describe_cut(with_groups(report, [])).startswith("Nothing was cut")


def test_layers_stand_before_and_after_with_those_that_changed_marked() -> None:
    layers = make_explanation()["plan"]["layers"]
    chart = draw_layers([*layers, {**layers[0], "layer": "same", "shape_after": layers[0]["shape_before"]}], "measured")
    bars = [(row["file"], row["cost"]) for row in chart.spec["data"]["values"][:4]]
    assert bars == [("before", 0.9), ("after", 0.6), ("before", 0.9), ("after", 0)]
    assert chart.table.marked == {0, 1}
    assert chart.table.rows[2][2] == "the same"
    assert "head 0.9 ms to 0 ms" in chart.alt


def test_steps_of_the_waterfall_lie_between_their_levels() -> None:
    waterfall = make_explanation()["waterfall"]
    chart = draw_waterfall(waterfall)
    bars = [(row["kind"], row["start"], row["end"]) for row in chart.spec["data"]["values"]]
    assert bars == [("in all", 0, 1), ("saved", 1, 0.5), ("lost", 0.5, 0.6), ("in all", 0, 0.6)]
    assert chart.alt == "From 1 ms unpruned to 0.6 ms shipped. Lost on the way: layer overhead 0.1 ms."
    assert "not valid" not in chart.caption
    assert "A run behind it was not valid." in draw_waterfall({**waterfall, "valid": False}).caption


def test_groups_have_their_bound_and_price_where_the_plan_was_explained(report: dict[str, Any]) -> None:
    explained, plain = render_cuts(report, make_explanation()), render_cuts(report, None)
    assert "8 channels would exceed the limit on latency" in explained
    assert "what bound it" not in plain
    assert "Layers one by one are not known" in plain
    assert EVIL not in explained + plain
    assert explained.count("class=warn") == 1


def test_why_a_part_is_missing_is_said(report: dict[str, Any]) -> None:
    missing = {"plan": "made by an earlier one"}
    html = render_cuts(report, {"plan": None, "waterfall": None, "warnings": [], "missing": missing})
    assert "Layers one by one are not known: made by an earlier one." in html
