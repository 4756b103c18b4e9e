"""Latency over time and its distribution: what the charts are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_page import make_evidence, make_measurement

from edgeprune.core.measuring.measurement import Conditions, Measurement
from edgeprune.report.timing import OTHERS, OWN_CORES, draw_distribution, draw_over_time, render_timing


def make_pair() -> dict[str, Measurement]:
    evidence = make_evidence()
    return {"before": evidence.before, "after": evidence.after}


def list_rows(spec: Any, layer: int) -> list[dict[str, Any]]:
    return list(spec["layer"][layer]["data"]["values"])


def summarise(pair: dict[str, Measurement]) -> dict[str, dict[str, float]]:
    return {name: row.latency.to_dict() for name, row in pair.items()}


def test_each_window_is_told_as_its_deviation_from_its_own_files_median() -> None:
    pair = make_pair()
    chart = draw_over_time(pair, summarise(pair))
    assert chart is not None
    rows = list_rows(chart.spec, 2)
    assert len(rows) == 24
    assert {row["file"] for row in rows} == {"before", "after"}
    assert min(row["at_s"] for row in rows) == 0.0
    assert max(row["at_s"] for row in rows) == pytest.approx(1.15)
    first, last = rows[0]["deviation"], rows[11]["deviation"]
    assert last - first == pytest.approx(6, abs=0.5)
    assert [row["cores"] for row in rows[:12]].count(OTHERS) == 1
    assert rows[0]["cores"] == OWN_CORES


def test_what_moves_over_the_session_is_said_by_thirds() -> None:
    pair = make_pair()
    chart = draw_over_time(pair, summarise(pair))
    assert chart is not None
    assert "before +4.3 %" in chart.alt or "before +4.4 %" in chart.alt


def test_one_far_window_does_not_hide_the_others() -> None:
    pair, latencies = make_pair(), summarise(make_pair())
    windows = list(pair["after"].windows)
    windows[5] = replace(windows[5], p50_ms=50.0)
    chart = draw_over_time({**pair, "after": replace(pair["after"], windows=tuple(windows))}, latencies)
    assert chart is not None
    assert "1 of 24 windows lie beyond it" in chart.caption


@pytest.mark.parametrize(("times", "drawn"), [((20.0, 20.1, 20.4, 20.8), True), ((20.0, 20.1), False), ((), False)])
def test_the_fixed_arithmetic_is_drawn_where_each_process_has_one(times: tuple[float, ...], drawn: bool) -> None:
    conditions = Conditions(1, arithmetic_us=times)
    pair = {name: make_measurement(name, 1.0, conditions=conditions) for name in ("before", "after")}
    chart = draw_over_time(pair, summarise(pair))
    assert chart is not None
    assert len(chart.spec["layer"]) == (4 if drawn else 3)
    if drawn:
        assert [row["process"] for row in list_rows(chart.spec, 3)] == [0, 1, 2, 3]


def test_processes_have_a_row_each_with_both_files() -> None:
    pair = make_pair()
    chart = draw_over_time(pair, summarise(pair))
    assert chart is not None
    rows = chart.table.rows
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert len(rows[0]) == 6
    short = replace(pair["after"], windows=pair["after"].windows[:3])
    alone = draw_over_time({**pair, "after": short}, summarise(pair))
    assert alone is not None
    assert alone.table.rows[3][4:] == ["-", "-"]


def test_samples_without_times_are_said_to_be_so() -> None:
    pair = {name: replace(row, windows=()) for name, row in make_pair().items()}
    html = render_timing(pair, summarise(pair))
    assert "is not known: this runtime gives samples without their times" in html
    assert html.count("class=chart") == 1


def test_every_sample_is_in_a_bin_or_counted_as_beyond() -> None:
    pair = make_pair()
    slow = (*pair["after"].samples_ms[:-2], 9.0, 12.5)
    pair["after"] = replace(pair["after"], samples_ms=slow)
    latencies = summarise(make_pair())
    chart = draw_distribution(pair, latencies)
    shares = {name: sum(row["share"] for row in list_rows(chart.spec, 0) if row["file"] == name) for name in pair}
    assert shares["before"] == pytest.approx(1, abs=1e-3)
    assert shares["after"] == pytest.approx(238 / 240, abs=1e-3)
    assert "after: 240 samples, 2 above" in chart.caption
    assert "slowest 12.5 ms" in chart.caption


def test_equal_samples_have_a_distribution_too() -> None:
    pair = {name: replace(row, samples_ms=(1.0,) * 240) for name, row in make_pair().items()}
    assert len(list_rows(draw_distribution(pair, summarise(pair)).spec, 0)) == 2


def test_means_of_several_runs_are_said_to_be_such_and_have_no_percentiles() -> None:
    pair = {name: replace(row, runs_per_sample=74) for name, row in make_pair().items()}
    chart = draw_distribution(pair, {name: row.latency.to_dict() for name, row in pair.items()})
    assert "each sample the mean of several" in chart.alt
    rows = {row[0]: row[1:] for row in chart.table.rows}
    assert [rows[name] for name in ("p90", "p95", "p99")] == [("-", "-")] * 3
    assert "-" not in rows["median (p50)"]
