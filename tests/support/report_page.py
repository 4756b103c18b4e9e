"""Documents that a report's page is made from, as a finished run leaves them, with names that would break a page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgeprune.core.measuring.measurement import Conditions, Measurement
from edgeprune.core.measuring.windows import Window
from edgeprune.report.page import Evidence

EVIL = "<script>alert('&\"')</script>"
PROCESSES, WINDOWS, RUNS = 4, 3, 20
FRONT = {
    "origin": "predicted from measured layers",
    "front": [{"latency_ms": ms, "loss_increase": (1 - ms) / 10} for ms in (1.0, 0.7, 0.4, 0.2)],
    "chosen": {"latency_ms": 0.5, "loss_increase": 0.05},
}


def make_measurement(
    name: str, p50_ms: float, *, first_s: float = 100.0, conditions: Conditions | None = None
) -> Measurement:
    """Four processes of three windows each, a tenth of a second apart; latency rises by 6 % from first to last."""
    random, windows, samples = np.random.default_rng(len(name)), [], []
    for number in range(PROCESSES * WINDOWS):
        rise = 1 + 0.06 * number / (PROCESSES * WINDOWS - 1)
        values = p50_ms * rise * random.normal(1, 0.002, RUNS)
        samples += values.tolist()
        waited = 0.5 if number == 4 else 0.01
        at_s = first_s + 0.1 * number
        windows.append(Window(number // WINDOWS, at_s, float(np.median(values)), RUNS, 20.0, 1.0, waited))
    return Measurement(
        name, "0" * 64, "onnxruntime", "1.31", "aa", conditions or Conditions(1, cores=4), 3.0, 2.0, 9, tuple(samples),
        50.0, windows=tuple(windows),
    )  # fmt: skip


def make_evidence(**conditions: Any) -> Evidence:
    """Both files of a run under the same conditions."""
    known: dict[str, Any] = {
        "arithmetic_us": (20.0, 20.1, 20.4, 20.8),
        "temperature_c": (50.0, 55.0, 58.5),
        "frequency_mhz": (1500.0, 1500.0, 1500.0),
        **conditions,
    }
    both = replace(Conditions(1, cores=4), **known)
    return Evidence(
        before=make_measurement("before", 1.0, conditions=both),
        after=make_measurement("after", 0.5, first_s=100.05, conditions=both),
        front=FRONT,
        explanation=make_explanation(),
    )


def make_figures(measurement: Measurement, **changes: Any) -> dict[str, Any]:
    """The part of a report that is about one file."""
    return {
        "artifact": f"artifacts/{measurement.artifact}.onnx",
        "quality": 91.25,
        "quality_samples": 400,
        "latency": measurement.latency.to_dict(),
        "init_ms": 3.0,
        "first_ms": 2.0,
        "file_bytes": 20_000,
        "peak_memory_mib": None,
        "parameters": 5_000,
        "macs": 100_000,
        "activation_bytes": 4_000,
        "predicted_ms": 0.5,
        "energy_mj": None,
        "power": "no power sensor",
        "energy": None,
        "inputs": {"x": [1, 3, 640, 480], "h": [1]},
        "processor": {"waited_share": 0.02, "windows": 12, "disturbed_windows": 1},
        "origin": "measured",
        "problems": [],
        **changes,
    }


def make_artifact(role: str, precision: str, ms: float, quality: float | None, **changes: Any) -> dict[str, Any]:
    """A row of a report's artifacts."""
    latency = {"p50_ms": ms, "p95_ms": 1.1 * ms, "median_low_ms": 0.99 * ms, "median_high_ms": 1.01 * ms}
    return {
        "path": f"artifacts/{role}.{precision}.onnx",
        "sha256": "1" * 64,
        "format": "onnx",
        "precision": precision,
        "bytes": 1000,
        "role": role,
        "scheme": "a scheme",
        "shipped": False,
        "quality": quality,
        "latency": latency,
        "origin": "measured",
        "problems": [],
        **changes,
    }


def make_group(name: str, size: int, keep: int, loss: float, reason: str, **changes: Any) -> dict[str, Any]:
    row = {"group": name, "size": size, "keep": list(range(keep)), "loss_increase": loss, "reason": reason}
    return {**row, "kind": "channels", "gone_with": "", **changes}


GROUPS = [
    make_group(EVIL, 64, 3, 0.01, f"saves 0.1 ms; {EVIL}"),
    make_group("inner", 16, 1, 0.0, "gone with b", gone_with="b"),
    make_group("b", 1, 0, 0.02, "cut to its shortcut", kind="branch"),
    make_group("stem", 8, 8, 0.0, "whole"),
]


def make_report(evidence: Evidence, **changes: Any) -> dict[str, Any]:
    """A report that failed one gate of three and knows nothing of another."""
    before = make_figures(evidence.before, macs=200_000, parameters=10_000, file_bytes=50_000, quality=92.0)
    return {
        "version": 2,
        "edgeprune": "0.1.0",
        "created": "2026-11-21T00:00:00+00:00",
        "verdict": "fail",
        "gates": [
            {"gate": "speedup at_least 2", "outcome": "fail", "value": 1.9, "reason": "1.9 is not >= 2"},
            {"gate": "energy_mj at_most 1", "outcome": "inconclusive", "value": None, "reason": "not measured"},
            {"gate": f"quality {EVIL}", "outcome": "pass", "value": 91.25, "reason": "91.25 >= 90"},
        ],
        "judged_by": "target rpi4",
        "target": "rpi4",
        "recipe": EVIL,
        "metric": {"name": "top-1 accuracy", "better": "higher", "unit": "%"},
        "runtime": "onnxruntime 1.31.1",
        "baseline": before,
        "result": make_figures(evidence.after),
        "budget": {"latency_ms": 0.5, "asked_confidence": None},
        "predicted": {
            "latency_ms": 0.5,
            "tries": [{"predicted_ms": 0.45, "measured_ms": 0.6, "share_of_budget": 1.2, "loss_increase": 0.03}],
        },
        "speedup": 1.9,
        "speedup_interval": [1.85, 1.95],
        "artifacts": [
            make_artifact("original", "fp32", 1.0, 92.0),
            make_artifact("pruned", "fp32", 0.5, 91.25, shipped=True),
            make_artifact("pruned", "int8", 0.3, None),
            *(make_artifact("original", f"part{number}", 1.0, None, latency=None) for number in range(9)),
        ],
        "device": {"host": EVIL, "cpu": "Cortex-A72", "machine": "aarch64", "fingerprint": "aa", "cpu_flags": ["neon"]},
        "conditions": evidence.after.conditions.__dict__,
        "plan": {"loss_increase": 0.05, "model_sha256": "e" * 64, "groups": GROUPS},
        "parity": [
            {"link": f"torch -> {EVIL}", "max_error": 1e-6, "sqnr_db": 120.0, "top1_agreement": None, "ok": True},
            {"link": "onnx fp32 -> onnx int8", "max_error": 9.0, "sqnr_db": 3.0, "top1_agreement": 0.5, "ok": False,
             "tolerance": "SQNR >= 20 dB", "collapse": "channel 3 of 9"},
        ],
        "provenance": {"request": {"target": "rpi4", "recipe": "my net.py", "allow_busy": True, "threads": None}},
        "notes": [f"a note of {EVIL}"],
        **changes,
    }  # fmt: skip


def make_explanation() -> dict[str, Any]:
    """An explanation (docs/explain.md) of two layers and three classes."""
    return {
        "plan": {
            "origin": "measured",
            "layers": [
                make_layer(EVIL, "conv 3x3 3->64", "conv 3x3 3->3", 0.6),
                make_layer("head", "linear 64->3", "gone", 0.0),
            ],
            "groups": [{"group": EVIL, "bound": "8 channels would exceed the limit on latency", "gain_per_ms": 0.5}],
        },
        "waterfall": {
            "basis": f"{EVIL}: Cortex-A72, onnxruntime, 1 thread(s), p50",
            "valid": True,
            "steps": [
                make_step("unpruned", "level", 1.0, 1.0),
                make_step("macs", "change", -0.5, 0.5),
                make_step("layer_overhead", "change", 0.1, 0.6),
                make_step("pruned", "level", 0.6, 0.6),
            ],
        },
        "warnings": [
            {"kind": "few_channels", "where": EVIL, "text": f"{EVIL} keeps 3 of 64", "value": 3, "threshold": 16}
        ],
        "missing": {},
        "outputs": {
            "before": "a.onnx",
            "after": "b.onnx",
            "runtime": "onnxruntime",
            "machine": "this machine",
            "note": "",
        },
        "classes": {
            "inputs": 30,
            "labels": ["cat", EVIL, "dog"],
            "count": [10, 10, 10],
            "correct_before": [10, 9, 10],
            "correct_after": [10, 7, 10],
            "confusion_before": [[10, 0, 0], [1, 9, 0], [0, 0, 10]],
            "confusion_after": [[10, 0, 0], [3, 7, 0], [0, 0, 10]],
            "lost_most": [{"label": EVIL, "points": -20.0, "chance": 0.01}],
            "confused_more": [],
        },
        "errors": None,
        "robustness": {
            "inputs": 30,
            "metric": {"name": "top-1 accuracy", "better": "higher", "unit": "%"},
            "rows": [
                {"corruption": "none", "severity": 0, "before": 92.0, "after": 91.0, "drop": 1.0, "chance": 1.0},
                {"corruption": "noise", "severity": 3, "before": 80.0, "after": 60.0, "drop": 20.0, "chance": 0.01},
            ],
        },
    }


def make_layer(name: str, before: str, after: str, ms_after: float) -> dict[str, Any]:
    counts = {"macs_before": 100, "macs_after": 50, "weight_bytes_before": 400, "weight_bytes_after": 200}
    shapes = {"shape_before": before, "shape_after": after}
    return {"layer": name, "groups": [name], **shapes, **counts, "ms_before": 0.9, "ms_after": ms_after}


def make_step(name: str, kind: str, ms: float, after_ms: float) -> dict[str, Any]:
    return {"name": name, "kind": kind, "ms": ms, "after_ms": after_ms, "origin": "measured", "text": f"about {name}"}
