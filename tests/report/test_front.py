"""The predicted front with what was measured on it, and every file."""

from __future__ import annotations

from typing import Any

import pytest
from report_page import FRONT, make_artifact, make_evidence, make_report

from edgeprune.core.metric import Metric, parse_metric
from edgeprune.report.front import CURVE, PLANNED, SHIPS, TRIED, draw_files, draw_front, render_front


@pytest.fixture
def report() -> dict[str, Any]:
    return make_report(make_evidence())


def list_points(report: dict[str, Any]) -> list[tuple[str, float, float]]:
    layers = draw_front(report, FRONT).spec["layer"]
    return [(row["what"], row["cost"], row["loss"]) for layer in layers[2:] for row in layer["data"]["values"]]


def test_what_is_predicted_and_what_was_measured_are_told_apart(report: dict[str, Any]) -> None:
    points = list_points(report)
    assert [ms for what, ms, _ in points if what == CURVE] == [0.2, 0.4, 0.7, 1.0]
    assert [row for row in points if row[0] == PLANNED] == [(PLANNED, 0.5, 0.05)]
    assert [row for row in points if row[0] == TRIED] == [(TRIED, 0.6, 0.03)]
    ((_, ms, loss),) = [row for row in points if row[0] == SHIPS]
    assert (ms, loss) == (pytest.approx(report["result"]["latency"]["p50_ms"], rel=1e-4), 0.05)


def test_a_try_of_an_earlier_version_stands_at_the_loss_of_the_plan(report: dict[str, Any]) -> None:
    del report["predicted"]["tries"][0]["loss_increase"]
    assert (TRIED, 0.6, 0.05) in list_points(report)


def test_the_interval_of_what_ships_is_drawn_and_an_invalid_run_said(report: dict[str, Any]) -> None:
    report["result"]["problems"] = ["throttled"]
    chart = draw_front(report, FRONT)
    (span,) = chart.spec["layer"][1]["data"]["values"]
    assert span["low"] < span["cost"] < span["high"]
    assert "NOT VALID" in span["detail"]


def test_only_files_with_a_latency_and_a_quality_are_drawn(report: dict[str, Any]) -> None:
    metric = parse_metric(report["metric"])
    chart = draw_files(report["artifacts"], metric)
    assert chart is not None
    assert [row["file"] for row in chart.spec["data"]["values"]] == ["original.fp32.onnx", "pruned.fp32.onnx"]
    assert draw_files([make_artifact("pruned", "int8", 1.0, None), {"path": "a", "role": "pruned"}], metric) is None


def test_the_direction_of_the_metric_is_said(report: dict[str, Any]) -> None:
    chart = draw_files(report["artifacts"], Metric("RMSE", better="lower", unit="K"))
    assert chart is not None
    assert chart.spec["layer"][1]["encoding"]["y"]["title"] == "RMSE in K, lower is better"


def test_a_run_without_a_front_says_so(report: dict[str, Any]) -> None:
    html = render_front(report, None, parse_metric(report["metric"]))
    assert "This run has no front of other budgets." in html
    assert html.count("class=chart") == 1
