"""The area under the curve, by hand and by what must hold of any."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_documents import ACCURACY, RMSE, FinishedRun

from edgeprune.core.choosing.area import area_under_curve, measure_area, quality_retained
from edgeprune.core.choosing.points import Point, read_point
from edgeprune.core.metric import parse_metric

PLACES = st.lists(st.tuples(st.floats(0.5, 8), st.floats(0, 1)), max_size=6)


@pytest.mark.parametrize(
    ("places", "area"),
    [
        ([], 0.0),
        ([(4.0, 1.0)], 1.0),
        ([(8.0, 1.0)], 1.0),
        ([(2.0, 1.0)], 0.5),
        ([(0.5, 1.0)], 0.0),
        ([(2.0, 1.0), (4.0, 0.5)], 0.75),
        ([(2.0, 0.5), (4.0, 0.9)], 0.9),
        ([(3.0, 0.8)], 0.8 * log(3) / log(4)),
    ],
)
def test_areas_by_hand(places: list[tuple[float, float]], area: float) -> None:
    assert area_under_curve(places) == pytest.approx(area)


@given(PLACES, st.tuples(st.floats(0.5, 8), st.floats(0, 1)), st.randoms())
def test_one_more_run_never_makes_it_smaller(
    places: list[tuple[float, float]], more: tuple[float, float], random: object
) -> None:
    area = area_under_curve(places)
    assert 0 <= area <= 1 + 1e-12
    mixed = [*places, more]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert area_under_curve(mixed) >= area - 1e-12
    assert area_under_curve(mixed) == pytest.approx(area_under_curve([*places, more]))


@pytest.mark.parametrize(
    ("quality", "original", "metric", "share"),
    [
        (90.0, 100.0, ACCURACY, 0.9),
        (101.0, 100.0, ACCURACY, 1.0),
        (1.0, 0.0, ACCURACY, None),
        (-0.1, 0.5, ACCURACY, None),
        (2.0, 1.0, RMSE, 0.5),
        (0.5, 1.0, RMSE, 1.0),
        (0.0, 0.0, RMSE, 1.0),
        (1.0, 0.0, RMSE, 0.0),
        (-1.0, 1.0, RMSE, None),
    ],
)
def test_the_share_of_quality_that_is_left(
    quality: float, original: float, metric: dict[str, str], share: float | None
) -> None:
    assert quality_retained(quality, original, parse_metric(metric)) == share


def make_curve(metric: dict[str, str] = ACCURACY, low: float | None = None, high: float | None = None) -> list[Point]:
    points = []
    for speedup, quality in ((2.0, 96.0), (4.0, 48.0)):
        report = FinishedRun(1 / speedup, quality, metric=metric, spread=0.0).report()
        report["result"] |= {"quality_low": low, "quality_high": high}
        points.append(read_point(f"{speedup}", report))
    return points


def test_the_area_of_runs_counts_failed_ones_and_no_invalid_ones() -> None:
    first, second = make_curve()
    area, _ = measure_area([first, second])
    assert area is not None
    assert (area.value, area.low, area.high) == pytest.approx((0.75, 0.75, 0.75))
    failed, _ = measure_area([first, replace(second, verdict="fail")])
    assert failed == area
    none, reason = measure_area([first, replace(second, problems=("throttled",))])
    assert (none, "needs 2" in reason) == (None, True)
    assert measure_area([])[0] is None
    assert "settings" in measure_area([first, read_point("b", FinishedRun(0.25, threads=2).report())])[1]


@pytest.mark.parametrize("metric", [ACCURACY, RMSE])
def test_the_interval_of_an_area_holds_it(metric: dict[str, str]) -> None:
    area, _ = measure_area(make_curve(metric, low=40.0, high=200.0))
    assert area is not None
    assert area.low < area.value <= area.high
    if metric is RMSE:
        assert area.low == pytest.approx(96 / 200)


def test_a_metric_without_a_share_has_no_area() -> None:
    points = [replace(point, original_quality=0.0) for point in make_curve()]
    assert "no share" in measure_area(points)[1]
