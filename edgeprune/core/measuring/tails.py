"""Percentiles of single runs in documents and tables: none exist where a sample is the mean of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TAILS = ("p90_ms", "p95_ms", "p99_ms")
NOT_TOLD = "p95 not told where a sample is the mean of several runs"


def tells_runs(row: Mapping[str, Any]) -> bool:
    """Whether the samples behind a row's figures are single runs, so that percentiles say something."""
    return int(row.get("runs_per_sample") or 1) == 1


def find_tail(row: Mapping[str, Any], name: str = "p95_ms") -> float | None:
    """A percentile of a row's latency; None where nothing was measured, or the samples are means of several runs."""
    latency = row.get("latency") or {}
    return latency.get(name) if tells_runs(row) else None


def show_ms(value: float | None) -> str:
    """A latency as a cell of a table."""
    return "-" if value is None else f"{value:.4g}"


def note_tails(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why rows have no percentiles, in a line of its own; none where all have."""
    return [NOT_TOLD] if any(row.get("latency") and not tells_runs(row) for row in rows) else []
