"""Trends out of rows: what belongs together over time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from edgeprune.core.measuring.trend import Point, Trend
from edgeprune.core.text import make_printable
from edgeprune.history.row import HistoryRow

SAME = ("recipe", "target", "artifact", "stage", "device", "runtime", "threads")
"""Columns whose figures are of one series only if they agree."""
INTERVALS = {"latency_p50_ms": ("latency_low_ms", "latency_high_ms"), "speedup": ("speedup_low", "speedup_high")}
"""Columns that hold the ends of a figure's interval."""


def find_trends(rows: Sequence[HistoryRow], metric: str) -> list[Trend]:
    """A trend for each series that has the figure, the longest first; `metric` is one of METRICS, rows are in order."""
    series: dict[tuple[object, ...], list[HistoryRow]] = {}
    for row in rows:
        if getattr(row, metric) is not None:
            series.setdefault(tuple(getattr(row, name) for name in SAME), []).append(row)
    trends = [Trend(_name(members[0]), tuple(_point(row, metric) for row in members)) for members in series.values()]
    return sorted(trends, key=lambda trend: -len(trend.points))


def _name(row: HistoryRow) -> str:
    parts = (row.recipe, row.target, row.artifact, f"{row.runtime}, {row.threads} thread(s)", f"stage {row.stage}")
    return make_printable(" | ".join(part for part in (*parts, f"{row.host or ''} {row.device}".strip()) if part))


def _point(row: HistoryRow, metric: str) -> Point:
    value = float(getattr(row, metric))
    at = datetime.fromisoformat(row.created).astimezone(UTC)
    low, high = (
        (getattr(row, name) for name in INTERVALS.get(metric, ("", ""))) if metric in INTERVALS else (None, None)
    )
    if metric == "energy_mj" and row.energy_uncertainty_mj is not None:
        low, high = value - row.energy_uncertainty_mj, value + row.energy_uncertainty_mj
    return Point(at, value, low, high, row.valid)
