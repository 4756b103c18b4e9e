"""Report documents as finished runs leave them, with the figures that a test is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ACCURACY = {"name": "top-1 accuracy", "better": "higher", "unit": "%"}
RMSE = {"name": "RMSE", "better": "lower", "unit": "K"}


def make_figures(p50_ms: float, quality: float | None, spread: float = 0.01, **changes: Any) -> dict[str, Any]:
    """Figures of one file; the interval of its median is `spread` to each side, as a fraction."""
    latency = {
        "count": 200,
        "min_ms": 0.9 * p50_ms,
        "p50_ms": p50_ms,
        "p90_ms": 1.1 * p50_ms,
        "p95_ms": 1.2 * p50_ms,
        "p99_ms": 1.4 * p50_ms,
        "mad_ms": 0.01 * p50_ms,
        "median_low_ms": (1 - spread) * p50_ms,
        "median_high_ms": (1 + spread) * p50_ms,
    }
    figures = {
        "artifact": "artifacts/pruned.fp32.onnx",
        "quality": quality,
        "quality_samples": 300,
        "latency": latency,
        "init_ms": 3.0,
        "first_ms": 2.0,
        "file_bytes": 20_000,
        "peak_memory_mib": 30.0,
        "parameters": 5_000,
        "macs": 100_000,
        "activation_bytes": 4_000,
        "energy": None,
        "energy_mj": None,
        "power": "no power sensor",
        "inputs": {"x": [1, 1, 16, 16]},
        "origin": "measured",
        "problems": [],
    }
    return {**figures, **changes}


@dataclass(frozen=True)
class FinishedRun:
    """What a test is about of a finished run whose unpruned net takes 1 ms; `spread` as :func:`make_figures` has it."""

    p50_ms: float = 0.5
    quality: float | None = 95.0
    original: float | None = 96.0
    metric: Mapping[str, str] = field(default_factory=lambda: ACCURACY)
    verdict: str = "pass"
    problems: Sequence[str] = ()
    speedup_budget: float = 2.0
    spread: float = 0.01
    sha256: str = "b" * 64
    threads: int = 1
    runtime: str = "onnxruntime 1.31"
    device: str = "aa"
    accurate: bool | None = True

    def report(self) -> dict[str, Any]:
        """Its `report.json`."""
        return {
            "version": 2,
            "edgeprune": "0",
            "created": "2026-11-21T00:00:00+00:00",
            "verdict": self.verdict,
            "target": "local",
            "recipe": "mine",
            "runtime": self.runtime,
            "metric": dict(self.metric),
            "baseline": make_figures(
                1.0,
                self.original,
                artifact="artifacts/original.fp32.onnx",
                file_bytes=80_000,
                parameters=20_000,
                macs=400_000,
            ),
            "result": make_figures(self.p50_ms, self.quality, self.spread, problems=list(self.problems)),
            "budget": {
                "latency_ms": 1 / self.speedup_budget,
                "asked_speedup": self.speedup_budget,
                "asked_latency_ms": None,
            },
            "speedup": 1 / self.p50_ms,
            "speedup_interval": [(1 - self.spread) / self.p50_ms, (1 + self.spread) / self.p50_ms],
            "artifacts": self._artifacts(),
            "device": {
                "host": "desk", "cpu": "a CPU", "machine": "aarch64", "os": "Linux", "fingerprint": self.device
            },
            "conditions": {"threads": self.threads, "affinity": [0], "governor": "", "temperature_c": [40.0, 41.0]},
            "plan": {"groups": [{"group": "conv1", "size": 8, "keep": [0, 1, 2]}]},
            "gates": [],
            "notes": [],
        }  # fmt: skip

    def _artifacts(self) -> list[dict[str, Any]]:
        file = {"format": "onnx", "precision": "fp32"}
        shipped = {"sha256": self.sha256, **file, "shipped": True, "accurate": self.accurate}
        return [
            {"path": "artifacts/original.fp32.onnx", "sha256": "a" * 64, **file},
            {"path": "artifacts/pruned.fp32.onnx", **shipped},
        ]
