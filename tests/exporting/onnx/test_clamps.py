"""Clamps with stored bounds, as quantized and Gemma-like nets have them: exported with numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_nets import normal, traced
from torch import Tensor, nn

import edgeprune as ep
from edgeprune.core.quantizing.sqnr import measure_sqnr_db
from edgeprune.errors import ExportError
from edgeprune.exporting.onnx import export
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.runners import run_file


class Clamped(nn.Module):
    """Layers that clamp the same tensor by bounds of their own, `ends` numbers each."""

    def __init__(self, *ends: int, upper: float = 0.6) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 4) for _ in range(3))
        self.norm = nn.RMSNorm(6)
        self.register_buffer("low", torch.full(ends, -0.5))
        self.register_buffer("high", torch.full(ends, upper))
        self.low: Tensor
        self.high: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x) * 2
        return sum((layer(x.clamp(self.low, self.high)) for layer in self.layers), torch.zeros(()))


@pytest.mark.parametrize("net", [Clamped(), Clamped(upper=torch.inf), Clamped(6)], ids=["numbers", "open", "channels"])
def test_clamps_compute_the_same_in_a_file(net: nn.Module, tmp_path: Path) -> None:
    program = traced(net.eval(), torch.zeros(1, 6))
    targets = [str(node.target) for node in program.graph.nodes]
    export_onnx(program, torch.zeros(1, 6), tmp_path / "net.onnx")
    rows = normal(16, 6)
    wanted = program(torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_allclose(run_file(tmp_path / "net.onnx", rows), wanted, rtol=1e-4, atol=1e-5)
    assert [str(node.target) for node in program.graph.nodes] == targets
    assert all(node.op_type != "Identity" for node in onnx.load(tmp_path / "net.onnx").graph.node)


def test_the_exporter_still_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when torch's exporter is mended: `number_clamps` can go then."""
    monkeypatch.setattr(export, "number_clamps", lambda program: program)
    with pytest.raises(ExportError):
        export_onnx(traced(Clamped().eval(), torch.zeros(1, 6)), torch.zeros(1, 6), tmp_path / "net.onnx")


class Causal(nn.Module):
    """Attention with a mask of minus infinity, as language models store it."""

    def __init__(self, masked: float = -torch.inf) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.head = nn.Linear(8, 3)
        self.register_buffer("mask", torch.full((5, 5), masked).triu(1))
        self.mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 8**0.5 + self.mask
        return self.head(torch.relu(self.out(scores.softmax(-1) @ self.value(x))).mean(1))


@pytest.mark.parametrize("masked", [-torch.inf, torch.finfo(torch.float32).min, -1e9])
@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
def test_a_net_with_a_mask_of_infinity_is_pruned_and_exported(file_format: str, masked: float, tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")
    net = ep.trace(Causal(masked), torch.randn(2, 5, 8))
    pruned = ep.prune(net, ep.plan(net, ratio=0.5, step=2))
    assert pruned.parameters < net.parameters
    asked = {"calibration": [torch.randn(32, 5, 8)]}
    fp32, int8 = ep.export(pruned, tmp_path, (file_format,), ("fp32", "int8"), **asked)
    rows = normal(16, 5, 8)
    wanted = pruned.to_module()(torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_allclose(run_file(tmp_path / fp32.path, rows), wanted, rtol=1e-3, atol=1e-5)
    assert measure_sqnr_db(wanted, run_file(tmp_path / int8.path, rows)) > 20


def test_infinity_in_weights_or_statistics_is_still_told(tmp_path: Path) -> None:
    for name in ("0.weight", "1.running_var"):
        net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
        net.state_dict()[name].view(-1)[0] = torch.inf
        with pytest.raises(ExportError, match=f"NaN or infinity in {name}"):
            export_onnx(net, torch.zeros(1, 4), tmp_path / "net.onnx")
    net = Causal().eval()
    net.mask[0, 0] = torch.nan
    with pytest.raises(ExportError, match="NaN or infinity in mask"):
        export_onnx(net, torch.zeros(1, 5, 8), tmp_path / "net.onnx")
