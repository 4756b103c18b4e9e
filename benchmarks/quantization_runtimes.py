"""The runtimes that benchmarks/quantization.py runs files in, and what files take here."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.core.measuring.measurement import Protocol
from edgeprune.core.target import Target
from edgeprune.device.agent.measure import measure_models
from edgeprune.device.board import ModelFile
from edgeprune.device.connect import open_device
from edgeprune.errors import EdgepruneError, ExportError
from edgeprune.exporting.files import sha256_of
from edgeprune.shipped import cache_dir

RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}
"""Format to the runtime that a deployment runs it in."""
PROTOCOL = Protocol(min_samples=100, min_duration_s=0.3, rounds=6)
LATENCY = ("p50_ms", "median_low_ms", "median_high_ms", "p95_ms", "mad_ms", "count")

Run = Callable[[Path, np.ndarray], np.ndarray]


def add_latency_(network: dict[str, Any], folder: Path) -> None:
    """Add to each file of a network what it takes on one thread, all measured in turns, as a deployment does it.

    Raises:
        ExportError: a file is not the one that was examined.
    """
    rows = [row for row in network["files"] if row["runtime"] in RUNTIMES.values()]
    for row in rows:
        if sha256_of(folder / row["path"]) != row["sha256"]:
            raise ExportError(f"{folder / row['path']}: not the file that was examined; examine the network again")
    models = [ModelFile(row["path"], folder / row["path"], row["sha256"], row["runtime"]) for row in rows]
    with open_device(Target("local", "this machine"), "local") as device:
        measurements = measure_models(device, models, 1, PROTOCOL, lambda text: None)
    for row in rows:
        measurement = measurements[row["path"]]
        summary = measurement.latency.to_dict()
        row["latency"] = {key: summary[key] for key in LATENCY} | {
            "runtime": f"{row['runtime']} {measurement.runtime_version}"
        }
        if measurement.problems:
            row["latency"]["problems"] = list(measurement.problems)
        print(f"  {row['path']}: {summary['p50_ms']:.4g} ms", flush=True)
    network["conditions"] = asdict(measurements[rows[0]["path"]].conditions) | {"protocol": asdict(PROTOCOL)}
    network["int8_speedup"] = _compare(rows)


def _compare(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How many times as fast int8 is as fp32, by format."""
    p50_ms = {(row["format"], row["precision"]): row["latency"]["p50_ms"] for row in rows}
    return {
        form: round(p50_ms[form, "fp32"] / ms, 2)
        for (form, precision), ms in p50_ms.items()
        if precision == "int8" and (form, "fp32") in p50_ms
    }


def other_runtimes() -> dict[str, Run]:
    """Runtimes of environments of their own, where they have been built."""
    place = cache_dir() / "runtimes"
    names = ("tflite-runtime", "tflite-micro") if (place / "ready").exists() else ()
    return {name: partial(_run_elsewhere, place, name) for name in names}


def _run_elsewhere(place: Path, name: str, path: Path, inputs: np.ndarray) -> np.ndarray:
    script = Path(__file__).parent.parent / "tests" / "support" / "run_elsewhere.py"
    with tempfile.TemporaryDirectory() as folder:
        inputs_path, outputs_path = Path(folder) / "inputs.npy", Path(folder) / "outputs.npy"
        np.save(inputs_path, inputs)
        command = [place / name / "bin" / "python", "-I", script, name, path, inputs_path, outputs_path]
        completed = subprocess.run(command, capture_output=True, text=True, check=False)
        if completed.returncode != 0:
            raise EdgepruneError(f"{name}: {completed.stderr.strip().splitlines()[-1]}")
        outputs: np.ndarray = np.load(outputs_path)
        return outputs
