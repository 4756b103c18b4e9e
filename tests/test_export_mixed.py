"""Mixed precision: the layers that matter stay in float, no more than needed, in both formats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_nets import normal, seeded, traced
from torch import nn

from edgeprune.core.latency import LatencyPoint, LatencyTable, TableKey
from edgeprune.core.sqnr import measure_sqnr_db
from edgeprune.errors import ExportError
from edgeprune.export.artifacts import ExportRequest, build_artifacts
from edgeprune.export.mixed import find_feeds
from edgeprune.export.onnx_layers import read_onnx_layers
from edgeprune.export.runners import RUNNERS
from edgeprune.export.weights import Node

SHAPE = (3, 8, 8)
FORMATS = ("onnx", "tflite")


class Uneven(nn.Module):
    """What its second layer gives cannot be held in 8 bits: one channel dwarfs the others, and the third undoes that.

    SiLU is not positively homogeneous, so that equalisation cannot help.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.back, self.last = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 8, 3, padding=1)
        with torch.no_grad():
            self.wide.weight[0] *= 3000
            self.back.weight[:, 0] /= 30000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.silu(self.wide(torch.relu(self.first(x))))
        return self.last(torch.relu(self.back(x))).flatten(1)


@pytest.fixture(scope="module")
def program() -> nn.Module:
    return traced(seeded(Uneven), torch.zeros(1, *SHAPE))


def request(directory: Path, file_format: str, limit_db: float) -> ExportRequest:
    """Files whose output must keep so many dB on other rows."""
    inputs, run = normal(32, *SHAPE, seed=5), RUNNERS[file_format]

    def accurate(path: Path) -> bool:
        wanted = run(directory / f"artifacts/pruned.fp32.{file_format}", inputs)
        return measure_sqnr_db(wanted, run(path, inputs)) >= limit_db

    precisions, rows = ("fp32", "int8", "mixed"), [normal(96, *SHAPE)]
    return ExportRequest(directory, "pruned", (file_format,), precisions, rows, accurate=accurate)


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_cannot_be_quantized_stays_in_float(program: nn.Module, file_format: str, tmp_path: Path) -> None:
    if file_format == "tflite":
        pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")
    example = torch.zeros(1, *SHAPE)
    fp32, int8, mixed = build_artifacts(program, example, request(tmp_path, file_format, 25.0))
    inputs, run = normal(32, *SHAPE, seed=6), RUNNERS[file_format]
    wanted, plain, found = (run(tmp_path / one.path, inputs) for one in (fp32, int8, mixed))
    assert measure_sqnr_db(wanted, plain) < 15
    assert measure_sqnr_db(wanted, found) > 24
    assert "of 4 layers in float" in mixed.scheme
    if file_format == "onnx":
        quantized = {one.name for one in onnx.load(tmp_path / mixed.path).graph.initializer}
        assert "wide.weight_quantized" not in quantized
        assert "wide" in mixed.scheme.partition("in float: ")[2]
        assert {"first.weight_quantized", "last.weight_quantized"} & quantized


def test_what_no_layer_in_int8_can_reach_is_refused(program: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no layer may be int8.*ship fp32"):
        build_artifacts(program, torch.zeros(1, *SHAPE), request(tmp_path, "onnx", 250.0))


def test_layers_that_are_faster_in_float_stay_in_float(program: nn.Module, tmp_path: Path) -> None:
    example = torch.zeros(1, *SHAPE)
    plain = ExportRequest(tmp_path, "pruned", ("onnx",), ("fp32",))
    (source,) = build_artifacts(program, example, plain)
    shapes = dict.fromkeys(read_onnx_layers(tmp_path / source.path))

    def table(precision: str, latency_ms: float) -> LatencyTable:
        points = tuple(LatencyPoint(one, latency_ms, latency_ms, latency_ms) for one in shapes)
        return LatencyTable(TableKey("device", "onnxruntime", "1", precision, 1), points)

    rows, fast_float = [normal(32, *SHAPE)], (table("fp32", 1.0), table("int8", 1.5))
    asked = ExportRequest(tmp_path / "int8", "pruned", ("onnx",), ("mixed",), rows, tables=fast_float[::-1])
    (mixed,) = build_artifacts(program, example, asked)
    assert "0 of 4 layers in float" in mixed.scheme
    with pytest.raises(ExportError, match="ship fp32"):
        build_artifacts(program, example, replace(asked, directory=tmp_path / "fp32", tables=fast_float))


def test_operators_follow_the_layers_that_feed_them() -> None:
    nodes = [
        Node("move", "Transpose", ["input"], ["moved"], None),
        Node("a", "Conv", ["moved", "w"], ["ya"], None),
        Node("b", "Conv", ["ya", "w"], ["yb"], None),
        Node("add", "Add", ["ya", "yb"], ["sum"], None),
        Node("relu", "Relu", ["sum"], ["out"], None),
        Node("c", "Gemm", ["out", "w"], ["yc"], None),
    ]
    feeds = find_feeds(nodes, ["a", "b", "c"])
    assert feeds.links == ((0, 1), (0, 2), (1, 2))
    assert set(feeds.named([True, False, False])) == {"move", "a"}
    assert set(feeds.named([True, True, False])) == {"move", "a", "b", "add", "relu"}
    assert set(feeds.named([False, False, True])) == {"c"}


def test_mixed_needs_rows_to_judge_by(program: nn.Module, tmp_path: Path) -> None:
    asked = ExportRequest(tmp_path, "pruned", ("onnx",), ("mixed",), [np.zeros((3, *SHAPE), np.float32)])
    with pytest.raises(ExportError, match="16 rows or more"):
        build_artifacts(program, torch.zeros(1, *SHAPE), asked)
