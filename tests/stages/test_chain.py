"""What a run does with files that do not compute what the net computes: refused and named, or everything stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export_nets import ODD_SHAPE, OddNet, normal, seeded
from torch.fx import GraphModule

from edgeprune.core.artifact import Artifact
from edgeprune.core.formats import RUNTIMES
from edgeprune.core.metric import Metric
from edgeprune.core.target import Target
from edgeprune.errors import ExportError, ParityError
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.checks import run_torch
from edgeprune.exporting.files import sha256_of
from edgeprune.exporting.metadata import read_metadata
from edgeprune.exporting.parity.chain import Judge
from edgeprune.exporting.request import ExportRequest
from edgeprune.graph.trace import trace_model
from edgeprune.stages.artifacts import Files, build, wants_mixed
from edgeprune.stages.chain import Checked, Nets, check_artifacts_
from edgeprune.stages.record import find_needed

EXAMPLE = torch.zeros(1, *ODD_SHAPE)
FEW = torch.zeros(1, 8)
INPUTS = normal(16, *ODD_SHAPE, seed=3)
PRECISIONS = ("fp32", "fp16", "int8")
Made = tuple[GraphModule, tuple[Artifact, ...], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    program, folder = trace_model(seeded(OddNet), EXAMPLE), tmp_path_factory.mktemp("made")
    request = ExportRequest(folder, "pruned", ("onnx",), PRECISIONS, [normal(64, *ODD_SHAPE)])
    return program, build_artifacts(program, EXAMPLE, request), folder


def check(
    made: Made,
    folder: Path,
    spoil: dict[str, Callable[[Any], None]],
    needed: tuple[str, ...],
    judge: Judge | None = None,
) -> Checked:
    """Check copies of the files, those of some precisions spoilt; recorded hashes are made those of the files."""
    program, artifacts, source = made
    (folder / "artifacts").mkdir()
    copies = []
    for one in artifacts:
        model = onnx.load(source / one.path)
        spoil.get(one.precision, lambda _: None)(model)
        onnx.save(model, folder / one.path)
        copies.append(replace(one, sha256=sha256_of(folder / one.path)))
    checked = Checked()
    check_artifacts_(checked, Nets({"pruned": program}, folder, INPUTS, True, needed, judge), copies)
    return checked


def triple(name: str) -> Callable[[Any], None]:
    def plant(model: Any) -> None:
        tensor = next(one for one in model.graph.initializer if one.name == name)
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(3), name))

    return plant


def overflow(model: Any) -> None:
    """A bias beyond what float16 can hold."""
    tensor = next(one for one in model.graph.initializer if one.name == "body.bias")
    held = np.full(tensor.dims, np.inf, onnx.numpy_helper.to_array(tensor).dtype)
    tensor.CopyFrom(onnx.numpy_helper.from_array(held, tensor.name))


def test_sound_files_are_refused_nothing(made: Made, tmp_path: Path) -> None:
    checked = check(made, tmp_path, {}, ())
    assert checked.refused == {}
    assert len({one.link for one in checked.links}) == len(checked.links) == 4


def test_a_broken_file_is_refused_by_its_layer_and_the_others_stay(made: Made, tmp_path: Path) -> None:
    checked = check(made, tmp_path, {"int8": triple("body.weight_scale")}, ("pruned-onnx-fp32",))
    assert list(checked.refused) == ["pruned-onnx-int8"]
    assert "20 dB: body (" in checked.refused["pruned-onnx-int8"]
    assert "wrong scale: 3 times" in checked.refused["pruned-onnx-int8"]


def test_a_file_whose_outputs_have_no_figures_is_refused_alone(made: Made, tmp_path: Path) -> None:
    checked = check(made, tmp_path, {"fp16": overflow}, ("pruned-onnx-fp32",))
    assert list(checked.refused) == ["pruned-onnx-fp16"]
    assert "NaN or infinity" in checked.refused["pruned-onnx-fp16"]


def test_a_file_whose_metric_collapses_is_refused(made: Made, tmp_path: Path) -> None:
    """A figure that the least rounding ruins: fp32 and fp16 keep it, int8 does not."""
    wanted = run_torch(made[0], INPUTS)
    metric = Metric("closeness", lambda outputs, _: float(abs(outputs - wanted).max() < 3e-3), better="higher")
    checked = check(made, tmp_path, {}, (), Judge(metric, np.zeros(len(INPUTS))))
    assert list(checked.refused) == ["pruned-onnx-int8"]
    assert "closeness falls from 1 to 0 on these rows" in checked.refused["pruned-onnx-int8"]
    assert [link.qualities for link in checked.links if "int8" not in link.link] == [(1.0, 1.0)] * 2


def test_what_was_made_from_a_refused_file_is_refused_too(made: Made, tmp_path: Path) -> None:
    checked = check(made, tmp_path, {"fp32": triple("body.weight")}, ("pruned-tflite-fp32",))
    assert "torch -> onnx fp32" in checked.refused["pruned-onnx-fp32"]
    assert set(checked.refused) == {f"pruned-onnx-{one}" for one in PRECISIONS}


def test_a_needed_file_that_is_broken_stops_everything(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"(?s)onnx int8: .*--precision mixed.*20 dB: body \("):
        check(made, tmp_path, {"int8": triple("body.weight_scale")}, ("original-onnx-fp32", "pruned-onnx-int8"))


@pytest.mark.parametrize(
    ("runtime", "precision", "asked"),
    [
        ("onnxruntime", "fp32", "onnx-fp32"),
        ("litert", "int8", "tflite-int8"),
        ("onnxruntime", "mixed", "onnx-mixed"),
        ("litert", "auto", "tflite-fp32"),
        ("c", "int8", "tflite-int8"),
    ],
)
def test_what_is_asked_for_is_needed(runtime: str, precision: str, asked: str) -> None:
    target = Target("board", "a board", runtime, precision)
    names = {"baseline_format": target.format, "baseline_precision": RUNTIMES[runtime].baseline_precision}
    job: Any = SimpleNamespace(target=target, planned=target, estimated=False, **names)
    whole = "int8" if runtime == "c" else "fp32"  # no C is made of a file in float
    assert find_needed(job) == (f"original-{target.format}-{whole}", f"pruned-{asked}")


class Sorted(torch.nn.Module):
    """ONNX has the operator, LiteRT no kernel for it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sort(x, -1)[0]


def job_for(runtime: str, said: list[str]) -> Any:
    """As much of a job as building files needs."""
    recipe = SimpleNamespace(
        name="sorted", labels=("a", "b"), preprocessing="", calibration_data=lambda: [], example_input=lambda: FEW
    )
    return SimpleNamespace(
        target=Target("board", "a board", runtime),
        planned=Target("board", "a board", runtime),
        facts=SimpleNamespace(machine="x86_64", cpu_flags=()),
        recipe=recipe,
        read=lambda kind: SimpleNamespace(model_sha256="0" * 64),
        run=SimpleNamespace(finished=lambda stage: False, directory=Path("elsewhere")),
        estimated=False,
        detail=said.append,
    )


def test_a_format_that_cannot_be_made_is_left_out_unless_it_is_the_targets(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")
    program, said = trace_model(Sorted(), FEW), list[str]()
    files = Files(tmp_path, "pruned", ("onnx", "tflite"), ("fp32",))
    (made,) = build(job_for("onnxruntime", said), program, files)
    assert (made.format, json.loads(read_metadata(tmp_path / made.path)["labels"])) == ("onnx", ["a", "b"])
    assert [line for line in said if line.startswith("no tflite files of this net: ")] == said != []
    with pytest.raises(ExportError, match="tflite"):
        build(job_for("litert", said), program, files)


@pytest.mark.parametrize(
    ("precision", "right", "always"),
    [
        ("auto", True, False),
        ("auto", False, True),
        ("mixed", True, True),
        ("int8", False, True),
        ("int8", True, None),
        ("fp32", True, None),
        ("fp32", False, True),
    ],
)
def test_mixed_files_are_tried_where_they_may_ship(precision: str, right: bool, always: bool | None) -> None:
    assert wants_mixed("litert", precision, lambda: right) is always


def test_no_int8_file_is_asked_for_where_none_is_mixed() -> None:
    """A format may have no int8 at all."""
    assert wants_mixed("c", "int8", lambda: pytest.fail("looked at")) is None
