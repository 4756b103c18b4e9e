"""One measurement as the history holds it: a row, its columns with their units. Imports nothing heavy."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

JSON_COLUMNS = ("problems", "conditions")


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """One measurement of one file on one device; None is what nothing tells.

    `created` is UTC in ISO 8601; `device` a fingerprint; `stage` is "measure", "confirm" or "gate" of a run, "sweep" of
    several, or "file" of a ready file; `problems` is a JSON list, `conditions` a JSON object. docs/history.md explains
    each column.
    """

    key: str
    created: str
    origin: str
    stage: str
    artifact: str
    artifact_sha256: str
    device: str
    runtime: str
    runtime_version: str
    threads: int
    valid: bool
    problems: str = "[]"
    conditions: str = "{}"
    samples: int = 0
    precision: str | None = None
    host: str | None = None
    cpu: str | None = None
    target: str | None = None
    recipe: str | None = None
    recipe_sha256: str | None = None
    model_sha256: str | None = None
    plan_sha256: str | None = None
    edgeprune: str | None = None
    run: str | None = None
    verdict: str | None = None
    shipped: bool | None = None
    metric: str | None = None
    quality: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    latency_p50_ms: float | None = None
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    init_ms: float | None = None
    first_ms: float | None = None
    energy_mj: float | None = None
    energy_uncertainty_mj: float | None = None
    power_w: float | None = None
    peak_memory_mib: float | None = None
    file_bytes: int | None = None
    instructions: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with problems and conditions as what they are."""
        return {name: json.loads(value) if name in JSON_COLUMNS else value for name, value in asdict(self).items()}


COLUMNS = tuple(column.name for column in fields(HistoryRow))
KINDS: dict[str, str] = {column.name: str(column.type).removesuffix(" | None") for column in fields(HistoryRow)}
"""The Python type of each column, by name: "str", "int", "float" or "bool"."""
METRICS = (
    *("latency_p50_ms", "latency_p90_ms", "latency_p95_ms", "latency_p99_ms", "init_ms", "first_ms", "energy_mj"),
    *("power_w", "peak_memory_mib", "file_bytes", "quality", "speedup", "instructions"),
)
"""Columns that can be drawn over time."""
