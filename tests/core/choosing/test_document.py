"""The comparison as a document and as a table of 80 columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_documents import RMSE, FinishedRun

from edgeprune.core.choosing.document import Comparison
from edgeprune.core.choosing.points import UNFINISHED, Interval, Point, read_point
from edgeprune.core.choosing.table import render_table
from edgeprune.core.latency.table import ESTIMATED

ESTIMATE = Point("looked-ahead", UNFINISHED, origin=ESTIMATED, latency=Interval(0.4, 0.4, 0.4))


def compare(*points: Point, **more: Any) -> dict[str, Any]:
    return Comparison(points, "some runs", **more).to_dict()


def test_rows_are_by_latency_and_say_where_they_stand() -> None:
    slow, fast = (read_point(name, FinishedRun(ms, 95.0).report()) for name, ms in (("slow", 0.8), ("fast", 0.4)))
    document = compare(slow, ESTIMATE, replace(fast, name="failed", verdict="fail"), fast, Point("begun", UNFINISHED))
    rows = {row["name"]: row for row in document["rows"]}
    assert list(rows) == ["failed", "fast", "looked-ahead", "slow", "begun"]
    assert [row["on_front"] for row in rows.values()] == [False, True, False, False, False]
    assert rows["slow"]["beaten_by"] == "fast"
    assert (rows["looked-ahead"]["front"], rows["looked-ahead"]["exclusion"]) == (None, "estimated, not measured")
    lines = render_table(document).splitlines()
    assert next(line for line in lines if line.startswith("slow ")).endswith("< fast")
    assert next(line for line in lines if line.startswith("fast ")).endswith("front, choose")
    assert next(line for line in lines if line.startswith("failed ")).endswith("failed its gates")
    assert next(line for line in lines if line.startswith("looked-ahead ")).endswith("estimated, not measured")
    assert next(line for line in lines if line.startswith("begun ")).split("  ")[-1].strip() == "not measured"


def test_a_beaten_run_that_is_equal_by_the_intervals_says_so() -> None:
    fast, near = (
        read_point(name, FinishedRun(ms, 95.0, spread=0.05).report()) for name, ms in (("fast", 0.50), ("near", 0.51))
    )
    rows = compare(fast, near)["rows"]
    assert (rows[1]["beaten_by"], rows[1]["equal_latency"], rows[1]["equal_quality"]) == ("fast", ["fast"], ["fast"])


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("name", ["run", "local-digits_resnet8-20261121-101500-and-more"])
def test_the_table_is_80_columns_wide_whatever_runs_are_called(name: str, count: int) -> None:
    points = [
        read_point(
            f"{name}-{number}", FinishedRun(12345.678 + number, 0.331, metric=RMSE, verdict="inconclusive").report()
        )
        for number in range(count)
    ]
    text = render_table(compare(*points, *[replace(points[0], name=f"{name}-x", problems=("a reason " * 30,))]))
    assert max(map(len, text.splitlines())) <= 80
    assert all(point.name in text for point in points)


def test_what_is_not_comparable_is_told() -> None:
    first = read_point("first", FinishedRun(0.5).report())
    notes = compare(first, read_point("other", FinishedRun(0.4, threads=4, device="bb").report()))["notes"]
    assert notes[0].startswith("these runs differ in device, threads: they are not held against each other")
    assert "take turns" in notes[1]
    assert compare(first, replace(first, name="again"), interleaved=True)["notes"] == []
    of_another = replace(first, name="x", recipe="theirs")
    assert any("different recipes (mine, theirs)" in note for note in compare(first, of_another)["notes"])


def test_budgets_without_a_run_and_problems_are_notes() -> None:
    doubtful = read_point("a", FinishedRun(0.5, problems=("throttled",)).report())
    document = compare(doubtful, replace(doubtful, name="b"), without_run={"speedup-9": "ask for 5"})
    assert document["notes"][0] == "speedup-9 has no run: ask for 5"
    assert document["notes"][-1] == "not valid: a, b: throttled"
    assert "no choice" in render_table(document)


def test_runs_whose_samples_are_means_have_no_percentile_and_the_reason_stands_once() -> None:
    reports = {name: FinishedRun(ms).report() for name, ms in (("a", 0.5), ("b", 0.4), ("c", 0.3))}
    for name in ("a", "b"):
        reports[name]["result"]["latency"] |= {"p95_ms": None}
    document = compare(*(read_point(name, report) for name, report in reports.items()), interleaved=True)
    assert {row["name"]: row["latency_p95_ms"] for row in document["rows"]} == {"a": None, "b": None, "c": 0.36}
    text = render_table(document)
    assert text.count("p95 -: too few samples of single runs") == 1
    costs = [line.split() for line in text.splitlines() if ".onnx" in line]
    assert [row[3] for row in costs] == ["0.36", "-", "-"]
    assert "p95 -:" not in render_table(compare(read_point("c", reports["c"])))
