"""Nets whose quantized TFLite files hold their weights behind the tree of objects: those above 256 KiB."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from export_nets import normal
from torch import nn

from edgeprune.core.quantizing.sqnr import measure_sqnr_db
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.checks import run_torch
from edgeprune.exporting.metadata import read_metadata
from edgeprune.exporting.request import ExportRequest
from edgeprune.exporting.runners import run_file
from edgeprune.graph.trace import trace_model

pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")


def test_large_files_keep_their_weights_when_metadata_are_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 800), nn.ReLU(), nn.Linear(800, 800), nn.ReLU(), nn.Linear(800, 4))
    program = trace_model(net, torch.zeros(1, 16))
    inputs = normal(32, 16, seed=3)
    request = ExportRequest(tmp_path, "pruned", ("tflite",), ("fp16", "int8"), [inputs])
    wanted = run_torch(program, inputs)
    for artifact in build_artifacts(program, torch.zeros(1, 16), request):
        path = tmp_path / artifact.path
        assert artifact.bytes > 640_000
        assert measure_sqnr_db(wanted, run_file(path, inputs)) > 25
        assert read_metadata(path)["precision"] == artifact.precision
