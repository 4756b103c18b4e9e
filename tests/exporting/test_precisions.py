"""Every precision of both formats: what it holds, that it is right and repeatable, what it says of itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export_nets import ODD_SHAPE, GruNet, OddNet, TinyViT, normal, seeded, traced
from parity_chain import compare_artifacts
from places import SUPPORT
from torch import nn

from edgeprune.core.artifact import Artifact
from edgeprune.core.formats import FORMATS as FILE_FORMATS
from edgeprune.core.formats import list_precisions
from edgeprune.errors import ExportError, ParityError
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.formats import find_format
from edgeprune.exporting.metadata import embed_metadata, read_metadata
from edgeprune.exporting.parity.chain import check_parity
from edgeprune.exporting.parity.tolerances import TOLERANCES
from edgeprune.exporting.request import ExportRequest
from edgeprune.exporting.runners import run_file
from edgeprune.exporting.tflite.schema import unpack_tflite

pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")

FORMATS = ("onnx", "tflite")
NETS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "odd": (OddNet, ODD_SHAPE),
    "vit": (TinyViT, ODD_SHAPE),
    "gru": (GruNet, (8, 6)),
}
ORIGIN = {"model_sha256": "ab" * 32, "plan_sha256": "cd" * 32}


def build(name: str, directory: Path) -> tuple[nn.Module, tuple[Artifact, ...]]:
    net, shape = NETS[name]
    example = torch.zeros(1, *shape)
    program = traced(seeded(net), example)
    request = ExportRequest(directory, "pruned", FORMATS, list_precisions(), [normal(64, *shape)], origin=ORIGIN)
    return program, build_artifacts(program, example, request)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module, tuple[Artifact, ...]]:
    directory = tmp_path_factory.mktemp("odd")
    return directory, *build("odd", directory)


def test_what_a_target_may_ask_for_is_what_can_be_made() -> None:
    for name, facts in FILE_FORMATS.items():
        assert find_format(name).name == name
        assert set(facts.precisions) == set(find_format(name).exporters)
        assert set(facts.precisions) <= set(TOLERANCES)


@pytest.mark.parametrize("name", ["odd", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vit", "gru"))])
def test_every_precision_is_within_its_tolerance(name: str, tmp_path: Path) -> None:
    program, artifacts = build(name, tmp_path)
    assert [(one.format, one.precision) for one in artifacts] == [
        (form, one) for form in FORMATS for one in list_precisions() if one in FILE_FORMATS[form].precisions
    ]
    inputs = normal(32, *NETS[name][1], seed=3)
    chain = compare_artifacts(program, artifacts, tmp_path, inputs)
    assert len(chain) == 15
    assert [one.describe() for one in chain if not one.ok] == []
    lossy = [one for one in chain if "-> onnx fp32" not in one.link and "-> tflite fp32" not in one.link]
    assert all(one.relative_error > 1e-5 for one in lossy if "kernels" not in one.link)  # each is what it says


def test_precisions_are_what_the_files_hold(odd: tuple[Path, nn.Module, tuple[Artifact, ...]]) -> None:
    directory, _, artifacts = odd
    paths = {(one.format, one.precision): directory / one.path for one in artifacts}
    half = onnx.load(paths["onnx", "fp16"]).graph.initializer
    assert {one.data_type for one in half if len(one.dims) == 4} == {onnx.TensorProto.FLOAT16}
    operators = {node.op_type for node in onnx.load(paths["onnx", "dynamic-int8"]).graph.node}
    assert {"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"} <= operators
    schema, _ = unpack_tflite(paths["tflite", "fp32"].read_bytes())
    held = {one: tensor_types(paths["tflite", one]) for one in FILE_FORMATS["tflite"].precisions}
    assert schema.TensorType.FLOAT16 in held["fp16"]
    assert schema.TensorType.INT16 not in held["dynamic-int8"]
    assert {schema.TensorType.INT8, schema.TensorType.INT16} <= held["int16x8"]
    for one in artifacts:
        assert (one.inputs[0].dtype, one.outputs[0].dtype) == ("float32", "float32")


def tensor_types(path: Path) -> set[int]:
    _, model = unpack_tflite(path.read_bytes())
    return {tensor.type for tensor in model.subgraphs[0].tensors}


def test_dynamic_fully_connected_weights_have_one_scale(odd: tuple[Path, nn.Module, tuple[Artifact, ...]]) -> None:
    directory, _, artifacts = odd
    path = next(directory / one.path for one in artifacts if one.name == "pruned-tflite-dynamic-int8")
    schema, model = unpack_tflite(path.read_bytes())
    graph = model.subgraphs[0]
    scales = {
        schema.BuiltinOperator.FULLY_CONNECTED: set[int](),
        schema.BuiltinOperator.CONV_2D: set[int](),
    }
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex].builtinCode
        if code in scales:
            scales[code].add(len(graph.tensors[operator.inputs[1]].quantization.scale))
    assert scales == {schema.BuiltinOperator.FULLY_CONNECTED: {1}, schema.BuiltinOperator.CONV_2D: {7, 5}}


class Loud(nn.Module):
    """Finite in float32, beyond float16 inside."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x.flatten(1) * 1e4).square()).sum(1, keepdim=True) * 1e-8


def test_values_beyond_float16_break_its_link(tmp_path: Path) -> None:
    example = torch.zeros(1, 3, 4)
    artifacts = build_artifacts(Loud().eval(), example, ExportRequest(tmp_path, "pruned", ("onnx",), ("fp32", "fp16")))
    with pytest.raises(ParityError, match=r"onnx fp32 -> onnx fp16.*float16 cannot"):
        [check_parity(one) for one in compare_artifacts(Loud(), artifacts, tmp_path, normal(4, 3, 4))]


def test_a_precision_that_no_format_has_is_refused(tmp_path: Path) -> None:
    request = ExportRequest(tmp_path, "pruned", ("onnx",), ("fp32", "int16x8"), [normal(8, *ODD_SHAPE)])
    with pytest.raises(ExportError, match="onnx has no int16x8"):
        build_artifacts(seeded(OddNet).eval(), torch.zeros(1, *ODD_SHAPE), request)


def test_files_say_what_they_are(odd: tuple[Path, nn.Module, tuple[Artifact, ...]]) -> None:
    directory, _, artifacts = odd
    for one in artifacts:
        told = read_metadata(directory / one.path)
        assert {key: told[key] for key in ORIGIN} == ORIGIN
        assert (told["role"], told["precision"], told["scheme"]) == ("pruned", one.precision, one.scheme)
        assert told["inputs"] == f"{one.inputs[0].name} float32 [1, 3, 16, 16]"
        assert told["outputs"].endswith("float32 [1, 4]")
        assert {"version.edgeprune", "version.torch"} <= set(told)


@pytest.mark.parametrize("file_format", FORMATS)
def test_metadata_leaves_the_network_and_other_metadata_alone(
    odd: tuple[Path, nn.Module, tuple[Artifact, ...]], tmp_path: Path, file_format: str
) -> None:
    directory, _, artifacts = odd
    source = next(directory / one.path for one in artifacts if one.name == f"pruned-{file_format}-int8")
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes())
    for text in ("once", "twice: é"):
        embed_metadata(path, {"note": text})
    assert read_metadata(path) == {"note": "twice: é"}
    np.testing.assert_array_equal(run_file(path, normal(4, *ODD_SHAPE)), run_file(source, normal(4, *ODD_SHAPE)))
    assert foreign_names(path) == foreign_names(source) != []


def foreign_names(path: Path) -> list[Any]:
    """Names of metadata that others wrote."""
    if path.suffix == ".onnx":
        props = [one.key for one in onnx.load(path).metadata_props]
        return [key for key in props if not key.startswith("edgeprune.")]
    return [one.name for one in unpack_tflite(path.read_bytes())[1].metadata if one.name != b"edgeprune"]


def test_tensor_data_of_tflite_files_are_aligned(odd: tuple[Path, nn.Module, tuple[Artifact, ...]]) -> None:
    directory, _, artifacts = odd
    for one in artifacts:
        if one.format == "tflite":
            content = (directory / one.path).read_bytes()
            schema, _ = unpack_tflite(content)
            model = schema.Model.GetRootAs(content, 0)
            buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
            offsets = [one._tab.Vector(one._tab.Offset(4)) for one in buffers if one.DataLength()]
            assert offsets
            assert {offset % 16 for offset in offsets} == {0}


def test_metadata_of_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pb").write_bytes(b"")
    with pytest.raises(ExportError, match=r"suffix '\.pb' is none of \.onnx, \.tflite"):
        read_metadata(tmp_path / "model.pb")


@pytest.mark.slow
def test_files_are_the_same_bytes_in_another_process(
    odd: tuple[Path, nn.Module, tuple[Artifact, ...]], tmp_path: Path
) -> None:
    _, _, artifacts = odd
    script = (
        "import json, sys, pathlib, test_precisions as tests\n"
        "made = tests.build('odd', pathlib.Path(sys.argv[1]))[1]\n"
        "print('sha256 ' + json.dumps({one.name: one.sha256 for one in made}))\n"
    )
    place = {
        "PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), str(SUPPORT))),
        "PYTHONHASHSEED": "12345",
        "TZ": "Asia/Tokyo",
    }
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, **place},
        check=True,
        timeout=300,
    )
    last = next(line for line in done.stdout.splitlines() if line.startswith("sha256 "))
    assert json.loads(last.removeprefix("sha256 ")) == {one.name: one.sha256 for one in artifacts}


def test_another_origin_gives_another_file_but_not_another_network(
    odd: tuple[Path, nn.Module, tuple[Artifact, ...]], tmp_path: Path
) -> None:
    directory, program, artifacts = odd
    request = ExportRequest(tmp_path, "pruned", ("onnx",), ("fp32",), origin={"plan_sha256": "ef" * 32})
    (other,) = build_artifacts(program, torch.zeros(1, *ODD_SHAPE), request)
    same = next(one for one in artifacts if one.name == other.name)
    assert other.sha256 != same.sha256
    path = tmp_path / other.path
    embed_metadata(path, read_metadata(directory / same.path))
    assert path.read_bytes() == (directory / same.path).read_bytes()
    assert replace(other, sha256="", bytes=0) == replace(same, sha256="", bytes=0)
