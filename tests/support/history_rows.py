"""Rows of the history, each a measurement of its own."""

from __future__ import annotations

import hashlib
from typing import Any

from edgeprune.history.row import HistoryRow


def make_row(name: object, **columns: Any) -> HistoryRow:
    """A row whose key is that of its name."""
    key = hashlib.sha256(str(name).encode()).hexdigest()
    plain = {
        "created": "2026-11-21T10:00:00+00:00", "origin": "measured", "stage": "measure",
        "artifact": "pruned-onnx-fp32", "artifact_sha256": "a" * 64, "device": "0123456789abcdef",
        "runtime": "onnxruntime", "runtime_version": "1.0", "threads": 1, "valid": True, "latency_p50_ms": 1.5,
    }  # fmt: skip
    return HistoryRow(key=key, **plain | columns)
