"""The tables of the history, and how an older file of it becomes one of today: forward, one script a version."""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x45505248
"""Of an SQLite file that is a history: "EPRH" (https://sqlite.org/fileformat.html, offset 68)."""

Migrations = tuple[tuple[str, ...], ...]

FIRST = """
CREATE TABLE measurements (
    key TEXT PRIMARY KEY NOT NULL,
    created TEXT NOT NULL,
    origin TEXT NOT NULL,
    stage TEXT NOT NULL,
    artifact TEXT NOT NULL,
    artifact_sha256 TEXT NOT NULL,
    device TEXT NOT NULL,
    runtime TEXT NOT NULL,
    runtime_version TEXT NOT NULL,
    threads INTEGER NOT NULL,
    valid INTEGER NOT NULL,
    problems TEXT NOT NULL,
    conditions TEXT NOT NULL,
    samples INTEGER NOT NULL,
    precision TEXT,
    host TEXT,
    cpu TEXT,
    target TEXT,
    recipe TEXT,
    recipe_sha256 TEXT,
    model_sha256 TEXT,
    plan_sha256 TEXT,
    edgeprune TEXT,
    run TEXT,
    verdict TEXT,
    shipped INTEGER,
    metric TEXT,
    quality REAL,
    speedup REAL,
    speedup_low REAL,
    speedup_high REAL,
    latency_p50_ms REAL,
    latency_low_ms REAL,
    latency_high_ms REAL,
    latency_p90_ms REAL,
    latency_p95_ms REAL,
    latency_p99_ms REAL,
    init_ms REAL,
    first_ms REAL,
    energy_mj REAL,
    energy_uncertainty_mj REAL,
    power_w REAL,
    peak_memory_mib REAL,
    file_bytes INTEGER
)
"""

MIGRATIONS: Migrations = (
    (FIRST, "CREATE INDEX by_time ON measurements (created, key)"),
    ("ALTER TABLE measurements ADD COLUMN instructions REAL",),
)
"""Statements that lead from each version to the next, beginning with an empty file; one that was released is never
changed. The version of a file is its `PRAGMA user_version`."""
