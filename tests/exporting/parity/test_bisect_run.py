"""`edgeprune export --bisect` on a run directory, and float files against the program that they were made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_nets import ODD_SHAPE, OddNet, TinyViT, normal, seeded

from edgeprune.cli import main
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.parity.bisect import bisect_kernels
from edgeprune.exporting.parity.bisect_program import bisect_program
from edgeprune.exporting.request import ExportRequest
from edgeprune.exporting.tflite.schema import pack_tflite, unpack_tflite
from edgeprune.graph.storage import save_model
from edgeprune.graph.trace import trace_model

RECIPE = """
import numpy as np, torch
from edgeprune.recipes.data import Batches

def eval_data():
    rows = np.random.default_rng(5).standard_normal((8, 3, 16, 16)).astype(np.float32)
    return Batches(torch.tensor(rows), torch.zeros(8, dtype=torch.long), 8)

model = train_data = calibration_data = eval_data
"""
EXAMPLE = torch.zeros(1, *ODD_SHAPE)
INPUTS = normal(8, *ODD_SHAPE, seed=5)


@pytest.fixture
def run(tmp_path: Path, no_devices: Path) -> Path:
    """A run directory that stopped at a broken link: its files are there, the result of the export is not."""
    (tmp_path / "recipe.py").write_text(RECIPE)
    directory = tmp_path / "run"
    program = trace_model(seeded(OddNet), EXAMPLE)
    directory.mkdir()
    save_model(program, directory / "recovered.pt2", EXAMPLE)
    request = ExportRequest(directory, "pruned", ("onnx",), ("fp32", "int8"), [normal(32, *ODD_SHAPE)])
    build_artifacts(program, EXAMPLE, request)
    (directory / "request.json").write_text(
        json.dumps({"target": "local", "recipe": str(tmp_path / "recipe.py"), "speedup": 1.5})
    )
    return directory


def bisect(run: Path, *words: str) -> int:
    """Exit code of the command."""
    with pytest.raises(SystemExit) as left:
        main(["export", "--run", str(run), "--bisect", *words])
    return int(left.value.code or 0)


def edit(path: Path, name: str, factor: float) -> None:
    model = onnx.load(path)
    tensor = next(one for one in model.graph.initializer if one.name == name)
    changed = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(changed, name))
    onnx.save(model, path)


def test_a_run_is_bisected_file_by_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bisect(run) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": all ")[0] for line in lines] == [
        "pruned: torch -> onnx fp32",
        "pruned: onnx fp32 -> onnx int8",
        "pruned: onnx int8 reference kernels -> optimised kernels",
    ]
    assert all(" layers keep " in line for line in lines)
    edit(run / "artifacts" / "pruned.int8.onnx", "body.weight_scale", 3)
    assert bisect(run, "pruned-onnx-int8") == 1
    shown = capsys.readouterr().out
    assert "first layer below 20 dB: body (Conv): SQNR" in shown
    assert "likely cause: weights: wrong scale: 3 times the float values" in shown
    assert "reference [" in shown
    assert shown.splitlines()[0].split() == ["layer", "operator", "SQNR", "dB", "reference", "here"]
    assert bisect(run, "pruned-onnx-int9") == 2
    assert "did you mean 'pruned-onnx-int8'" in capsys.readouterr().err


def test_a_wrong_float_file_is_told_from_its_program(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(run / "artifacts" / "pruned.fp32.onnx", "point.bias", 30)
    assert bisect(run, "pruned-onnx-fp32") == 1
    assert "first layer below 70 dB: point (conv2d): SQNR" in capsys.readouterr().out


def test_float_onnx_of_a_transformer_holds_every_layer(tmp_path: Path) -> None:
    program = trace_model(seeded(TinyViT), EXAMPLE)
    export_onnx(program, EXAMPLE, tmp_path / "fp32.onnx")
    found = bisect_program(program, tmp_path / "fp32.onnx", INPUTS[:2])
    assert found.first is None
    assert {"patch", "qkv", "project", "wide", "narrow", "classifier"} <= {one.layer for one in found.layers}


def test_float_tflite_is_told_from_its_program_whatever_its_layout(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")
    from edgeprune.exporting.tflite.export import export_tflite

    program, path = trace_model(seeded(OddNet), EXAMPLE), tmp_path / "fp32.tflite"
    export_tflite(program, EXAMPLE, path)
    assert bisect_program(program, path, INPUTS[:2]).first is None
    schema, model = unpack_tflite(path.read_bytes())
    graph = model.subgraphs[0]
    code = schema.BuiltinOperator.CONV_2D
    convolutions = [one for one in graph.operators if model.operatorCodes[one.opcodeIndex].builtinCode == code]
    weights = graph.tensors[convolutions[1].inputs[1]]
    data = np.frombuffer(bytes(model.buffers[weights.buffer].data), np.float32).reshape(weights.shape)
    swapped = np.ascontiguousarray(data.swapaxes(1, 2))
    model.buffers[weights.buffer].data = np.frombuffer(swapped.tobytes(), np.uint8)
    path.write_bytes(pack_tflite(model))
    first = bisect_program(program, path, INPUTS[:2]).first
    assert first is not None
    assert first.layer == "body"
    assert "Conv2d_body" in first.cause


def test_optimised_kernels_are_read_layer_by_layer(run: Path) -> None:
    found = bisect_kernels(run / "artifacts" / "pruned.int8.onnx", INPUTS)
    assert found.first is None
    assert {"stem.0", "body", "point", "classifier"} <= {one.layer for one in found.layers}
