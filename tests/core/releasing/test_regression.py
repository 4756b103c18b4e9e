"""Figures held against a baseline's: fractions and floors, directions, what one side lacks, what is told."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.measuring.spread import StudentSpread
from edgeprune.core.metric import HIGHER, TOP1, Metric
from edgeprune.core.releasing.gate import FAIL, INCONCLUSIVE, PASS, Figure
from edgeprune.core.releasing.regression import (
    DEFAULT_LIMITS,
    DIRECTIONS,
    Figures,
    Regression,
    RegressionLimit,
    find_unit,
    judge_regressions,
    render_regressions,
    settle_limits,
)

RMSE = Metric("RMSE", better="lower", unit="K")
values = st.floats(1e-3, 1e6)
limits = st.builds(RegressionLimit, st.sampled_from(sorted(DIRECTIONS)), st.floats(0, 0.5), st.floats(0, 100))


SIDES = [("latency_p50_ms", TOP1), ("parity_sqnr_db", TOP1), ("quality", TOP1), ("quality", RMSE)]
"""Metrics of which lower is better, and of which higher is."""


def judge(
    limit: RegressionLimit, new: Figure, old: Figure, metric: Metric = TOP1, ratio: StudentSpread | None = None
) -> Regression:
    ratios = {limit.metric: ratio} if ratio else {}
    rows, _ = judge_regressions(Figures({limit.metric: new}, {limit.metric: old}, metric, ratios), [limit])
    return rows[0]


def worsen(limit: RegressionLimit, metric: Metric, old: float, by: float) -> float:
    return old - by if (DIRECTIONS[limit.metric] or metric.better) == HIGHER else old + by


@pytest.mark.parametrize(("name", "metric"), SIDES)
@given(st.floats(0, 0.5), st.floats(0, 100), values, st.floats(0, 1))
def test_a_difference_within_the_floor_or_the_fraction_never_fails(
    name: str, metric: Metric, fraction: float, floor: float, old: float, share: float
) -> None:
    limit = RegressionLimit(name, fraction, floor)
    for room in (limit.floor, limit.max_regression * old):
        new = worsen(limit, metric, old, share * room)
        assert judge(limit, Figure(new), Figure(old), metric).outcome == PASS


@pytest.mark.parametrize(("name", "metric"), SIDES)
@given(st.floats(0, 0.5), st.floats(0, 100), values, st.floats(0.01, 10))
def test_what_is_worse_than_both_fails_and_what_is_better_never_does(
    name: str, metric: Metric, fraction: float, floor: float, old: float, beyond: float
) -> None:
    limit = RegressionLimit(name, fraction, floor)
    room = max(limit.floor, limit.max_regression * old)
    new = worsen(limit, metric, old, room + beyond * old)
    assert judge(limit, Figure(new), Figure(old), metric).outcome == FAIL
    row = judge(limit, Figure(worsen(limit, metric, old, -beyond * old)), Figure(old), metric)
    assert row.outcome == PASS
    assert row.worse == pytest.approx(-beyond)


@given(limits, values, values, st.floats(0, 0.5), st.sampled_from([TOP1, RMSE]))
def test_a_wider_interval_decides_nothing_else(
    limit: RegressionLimit, old: float, new: float, width: float, metric: Metric
) -> None:
    sure = judge(limit, Figure(new), Figure(old), metric).outcome
    unsure = judge(limit, Figure(new, new * (1 - width), new * (1 + width)), Figure(old), metric).outcome
    assert unsure in (sure, INCONCLUSIVE)


@pytest.mark.parametrize(
    ("ratio", "outcome"),
    [
        (StudentSpread(1.0, 0.005), PASS),
        (StudentSpread(1.03, 0.007), INCONCLUSIVE),
        (StudentSpread(1.05, 0.007), FAIL),
        (StudentSpread(0.8, 0.05), PASS),
    ],
)
def test_a_measured_ratio_goes_before_the_recorded_figures(ratio: StudentSpread, outcome: str) -> None:
    limit = RegressionLimit("latency_p50_ms", 0.02, 0.001)
    row = judge(limit, Figure(20.0), Figure(10.0), ratio=ratio)
    assert (row.outcome, row.ratio, row.low, row.high) == (outcome, *ratio.interval())
    assert row.worse == pytest.approx(ratio.center - 1)


def test_figures_that_contradict_the_ratio_are_explained() -> None:
    for now, words in ((10.1, ""), (11.5, "; the two figures alone +15.0 %: the ratio leaves out a few")):
        spread = StudentSpread(1.01, 0.002, 7, basis="the ratio leaves out a few")
        figures = Figures(
            {"latency_p50_ms": Figure(now)}, {"latency_p50_ms": Figure(10.0)}, TOP1, {"latency_p50_ms": spread}
        )
        (row,), _ = judge_regressions(figures, [RegressionLimit("latency_p50_ms", 0.05)])
        assert row.reason.partition("worse at most")[2] == words


def test_one_percent_of_three_kib_is_nothing() -> None:
    limit = next(limit for limit in DEFAULT_LIMITS if limit.metric == "file_bytes")
    assert judge(limit, Figure(4000), Figure(3072)).outcome == PASS
    assert judge(limit, Figure(4200), Figure(3072)).outcome == FAIL
    assert judge(limit, Figure(1_019_000), Figure(1_000_000)).outcome == PASS
    assert judge(limit, Figure(1_021_000), Figure(1_000_000)).outcome == FAIL


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (Figure(1.0, problem="throttled"), Figure(1.0)),
        (Figure(1.0), Figure(1.0, problem="throttled")),
        (Figure(1.0, origin="estimated"), Figure(1.0)),
        (Figure(1.0), Figure(1.0, origin="estimated")),
        (Figure(1.0), Figure(math.nan)),
    ],
)
def test_nothing_doubtful_passes_or_fails(new: Figure, old: Figure) -> None:
    assert judge(RegressionLimit("energy_mj", 0.05), new, old).outcome == INCONCLUSIVE


def test_what_is_no_number_now_fails() -> None:
    assert judge(RegressionLimit("quality", 0.01), Figure(math.nan), Figure(90.0)).outcome == FAIL


def test_what_one_side_lacks_is_named_and_undecided_only_where_it_is_asked_for() -> None:
    both = {"file_bytes": Figure(1000)}
    energy = {**both, "energy_mj": Figure(None, problem="no power sensor")}
    own = [RegressionLimit("energy_mj", 0.05), RegressionLimit("file_bytes", 0.05), RegressionLimit("sram_bytes", 0.05)]
    figures = Figures(energy, {**both, "energy_mj": Figure(3.0)}, TOP1, {})
    rows, skipped = judge_regressions(figures, own)
    assert [row.metric for row in rows] == ["file_bytes"]
    assert skipped == {
        "energy_mj": "not measured in the run: no power sensor", "sram_bytes": "not measured in the run",
    }  # fmt: skip
    rows, skipped = judge_regressions(Figures(both, energy, TOP1, {}), own, demanded=["energy_mj"])
    assert {row.metric: row.outcome for row in rows} == {"energy_mj": INCONCLUSIVE, "file_bytes": PASS}
    assert set(skipped) == {"sram_bytes"}


def test_own_limits_replace_the_default_ones() -> None:
    own = [RegressionLimit("latency_p50_ms", 0.5)]
    by_metric = {limit.metric: limit for limit in settle_limits(own, TOP1, 400)}
    assert by_metric["latency_p50_ms"] == own[0]
    assert set(by_metric) == set(DIRECTIONS)
    assert by_metric["quality"].floor == 0.25  # one of 400 inputs
    assert {limit.metric: limit for limit in settle_limits([], RMSE, 400)}["quality"].floor == 0


def test_a_figure_of_zero_is_held_by_its_floor() -> None:
    limit = RegressionLimit("sustained_slowdown", 0.0, 0.03)
    assert judge(limit, Figure(0.02, 0.01, 0.03), Figure(0.0, -0.01, 0.01)).outcome == INCONCLUSIVE
    row = judge(limit, Figure(0.02), Figure(0.0))
    assert (row.outcome, row.ratio, row.worse) == (PASS, None, 0.02)
    assert judge(limit, Figure(0.08, 0.07, 0.09), Figure(0.0, -0.01, 0.01)).outcome == FAIL


@given(st.floats(1, 100), st.floats(1, 100), st.floats(0.001, 0.9))
def test_the_interval_of_a_difference_holds_both_sides_doubt(new: float, old: float, share: float) -> None:
    row = judge(RegressionLimit("energy_mj", 0.05), Figure(new), Figure(old, old * (1 - share), old * (1 + share)))
    assert row.low is not None
    assert row.high is not None
    assert row.high - row.low == pytest.approx(2 * share, rel=1e-6)


@given(st.lists(st.tuples(limits, values, values), min_size=1, max_size=5, unique_by=lambda row: row[0].metric))
def test_what_is_not_compared_is_told_by_its_reason(rows: list[tuple[RegressionLimit, float, float]]) -> None:
    judged = [asdict(judge(limit, Figure(new), Figure(old))) for limit, new, old in rows]
    for row in judged:
        row["limit"] = {**row["limit"], "max_regression": round(row["limit"]["max_regression"], 3)}
    section = {
        "title": "against " * 20,
        "rows": judged,
        "not_compared": {"a": "not there", "b": "not there"},
        "notes": [],
    }
    assert "not compared: a, b: not there" in render_regressions(section)


def test_a_usual_table_fits_in_80_columns() -> None:
    ratio = StudentSpread(1.0513, 0.0733)
    rows = [asdict(judge(limit, Figure(24051.234), Figure(25150.1), ratio=ratio)) for limit in DEFAULT_LIMITS]
    section = {"title": "against baseline", "rows": rows, "not_compared": {}, "notes": ["a note " * 30]}
    assert max(map(len, render_regressions(section).splitlines())) <= 80


def test_each_metric_tells_its_unit() -> None:
    units = {metric: find_unit(metric) for metric in DIRECTIONS}
    assert units["latency_p50_ms"] == "ms"
    assert units["peak_memory_mib"] == "MiB"
    assert units["power_w"] == "W"
    assert [metric for metric, unit in units.items() if not unit] == [
        "sustained_slowdown", "parameters", "macs", "quality", "instructions",
    ]  # fmt: skip
    assert RegressionLimit("latency_p50_ms", 0.02, 0.001).describe() == "2 % or 0.001 ms worse at most"
    assert RegressionLimit("quality").describe() == "0 % worse at most"
