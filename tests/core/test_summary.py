"""The texts and pages that people read, made from a report document that is written down here."""

import re
from pathlib import Path
from typing import Any

import pytest

from edgeprune.core.summary import name_next, render_plan, render_result

LATENCY = {
    "count": 200,
    "min_ms": 0.9,
    "p50_ms": 1.25,
    "p90_ms": 1.4,
    "p95_ms": 1.5,
    "p99_ms": 2.0,
    "mad_ms": 0.02,
    "median_low_ms": 1.24,
    "median_high_ms": 1.26,
}
FIGURES = {
    "artifact": "artifacts/original.fp32.onnx",
    "quality": 91.25,
    "latency": LATENCY,
    "predicted_ms": None,
    "first_ms": 3.0,
    "init_ms": 20.0,
    "file_bytes": 2048,
    "peak_memory_mib": None,
    "parameters": 12345,
    "macs": 678900,
    "activation_bytes": 65536,
    "problems": [],
    "power": "no power sensor",
}

ARTIFACTS = [
    {
        "path": "a.onnx",
        "bytes": 1024,
        "scheme": "float32",
        "sha256": "0" * 64,
        "shipped": True,
        "accurate": False,
        "fastest": False,
    },
    {
        "path": "b.onnx",
        "bytes": 512,
        "scheme": "int8",
        "sha256": "1" * 64,
        "latency": LATENCY,
        "quality": 90.0,
        "accurate": True,
        "fastest": True,
    },
]


@pytest.fixture
def report() -> dict[str, Any]:
    return {
        "created": "2026-11-21T00:00:00+00:00",
        "verdict": "fail",
        "target": "rpi4",
        "metric": {"name": "top-1 accuracy", "better": "higher", "unit": "%"},
        "judged_by": "target rpi4",
        "recipe": "<mine>",
        "runtime": "onnxruntime 1.31.1",
        "baseline": FIGURES,
        "result": {**FIGURES, "artifact": "artifacts/pruned.int8.onnx", "predicted_ms": 0.7},
        "speedup": 1.9,
        "speedup_interval": [1.85, 1.95],
        "device": {"host": "board", "cpu": "Cortex-A72", "fingerprint": "aa"},
        "conditions": {"threads": 4, "governor": ""},
        "artifacts": [dict(row) for row in ARTIFACTS],
        "gates": [
            {"gate": "speedup at_least 2", "outcome": "fail", "value": 1.9, "reason": "1.9 is not >= 2"},
            {"gate": "energy_mj at_most 1", "outcome": "inconclusive", "value": None, "reason": "not measured"},
            {"gate": "accuracy_percent at_least 90", "outcome": "pass", "value": 91.25, "reason": "91.25 >= 90"},
        ],
        "plan": {
            "groups": [
                {
                    "group": "conv1",
                    "size": 64,
                    "keep": [0, 1, 2],
                    "loss_increase": 0.01,
                    "reason": "saves 0.1 ms",
                    "kind": "channels",
                }
            ],
            "predicted_ms": 0.7,
            "budget_ms": None,
            "loss_increase": 0.01,
            "gap": 0.0,
            "notes": [],
        },
        "parity": [
            {"link": "torch -> onnx", "max_error": 1e-6, "sqnr_db": 120.0, "top1_agreement": None},
        ],
        "notes": ["throttled: under-voltage"],
    }


def test_terminal_shows_both_sides_and_every_gate(report: dict[str, Any]) -> None:
    text = render_result(report)
    for words in (
        "before",
        "after",
        "91.25 %",
        "0.7 ms",
        "1.90",
        "1.85 to 1.95",
        "2.0 KiB",
        "verdict: fail",
        "under-voltage",
    ):
        assert words in text
    assert sum(line.startswith("gate ") for line in text.splitlines()) == 3
    assert max(map(len, text.splitlines())) < 140


def test_terminal_says_which_file_ships_and_which_would_be_the_fastest(report: dict[str, Any]) -> None:
    lines = render_result(report).splitlines()
    assert next(line for line in lines if line.startswith("a.onnx")).endswith("shipped, inaccurate")
    assert next(line for line in lines if line.startswith("b.onnx")).endswith("fastest")


def test_the_sizes_of_inputs_and_whose_the_processor_was_stand_with_the_figures(report: dict[str, Any]) -> None:
    processor = {"waited_share": 0.02, "disturbed_windows": 3, "windows": 64}
    report["result"] = {**report["result"], "inputs": {"x": [1, 3, 640, 480], "h": [1]}, "processor": processor}
    rows = [re.split(r"  +", line) for line in render_result(report).splitlines()]
    assert ["input sizes", "not told", "1x3x640x480, 1"] in rows
    assert ["had a core (windows disturbed)", "not told", "98.0 % (3 of 64)"] in rows


def test_a_percentile_that_nothing_tells_is_not_shown(report: dict[str, Any]) -> None:
    assert re.search(r"latency p95 +1\.5 ms", render_result(report))
    for row in (report["result"], report["baseline"], *(row for row in report["artifacts"] if "latency" in row)):
        row["latency"] = {**row["latency"], "p95_ms": None}
    text = render_result(report)
    assert re.search(r"latency p95 +not told +not told\n", text)
    assert re.search(r"latency p50 +1\.25 ms", text)
    assert text.count("p95 -: too few samples of single runs") == 1


def test_plan_says_what_was_cut(report: dict[str, Any]) -> None:
    assert "3 of 64" in render_plan(report["plan"])


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, "edgeprune release push --run 'a run' --activate"),
        (
            {"unit": "instructions", "target_runtime": "c"},
            "edgeprune export 'a run/artifacts/a.tflite' --format c --core cortex-m4 --output net-c",
        ),
        (
            {"unit": "instructions", "target_runtime": "tflm"},
            "edgeprune export 'a run/artifacts/a.tflite' --format tflm --output net-tflm",
        ),
    ],
)
def test_what_follows_a_run_that_passed(changes: dict[str, str], command: str) -> None:
    report = {"result": {"artifact": "artifacts/a.tflite"}, "device": {"cpu": "cortex-m4"}, **changes}
    assert name_next(report, Path("a run")) == command
