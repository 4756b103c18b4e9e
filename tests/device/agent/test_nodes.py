"""What each layer takes, as the runtime's profiler tells it: nodes found again under the names that it gives them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from device_models import ignore, make_model
from edgeprune_agent.runtime_onnxruntime import gather_nodes
from export_nets import OddNet, TinyViT, seeded, traced

from edgeprune.core.latency.breakdown import OTHERS, LayerTime, NodeTime, break_down, render_breakdown
from edgeprune.core.latency.correction import Correction
from edgeprune.core.latency.layers import Extent, Layer, LayerShape, find_joins
from edgeprune.core.latency.table import LatencyPoint, LatencyTable, TableKey
from edgeprune.core.target import Target
from edgeprune.device.agent.nodes import profile_nodes
from edgeprune.device.board import ModelFile
from edgeprune.device.connect import Device, open_device
from edgeprune.errors import DeviceError
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.onnx.nodes import sort_nodes
from edgeprune.exporting.onnx.quantize import choose_onnx_scheme, quantize_onnx
from edgeprune.graph.groups import find_groups
from edgeprune.graph.trace import trace_model

COMPUTE = ("Conv", "FusedConv", "QLinearConv", "Gemm", "FusedGemm", "QGemm", "MatMul", "FusedMatMul")


@pytest.fixture
def device(no_devices: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr("edgeprune.device.agent.nodes.SECONDS", 0.05)
    with open_device(Target("local", "this machine"), None) as device:
        yield device


@pytest.mark.parametrize(
    ("net", "precision"), [(OddNet, "fp32"), (OddNet, "int8"), (TinyViT, "fp32")], ids=["cnn", "cnn-int8", "vit"]
)
def test_each_layer_finds_its_node_whatever_the_runtime_calls_it(
    device: Device, tmp_path: Path, net: type[torch.nn.Module], precision: str
) -> None:
    example, path = torch.randn(1, 3, 16, 16), tmp_path / "net.onnx"
    made = seeded(net)
    layers = find_groups(trace_model(made, example)).layers
    export_onnx(traced(made, example), example, path)
    if precision == "int8":
        rows = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
        quantize_onnx(path, path, [rows], choose_onnx_scheme("unknown", ()))
    nodes = profile_nodes(device, ModelFile.of(path, "onnxruntime"), 1, ignore)
    found = sort_nodes(path, nodes, layers)
    computing = {
        layer.name: [one.operator for one in found.get(layer.name, []) if one.operator in COMPUTE] for layer in layers
    }
    assert all(len(operators) == 1 for operators in computing.values()), computing
    assert {one.operator for one in found[OTHERS]}.isdisjoint({"Conv", "FusedConv", "QLinearConv", "QGemm"})
    assert sum(map(len, found.values())) == len(nodes)


def test_a_runtime_that_runs_a_net_as_one_node_is_refused(device: Device, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="litert runs a net as one node"):
        profile_nodes(device, make_model(tmp_path, "litert"), 1, ignore)


def test_a_profile_is_gathered_by_node_and_what_disturbed_it_left_out() -> None:
    def event(name: str, us: int, kind: str = "Node") -> dict[str, object]:
        return {"cat": kind, "name": name, "dur": us, "args": {"op_name": "Conv"}}

    profile = [event("a_kernel_time", us) for us in (10, 11, 90, 12)]
    profile += [event("a_fence_before", 7), event("session_run", 400, "Session"), event("b_kernel_time", 3)]
    assert gather_nodes(profile) == [{"name": "a", "op": "Conv", "us": 10.5}, {"name": "b", "op": "Conv", "us": 3.0}]
    assert gather_nodes({"not": "a list"}) == []


def test_predictions_of_layers_add_up_to_that_of_the_net() -> None:
    def conv(name: str, cin: str | int, cout: str) -> Layer:
        ends = [Extent(one) if isinstance(one, int) else Extent(0, ((1, (one,)),)) for one in (cin, cout)]
        return Layer(name, LayerShape("conv", 8, 8, (3, 3), (1, 1), 1, (8, 8), (1, 1)), *ends)

    layers = [conv("first", 3, "a"), conv("second", "a", "b")]
    every, widths = [*layers, *find_joins(layers)], {"a": 8, "b": 8}
    points = [LatencyPoint(layer.at(widths), ms, ms, ms) for layer, ms in zip(every, (2.0, 3.0, -0.5), strict=True)]
    table = LatencyTable(TableKey("d", "onnxruntime", "1", "fp32", 1), tuple(points))
    correction = Correction(scale=0.9, offset_ms=0.2)
    nodes = {"first": [NodeTime("n0", "Conv", 1400.0)], OTHERS: [NodeTime("n1", "Reshape", 100.0)]}
    rows = break_down(every, widths, table, correction, nodes)
    assert [row.name for row in rows] == ["first", "second", OTHERS]
    net = table.predict_net([layer.at(widths) for layer in every], correction)
    assert sum(row.predicted_ms or 0 for row in rows) == pytest.approx(net.latency_ms)
    assert rows[0].off_ms == pytest.approx(0.9 * 2.0 - 0.5 - 1.4)
    assert rows[1] == LayerTime("second", "conv 3x3 8->8 @ 8x8", pytest.approx(2.7), None)
    text = render_breakdown(rows, 4.0)
    assert "off by most: others, predicted more than its nodes took by 2.5% of the net" in text
