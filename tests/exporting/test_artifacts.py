"""All files of a net in one call: ResNet-8 in both formats and precisions, and what the request may say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from export_nets import ODD_SHAPE, OddNet, normal, seeded, traced
from parity_chain import compare_artifacts
from torch import nn

from edgeprune.core.artifact import Artifact, parse_artifact
from edgeprune.errors import ExportError
from edgeprune.exporting.artifacts import build_artifacts, check_artifact
from edgeprune.exporting.onnx.schemes import find_scheme
from edgeprune.exporting.request import ExportRequest, Processor
from edgeprune.recipes.networks import ResNet8

SHAPE = (3, 32, 32)
ODD_EXAMPLE = torch.zeros(1, *ODD_SHAPE)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return traced(seeded(ResNet8), torch.zeros(1, *SHAPE))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def built(resnet: nn.Module, run: Path) -> tuple[list[str], tuple[Artifact, ...]]:
    pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")
    once = (torch.from_numpy(normal(16, *SHAPE, seed=seed)) for seed in range(3))  # a generator: read once
    processor = Processor("x86_64", {"avx2"})
    request = ExportRequest(run, "pruned", ("onnx", "tflite"), ("fp32", "int8"), once, processor=processor)
    told: list[str] = []
    return told, build_artifacts(resnet, torch.zeros(1, *SHAPE), request, told.append)


def test_every_format_and_precision_is_built_and_described(
    built: tuple[list[str], tuple[Artifact, ...]], run: Path
) -> None:
    told, artifacts = built
    assert told == ["pruned onnx fp32", "pruned onnx int8", "pruned tflite fp32", "pruned tflite int8"]
    assert [one.path for one in artifacts] == [
        "artifacts/pruned.fp32.onnx",
        "artifacts/pruned.int8.onnx",
        "artifacts/pruned.fp32.tflite",
        "artifacts/pruned.int8.tflite",
    ]
    for one in artifacts:
        assert check_artifact(one, run).stat().st_size == one.bytes
        assert (one.inputs[0].shape, one.outputs[0].shape) == ((1, *SHAPE), (1, 10))
        assert (one.inputs[0].dtype, one.outputs[0].dtype) == ("float32", "float32")
        assert parse_artifact(json.loads(json.dumps(one.to_dict()))) == one
    assert "without VNNI" in artifacts[1].scheme
    sizes = {one.name: one.bytes for one in artifacts}
    assert sizes["pruned-onnx-int8"] < sizes["pruned-onnx-fp32"] / 2.5
    assert sizes["pruned-tflite-int8"] < sizes["pruned-tflite-fp32"] / 2.5
    assert sorted(path.name for path in (run / "artifacts").iterdir()) == sorted(Path(a.path).name for a in artifacts)


def test_the_whole_chain_of_resnet8_holds(
    resnet: nn.Module, built: tuple[list[str], tuple[Artifact, ...]], run: Path
) -> None:
    chain = compare_artifacts(resnet, built[1], run, normal(32, *SHAPE, seed=9))
    assert len(chain) == 6
    assert [one.link for one in chain if not one.ok] == []
    assert min(one.sqnr_db for one in chain) > 30


def test_only_what_was_asked_for_remains(tmp_path: Path) -> None:
    program = traced(seeded(OddNet), ODD_EXAMPLE)
    request = ExportRequest(tmp_path, "original", ("onnx",), ("int8", "int8"), [normal(8, *ODD_SHAPE)])
    (artifact,) = build_artifacts(program, ODD_EXAMPLE, request)
    assert artifact.name == "original-onnx-int8"
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["original.int8.onnx"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": "prunned"}, r"unknown role 'prunned'; choose from original, pruned; did you mean 'pruned'\?"),
        ({"formats": ("onnx", "tfl")}, "unknown format 'tfl'; choose from onnx, tflite"),
        ({"precisions": ("int4",)}, "unknown precision 'int4'; choose from fp32, fp16, int8"),
        ({"formats": ()}, "no format or no precision given"),
        ({"precisions": ("int8",), "calibration": ()}, "calibration data: empty"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    request = replace(ExportRequest(tmp_path, "pruned", ("onnx",), ("fp32",)), **change)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match=message):
        build_artifacts(seeded(OddNet).eval(), ODD_EXAMPLE, request)
    assert list(tmp_path.iterdir()) == []


def test_the_default_scheme_is_right_on_every_processor() -> None:
    request = ExportRequest(Path(), "pruned", ("onnx",), ("int8",))
    assert find_scheme(request.int8_scheme, request.processor.machine, request.processor.flags).reduce_range
