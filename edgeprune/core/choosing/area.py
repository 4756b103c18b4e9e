"""The area under the curve of quality over speed-up: one number for how well a method prunes, on any net and device."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

from edgeprune.core.choosing.points import FAILED, Interval, Point
from edgeprune.core.metric import HIGHER, Metric

MOST_SPEEDUP = 4.0
"""The end of the axis of speed-ups, which begins at 1; a faster net counts as one of this."""
LEAST_POINTS = 2
"""Fewer budgets make no curve."""


def quality_retained(quality: float, original: float, metric: Metric) -> float | None:
    """The share of the original's quality that is left, 0 to 1: the value by the original's, or where lower is better
    the original's by the value. None where there is no such share: a value is negative, or the original's is 0 and
    higher is better.
    """
    if min(quality, original) < 0:
        return None
    if metric.better == HIGHER:
        return min(1.0, quality / original) if original > 0 else None
    return 1.0 if quality <= original else original / quality


def area_under_curve(places: Sequence[tuple[float, float]]) -> float:
    """The area, 0 to 1, of (speed-up, quality retained) points, with the unpruned net at (1, 1).

    What a speed-up has to offer is the most quality retained of all points that are at least as fast: a step function,
    so that nothing is read between measured points, and none where none is as fast. It is integrated over the logarithm
    of the speed-up from 1 to MOST_SPEEDUP and divided by the logarithm of MOST_SPEEDUP: the hypervolume of the points
    (Zitzler and Thiele 1998) with the reference point (1, 0).
    """
    inside = sorted((min(max(speedup, 1.0), MOST_SPEEDUP), retained) for speedup, retained in places)
    area, begin = 0.0, 1.0
    for index, (speedup, _) in enumerate(inside):
        area += log(speedup / begin) * max(retained for _, retained in inside[index:])
        begin = speedup
    return area / log(MOST_SPEEDUP)


def measure_area(points: Sequence[Point]) -> tuple[Interval | None, str]:
    """The area of runs of one net, each at another budget, or why there is none.

    Every valid measured point counts, whatever gates said of it. The interval is the area of all worse and of all
    better ends of the points' own intervals: wider than 95 %.
    """
    counted = [point for point in points if point.exclusion in ("", FAILED)]
    if len(counted) < LEAST_POINTS:
        return None, f"needs {LEAST_POINTS} valid measured runs at different budgets"
    if len({point.setting for point in counted}) > 1:
        return None, "the runs were measured in different settings"
    areas = []
    for end in ("value", "worse", "better"):
        places = [place for point in counted if (place := _place(point, end)) is not None]
        if len(places) < len(counted):
            return None, "the metric has no share of the original's quality"
        areas.append(area_under_curve(places))
    value, low, high = areas
    return Interval(value, min(low, value), max(high, value)), ""


def _place(point: Point, end: str) -> tuple[float, float] | None:
    """The speed-up and the quality retained, by the figures, or by the worse or the better ends of their intervals."""
    if not (point.setting and point.speedup and point.quality) or point.original_quality is None:
        return None
    metric = point.setting.metric
    ends = {"value": ("value", "value"), "worse": ("low", "low"), "better": ("high", "high")}[end]
    if metric.better != HIGHER and end != "value":
        ends = (ends[0], "high" if end == "worse" else "low")
    retained = quality_retained(getattr(point.quality, ends[1]), point.original_quality, metric)
    return None if retained is None else (getattr(point.speedup, ends[0]), retained)
