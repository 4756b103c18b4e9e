"""The MLPerf Tiny recipes are the reference models, and without data of the user's none passes a gate on accuracy."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from places import ROOT
from torch import nn

from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.metric import TOP1, parse_metric
from edgeprune.core.releasing.document import quality_figures
from edgeprune.core.releasing.gate import Gate, judge
from edgeprune.errors import RecipeError
from edgeprune.graph.costs import count_net, list_shapes
from edgeprune.graph.groups import find_groups
from edgeprune.graph.trace import trace_model
from edgeprune.recipes.load import load_recipe
from edgeprune.recipes.networks import DSCNN, Autoencoder, MobileNetV1Quarter, ResNet8

MODELS = ROOT.parent / "shared" / "device_data" / "mlperf_tiny_models"
NETS: dict[str, tuple[type[nn.Module], tuple[int, ...], str, int, int]] = {
    "kws": (DSCNN, (1, 49, 10), "kws_ref_model.tflite", 22_604, 2_656_768),
    "vww": (MobileNetV1Quarter, (3, 96, 96), "vww_96_int8.tflite", 210_850, 7_489_664),
    "ad": (Autoencoder, (640,), "ad01_int8.tflite", 265_864, 264_192),
    "ic": (ResNet8, (3, 32, 32), "pretrainedResnet_quant.tflite", 77_706, 12_501_632),
}
"""Nets with their inputs, the reference files, and the parameters and multiply-accumulates of these."""
RECIPES = {"kws": "kws-dscnn", "vww": "vww-mobilenetv1-025", "ad": "ad-autoencoder"}


def same(shape: LayerShape) -> tuple[object, ...]:
    """A layer but for where its padding is."""
    kernel = () if prod(shape.kernel) == 1 and shape.op == "linear" else shape.kernel
    return (shape.op, shape.cin, shape.cout, kernel, shape.stride, shape.groups, shape.size, shape.output_size)


@pytest.mark.parametrize("task", NETS)
def test_a_net_has_the_size_of_the_reference(task: str) -> None:
    make, shape, _, parameters, macs = NETS[task]
    program = trace_model(make(), torch.zeros(2, *shape))
    costs = count_net(program, find_groups(program), "fp32")
    assert (costs.parameters, costs.macs) == (parameters, macs)


@pytest.mark.parametrize("task", NETS)
def test_a_net_has_the_layers_of_the_reference_file(task: str) -> None:
    pytest.importorskip("ai_edge_litert")
    from edgeprune.exporting.tflite.layers import read_file_layers

    make, shape, name, parameters, macs = NETS[task]
    if not (MODELS / name).exists():
        pytest.skip("the reference models are not here")
    file = read_file_layers((MODELS / name).read_bytes(), name)
    assert (file.parameters, file.macs) == (parameters, macs)
    shapes = list_shapes(find_groups(trace_model(make(), torch.zeros(2, *shape))), {})
    weighted = Counter(same(layer) for layer in shapes if layer.has_weights)
    assert weighted == Counter(same(layer) for layer in file.whole if layer.has_weights)
    assert sum(layer.op == "add" for layer in shapes) == sum(layer.op == "add" for layer in file.whole)


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEPRUNE_DATA", raising=False)


@pytest.mark.usefixtures("no_data")
@pytest.mark.parametrize("name", RECIPES.values())
def test_on_made_inputs_a_recipe_runs_and_no_gate_on_its_quality_passes(name: str) -> None:
    recipe = load_recipe(name)
    net, data = recipe.model().eval(), recipe.eval_data()
    outputs, targets = zip(*[(net(inputs), wanted) for inputs, wanted in data], strict=True)
    arrays = torch.cat(outputs).detach().numpy(), torch.cat(targets).numpy()
    assert np.isfinite(recipe.loss(torch.cat(outputs), torch.cat(targets)).item())
    value = float(recipe.metric(*arrays))
    figures = quality_figures(parse_metric(recipe.metric.to_dict()), value, value)
    for gate in (Gate("quality", at_least=0.0), Gate("quality_drop", at_most=10.0)):
        result = judge(gate, figures, {})
        assert result.outcome == "inconclusive"
        assert "made" in result.reason


def test_a_metric_without_doubt_says_none() -> None:
    assert "doubt" not in TOP1.to_dict()
    assert quality_figures(TOP1, 90.0)["quality"].is_valid


def save(folder: Path, **arrays: np.ndarray) -> None:
    (folder / "kws").mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        np.savez(folder / "kws" / f"{part}.npz", **arrays)


def test_data_of_the_user_are_taken_and_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_DATA", str(tmp_path))
    save(tmp_path, x=np.full((24, 1, 49, 10), 0.5, np.float32), y=np.arange(24) % 12)
    recipe = load_recipe("kws-dscnn")
    assert recipe.metric.doubt == ""
    inputs, targets = next(iter(recipe.eval_data()))
    assert (inputs[0, 0, 0, 0].item(), targets[13].item()) == (0.5, 1)


GOOD = {"x": np.zeros((4, 1, 49, 10), np.float32), "y": np.arange(4)}


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": GOOD["x"]},
        GOOD | {"x": np.zeros((4, 49, 10), np.float32)},
        GOOD | {"x": np.full((4, 1, 49, 10), np.nan, np.float32)},
        GOOD | {"y": np.arange(3)},
        GOOD | {"y": np.array([0, 1, 2, 12])},
        GOOD | {"y": np.array([0.0, 1.0, 2.0, 3.0])},
        GOOD | {"x": np.zeros((0, 1, 49, 10), np.float32), "y": np.arange(0)},
    ],
)
def test_other_arrays_are_refused_with_what_is_expected(
    arrays: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRUNE_DATA", str(tmp_path))
    save(tmp_path, **arrays)
    with pytest.raises(RecipeError, match=r"train\.npz.*docs/recipes\.md"):
        load_recipe("kws-dscnn")


def test_a_folder_without_the_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_DATA", str(tmp_path))
    with pytest.raises(RecipeError, match="no such file"):
        load_recipe("kws-dscnn")


@pytest.mark.usefixtures("no_data")
def test_clips_are_told_apart_by_their_mean_error() -> None:
    metric = load_recipe("ad-autoencoder").metric
    clips = np.array([0, 0, 1, 1, 2, 2])
    broken = np.array([0, 0, 1, 1, 1, 1])
    targets = np.concatenate([np.zeros((6, 640)), broken[:, None], clips[:, None]], 1)
    errors = np.array([0.0, 3.0, 2.0, 2.0, 1.0, 1.0])  # clip means 1.5, 2, 1 as roots; 4.5, 4, 1 squared
    outputs = np.repeat(errors[:, None], 640, 1)
    assert metric(outputs, targets) == 0.0
    outputs[1] = 1.0  # means 0.5, 4, 1
    assert metric(outputs, targets) == 1.0
    outputs[0, 0] = 20.0  # one bad value of 640 in a row hardly moves its clip: 0.8 in the mean
    assert metric(outputs, targets) == 1.0
