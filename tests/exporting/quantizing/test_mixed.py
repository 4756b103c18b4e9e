"""Mixed precision: the layers that matter stay in float, no more than needed, in both formats."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_nets import normal, seeded, traced
from torch import nn

from edgeprune.core.latency.layers import JOIN, LayerShape
from edgeprune.core.planning.mixed import MixedProblem, QuantizedLayer
from edgeprune.core.quantizing.sqnr import measure_sqnr_db
from edgeprune.errors import ExportError
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.onnx.exporters import static_onnx
from edgeprune.exporting.onnx.quantize import OnnxScheme
from edgeprune.exporting.parity.bisect import bisect_artifacts
from edgeprune.exporting.quantizing.feeds import find_feeds
from edgeprune.exporting.quantizing.mixed import Wishes, find_choice
from edgeprune.exporting.quantizing.observe import observe_extremes
from edgeprune.exporting.quantizing.prices import NetShapes, Pricer, Prices, pose_problem
from edgeprune.exporting.quantizing.weights import Node, read_layers, read_nodes
from edgeprune.exporting.request import ExportRequest
from edgeprune.exporting.runners import run_file

SHAPE = (3, 8, 8)
FORMATS = ("onnx", "tflite")
FLOAT_OPERATORS = ("Conv", "FusedConv", "Gemm", "FusedGemm")


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
    inputs, run = normal(32, *SHAPE, seed=5), run_file

    def accurate(path: Path) -> bool:
        wanted = run(directory / f"artifacts/pruned.fp32.{file_format}", inputs)
        return measure_sqnr_db(wanted, run(path, inputs)) >= limit_db

    precisions, rows = ("fp32", "int8", "mixed"), [normal(96, *SHAPE)]
    return ExportRequest(directory, "pruned", (file_format,), precisions, rows, wishes=Wishes(accurate))


def priced(asked: ExportRequest, ask: Pricer, always: bool = True) -> ExportRequest:
    """The same, with a device that says what layers cost."""
    return replace(asked, wishes=replace(asked.wishes, ask=ask, always=always))


def run_operators(path: Path, folder: Path) -> list[str]:
    """Those of the graph that ONNX Runtime makes of a file: it may round weights by itself."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "optimised.onnx"), 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*ends) for ends in ((16, 12), (12, 12), (12, 6)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third = self.layers
        return third(torch.relu(second(torch.relu(first(x)))))


def test_float_products_between_integer_ones_stay_in_float(tmp_path: Path) -> None:
    program, rows = traced(seeded(Dense), torch.zeros(1, 16)), normal(32, 16)
    request = ExportRequest(tmp_path, "pruned", ("onnx",), ("fp32",))
    (fp32,) = build_artifacts(program, torch.zeros(1, 16), request)
    path, mixed = tmp_path / fp32.path, tmp_path / "mixed.onnx"
    _, second, _ = (layer.name for layer in read_layers(path))
    static = static_onnx(path, OnnxScheme("uint8", "int8", False, "qdq", ""))
    mixed.write_bytes(static.quantize(path, observe_extremes(path, rows), [second]))
    assert [one for one in run_operators(mixed, tmp_path) if one in FLOAT_OPERATORS] == ["FusedGemm"]
    np.testing.assert_allclose(run_file(mixed, rows), run_file(mixed, rows, optimised=False), atol=0.1)
    assert measure_sqnr_db(run_file(path, rows), run_file(mixed, rows)) > 30


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_cannot_be_quantized_stays_in_float(program: nn.Module, file_format: str, tmp_path: Path) -> None:
    if file_format == "tflite":
        pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")
    example = torch.zeros(1, *SHAPE)
    fp32, int8, mixed = build_artifacts(program, example, request(tmp_path, file_format, 25.0))
    inputs, run = normal(32, *SHAPE, seed=6), run_file
    wanted, plain, found = (run(tmp_path / one.path, inputs) for one in (fp32, int8, mixed))
    assert measure_sqnr_db(wanted, plain) < 15
    assert measure_sqnr_db(wanted, found) > 24
    assert "of 4 layers in float" in mixed.scheme
    assert mixed.predicted_ms is None
    found_fault = bisect_artifacts(tmp_path / fp32.path, tmp_path / int8.path, inputs).describe()
    assert re.search(r"below 20 dB: .*wide.* before it channel 1.* is lost: another is [\d.e+]+ times as", found_fault)
    if file_format == "onnx":
        held = [operator for operator in run_operators(tmp_path / mixed.path, tmp_path) if operator in FLOAT_OPERATORS]
        assert len(held) == int(mixed.scheme.partition(" of 4 ")[0][-1])
        quantized = {one.name for one in onnx.load(tmp_path / mixed.path).graph.initializer}
        assert "wide.weight_quantized" not in quantized
        assert "wide" in mixed.scheme.partition("in float: ")[2]
        assert {"first.weight_quantized", "last.weight_quantized"} & quantized


def test_what_no_layer_in_int8_can_reach_is_refused(program: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no layer may be int8.*ship fp32"):
        build_artifacts(program, torch.zeros(1, *SHAPE), request(tmp_path, "onnx", 250.0))


def price(layers_ms: tuple[float, float], conversion_ms: float = 0.0, budget_ms: float = 100.0) -> Pricer:
    """A device on which each layer takes so long in float and in int8, and each conversion."""

    def ask(shapes: NetShapes) -> Prices:
        count, pair = len(shapes.layers), ((0.0, conversion_ms), (conversion_ms, 0.0))
        whole_ms = (count * layers_ms[0], count * layers_ms[1])
        return Prices((layers_ms,) * count, (pair,) * len(shapes.joins), whole_ms, budget_ms)

    return ask


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_device_is_asked_for_the_layers_as_its_tables_have_them(
    program: nn.Module, file_format: str, tmp_path: Path
) -> None:
    if file_format == "tflite":
        pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")
    asked: list[NetShapes] = []
    build_artifacts(program, torch.zeros(1, *SHAPE), priced(request(tmp_path, file_format, 25.0), asked.append))
    around, none = ((3, 3), (1, 1), 1, (8, 8), (1, 1)), ((1, 1), (1, 1), 1, (8, 8), (0, 0))
    shapes = (("conv", 3, 6, *around), ("conv", 6, 6, *around), ("conv", 6, 6, *none), ("conv", 6, 8, *around))
    assert asked == [NetShapes(tuple(LayerShape(*one) for one in shapes), (LayerShape(JOIN, 6, 6, *none),) * 3)]


@pytest.mark.slow
def test_layers_that_are_faster_in_float_stay_in_float(program: nn.Module, tmp_path: Path) -> None:
    example, rows = torch.zeros(1, *SHAPE), [normal(32, *SHAPE)]
    asked = ExportRequest(tmp_path, "pruned", ("onnx",), ("mixed",), rows)
    (mixed,) = build_artifacts(program, example, priced(asked, price((1.5, 1.0))))
    assert "0 of 4 layers in float" in mixed.scheme
    assert "predicted 4 ms, all in int8 4, all in float 6" in mixed.scheme
    assert mixed.predicted_ms == pytest.approx(4.0)
    with pytest.raises(ExportError, match="ship fp32"):
        build_artifacts(program, example, priced(asked, price((1.0, 1.5))))

    def ask(shapes: NetShapes) -> Prices:
        joins = (((0.0, 0.0), (0.0, 0.0)),) * len(shapes.joins)
        return Prices(((0.5, 1.0), *[(1.5, 1.0)] * 3), joins, (5.0, 4.0), 100.0)

    (mixed,) = build_artifacts(program, example, priced(asked, ask, always=False))
    assert "1 of 4 layers in float: first (" in mixed.scheme


def test_a_file_without_float_layers_is_made_only_where_it_is_asked_for(program: nn.Module, tmp_path: Path) -> None:
    asked = ExportRequest(tmp_path, "pruned", ("onnx",), ("mixed",), [normal(32, *SHAPE)])
    with pytest.raises(ExportError, match="no layer is predicted to be faster in float; ship int8"):
        build_artifacts(program, torch.zeros(1, *SHAPE), priced(asked, price((1.5, 1.0)), always=False))


def test_a_budget_that_no_accurate_choice_is_within_is_told(program: nn.Module, tmp_path: Path) -> None:
    slow = priced(request(tmp_path, "onnx", 25.0), price((3.0, 1.0), conversion_ms=0.5, budget_ms=4.2))
    *_, mixed = build_artifacts(program, torch.zeros(1, *SHAPE), slow)
    assert "no choice as quiet is within 4.2 ms" in mixed.scheme


def test_parts_add_up_to_the_whole_nets_that_were_measured(program: nn.Module, tmp_path: Path) -> None:
    (fp32,) = build_artifacts(program, torch.zeros(1, *SHAPE), ExportRequest(tmp_path, "pruned", ("onnx",), ("fp32",)))
    path, together = tmp_path / fp32.path, (((-0.1, 0.3), (0.2, -0.2)),) * 3

    def ask(shapes: NetShapes) -> Prices:
        return Prices(((2.0, 1.0), (2.0, 1.5), (1.0, 1.0), (3.0, 2.0)), together, (15.2, 5.9), 7.0)

    layers = read_layers(path)
    feeds = find_feeds(read_nodes(path), [layer.name for layer in layers])
    problem = pose_problem(path, normal(1, *SHAPE)[0], layers, feeds, ask)
    assert problem.cost([True] * 4) == pytest.approx(15.2)
    assert problem.cost([False] * 4) == pytest.approx(5.9)
    rest = ((15.2 - 7.4) / 4, (5.9 - 5.2) / 4)
    parts = (2.0 + rest[0], 0.2, 1.5 + rest[1], -0.1, 1.0 + rest[1], 0.3, 3.0 + rest[0])
    assert problem.cost([True, False, False, True]) == pytest.approx(sum(parts))
    assert problem.budget == 7.0


def test_the_limit_on_the_noise_is_found_to_one_decibel() -> None:
    """Ten layers, each twice as loud as the next, all at the same cost: the fewest that are quiet enough."""
    layers = tuple(QuantizedLayer(f"l{one}", 2.0**-one, 1.0, 0.0) for one in range(10))
    problem, asked = MixedProblem(layers), list[tuple[bool, ...]]()

    def is_accurate(floats: tuple[bool, ...]) -> bool:
        asked.append(floats)
        return problem.noise(floats) < 0.1

    found = find_choice(problem, is_accurate)
    assert found is not None
    assert (sum(found), problem.noise(found) < 0.1) == (5, True)
    assert len(asked) == len(set(asked)) <= 8
    assert find_choice(problem, lambda _: False) is None
    assert find_choice(problem, lambda _: True) == (False,) * 10


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
    assert feeds.links == ((0, 1), (0, 3), (1, 3), (3, 2))
    assert feeds.merges == {frozenset({0, 1}): "sum"}
    assert set(feeds.float_operators([True, False, False])) == {"move", "a"}
    assert set(feeds.float_operators([True, True, False])) == {"move", "a", "b", "add", "relu"}
    assert set(feeds.float_operators([False, False, True])) == {"c"}


def test_mixed_needs_rows_to_judge_by(program: nn.Module, tmp_path: Path) -> None:
    asked = ExportRequest(tmp_path, "pruned", ("onnx",), ("mixed",), [np.zeros((3, *SHAPE), np.float32)])
    with pytest.raises(ExportError, match="16 rows or more"):
        build_artifacts(program, torch.zeros(1, *SHAPE), asked)
