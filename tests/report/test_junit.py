"""The JUnit file that CI servers read."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from judged_run import judge_run, read_report

from edgeprune.report.junit import render_fleet_junit, render_junit

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return read_report(judge_run(tmp_path_factory.mktemp("judged") / "run"))


@pytest.fixture
def report(judged: Any) -> Any:
    return copy.deepcopy(judged)


def gate(outcome: str, name: str = "speedup at_least 2", reason: str = "1.5 is not >= 2") -> dict[str, Any]:
    return {"gate": name, "outcome": outcome, "value": 1.5, "reason": reason}


def parse(report: Any) -> ElementTree.Element:
    return ElementTree.fromstring(render_junit(report))


def test_each_gate_is_a_test_and_a_doubt_an_error(report: Any) -> None:
    report["gates"] = [gate("pass"), gate("fail"), gate("inconclusive"), gate("fail")]
    (suite,) = suites = parse(report)
    for element in (suites, suite):
        counts = [element.get(name) for name in ("tests", "failures", "errors", "skipped")]
        assert counts == ["4", "2", "1", "0"]
    found = [[child.tag for child in case] for case in suite.iter("testcase")]
    assert found == [["system-out"], ["failure", "system-out"], ["error", "system-out"], ["failure", "system-out"]]


def test_what_readers_ask_for_is_there(report: Any) -> None:
    """GitLab shows the text of a failure and of system-out, actions of GitHub its message; both need names."""
    report["gates"] = [gate("fail")]
    (suite,) = parse(report)
    (case,) = suite.iter("testcase")
    failure = case.find("failure")
    assert failure is not None
    assert failure.text == failure.get("message") == "1.5 is not >= 2"
    assert case.get("name") == "speedup at_least 2"
    assert case.get("classname") == "edgeprune.board.mine"
    assert float(case.get("time", "")) == 0
    assert TIME.fullmatch(suite.get("timestamp", ""))
    properties = {row.get("name"): row.get("value") for row in suite.iter("property")}
    assert (properties["verdict"], properties["target"], properties["runtime"]) == ("pass", "board", "onnxruntime 1.0")
    told = case.findtext("system-out") or ""
    assert "on desk (a CPU), onnxruntime 1.0, fp32, median of 101 inferences, 2 threads" in told
    assert told.endswith("the run is valid")


def test_no_gate_is_an_error_and_no_empty_file(report: Any) -> None:
    report |= {"gates": [], "verdict": "inconclusive"}
    (suite,) = parse(report)
    (case,) = suite.iter("testcase")
    assert "no gate was asked for" in (case.find("error").get("message") or "")  # type: ignore[union-attr]
    assert (suite.get("tests"), suite.get("errors")) == ("1", "1")


def test_what_xml_cannot_hold_is_left_out(report: Any) -> None:
    """A name with an escape character, or half of a surrogate pair, would make the file unreadable."""
    report["gates"] = [gate("fail", "a\x1b[31m<&>\ud800", 'b\x00"\n')]
    report |= {"recipe": "mine\x07"}
    (case,) = parse(report).iter("testcase")
    assert case.get("name") == "a?[31m<&>?"
    render_junit(report).encode()


def test_a_run_that_is_not_valid_says_so(tmp_path: Path) -> None:
    folder = judge_run(tmp_path / "run", problems=["throttled: under-voltage"])
    report = dict(read_report(folder))
    report["result"] = {**report["result"], "problems": ["throttled: under-voltage"]}
    assert "NOT VALID: throttled: under-voltage" in render_junit(report)


def test_of_a_fleet_each_gate_names_its_board_and_a_board_without_figures_is_an_error() -> None:
    document = {
        "verdict": "fail", "target": "rpi4", "artifact": "pruned-onnx-int8", "percentile": 100,
        "created": "2026-11-21T10:00:00+00:00", "gates": [{"host": "b1", **gate("fail")}],
        "against": {"name": "main", "rows": [{"host": "b2", "metric": "init_ms", "outcome": "pass", "reason": "same"}]},
        "boards": [{"host": "b1", "error": None}, {"host": "b3", "error": "b3: refused"}],
    }  # fmt: skip
    (suite,) = ElementTree.fromstring(render_fleet_junit(document, "mine"))
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["3", "1", "1"]
    outcomes = {case.get("name"): next(child.tag for child in case) for case in suite.iter("testcase")}
    assert outcomes == {
        "speedup at_least 2 (b1)": "failure",
        "init_ms against a baseline (b2)": "system-out",
        "measured (b3)": "error",
    }
