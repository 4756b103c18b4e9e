"""Pictures of figures over time."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

from edgeprune.core.measuring.trend import Change, Point, Trend
from edgeprune.extras import comes_with

with comes_with("report"):
    from matplotlib.axes import Axes
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 9.0, 2.8
"""A panel's size in inches."""
COLOUR, INVALID, CHANGE = "#0f7b6c", "#9a9a9a", "#b3541e"


def draw_trends(trends: Sequence[Trend], figure_name: str) -> Figure:
    """A panel for each trend: a dot a measurement with its interval, invalid ones hollow, change points as lines."""
    figure = Figure(figsize=(WIDTH, HEIGHT * len(trends) + 0.3), layout="constrained")
    for panel, trend in zip(figure.subplots(len(trends), 1, squeeze=False).flat, trends, strict=True):
        _draw_points(panel, trend)
        _draw_changes(panel, trend)
        panel.set_title(trend.title.replace("$", r"\$"), fontsize=9)
        panel.set_ylabel(figure_name)
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[1]:
            panel.legend(fontsize=7)
    return figure


def _draw_points(panel: Axes, trend: Trend) -> None:
    valid = [point for point in trend.points if point.valid]
    others = [point for point in trend.points if not point.valid]
    panel.plot([_day(point) for point in valid], [point.value for point in valid], ".-", color=COLOUR, linewidth=1)
    if others:
        times, values = [_day(point) for point in others], [point.value for point in others]
        panel.plot(times, values, "o", color=INVALID, fillstyle="none", label="not valid")
    for points, colour in ((valid, COLOUR), (others, INVALID)):
        bars = [
            (_day(point), point.low, point.high) for point in points if point.low is not None and point.high is not None
        ]
        if bars:
            panel.plot(*_join_bars(bars), color=colour, alpha=0.4, linewidth=3, solid_capstyle="butt")
    panel.xaxis.axis_date("UTC")
    locator = AutoDateLocator()
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _join_bars(bars: Sequence[tuple[float, float, float]]) -> tuple[list[float], list[float]]:
    """Bars from low to high as one line with gaps, which the axes make room for."""
    return [day for day, *_ in bars for _ in range(3)], [end for _, low, high in bars for end in (low, high, nan)]


def _day(point: Point | Change) -> float:
    """A time in UTC as matplotlib counts it, in days."""
    return float(date2num(point.at))


def _draw_changes(panel: Axes, trend: Trend) -> None:
    for change in trend.changes:
        label = f"{change.at:%Y-%m-%d %H:%M}: {change.describe()}"
        panel.axvline(_day(change), color=CHANGE, linestyle="--", linewidth=1, label=label)
