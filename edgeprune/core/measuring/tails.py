"""Why a table has no percentiles of single runs, said once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

NOT_TOLD = "p95 -: too few samples of single runs, or samples that are means of several (docs/measuring.md)"


def note_tails(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is said below a table of rows with a `latency`: nothing where each that was measured tells its p95."""
    latencies = (row.get("latency") for row in rows)
    return [NOT_TOLD] if any(latency and latency.get("p95_ms", 0.0) is None for latency in latencies) else []
