"""Small models for the tests of devices."""

from __future__ import annotations

from pathlib import Path

from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.measuring.measurement import Protocol
from edgeprune.device.board import ModelFile
from edgeprune.exporting.probing.probes import build_probe

CONV = LayerShape("conv", 3, 8, (3, 3), (1, 1), 1, (16, 16), (1, 1))
LINEAR = LayerShape("linear", 24, 5)
FORMATS = {"onnxruntime": "onnx", "litert": "tflite"}
QUICK = Protocol(min_samples=20, min_duration_s=0.02, rounds=4, processes=2, max_warmup_s=0.1)


def make_model(folder: Path, runtime: str, shape: LayerShape = CONV, precision: str = "fp32") -> ModelFile:
    """One layer as a file; it is called by its runtime, precision and operator."""
    file_format = FORMATS[runtime]
    path = folder / f"{runtime}-{precision}-{shape.op}-{shape.cout}.{file_format}"
    path.write_bytes(build_probe(shape, file_format, precision))
    return ModelFile.of(path, runtime)


def ignore(text: str) -> None:
    """Progress that nobody looks at."""
