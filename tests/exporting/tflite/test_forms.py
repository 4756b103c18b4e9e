"""What TFLite files take and give: channels first or last, floats or integers; and that it is fed rightly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from export_nets import ODD_SHAPE, OddNet, normal, seeded, traced
from parity_chain import compare_artifacts

from edgeprune.core.artifact import Artifact
from edgeprune.core.quantizing.sqnr import measure_sqnr_db
from edgeprune.core.target import parse_target
from edgeprune.errors import ExportError, TargetError
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.metadata import read_metadata
from edgeprune.exporting.onnx.quantize import choose_onnx_scheme
from edgeprune.exporting.onnx.schemes import find_scheme
from edgeprune.exporting.parity.bisect import bisect_artifacts
from edgeprune.exporting.request import ExportRequest, Form
from edgeprune.exporting.runners import fit_inputs, run_file
from edgeprune.exporting.tflite.export import export_tflite

pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")

EXAMPLE = torch.zeros(1, *ODD_SHAPE)
Built = dict[Form, tuple[Path, tuple[Artifact, ...]]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    program, found = traced(seeded(OddNet), EXAMPLE), {}
    for form in (Form(), Form(nhwc=True, integers=True)):
        folder, rows = tmp_path_factory.mktemp("form"), [normal(48, *ODD_SHAPE)]
        asked = ExportRequest(folder, "pruned", ("tflite",), ("fp32", "int8", "int16x8"), rows, form=form)
        found[form] = (folder, build_artifacts(program, EXAMPLE, asked))
    return found


def test_files_take_and_give_what_was_asked_for(built: Built) -> None:
    folder, artifacts = built[Form(nhwc=True, integers=True)]
    kinds = {one.precision: (one.inputs[0].dtype, one.outputs[0].dtype) for one in artifacts}
    assert kinds == {"fp32": ("float32",) * 2, "int8": ("int8",) * 2, "int16x8": ("int16",) * 2}
    assert {one.inputs[0].shape for one in artifacts} == {(1, 16, 16, 3)}
    told = read_metadata(folder / artifacts[1].path)
    assert told["inputs"].endswith("int8 [1, 16, 16, 3]")
    assert "int8 inputs and outputs" in told["scheme"]
    assert {one.inputs[0].shape for one in built[Form()][1]} == {(1, *ODD_SHAPE)}


def test_every_form_computes_the_same_for_the_same_inputs(built: Built) -> None:
    inputs = normal(16, *ODD_SHAPE, seed=8)
    outputs = {form: [run_file(folder / one.path, inputs) for one in made] for form, (folder, made) in built.items()}
    (fp32, int8, int16), (nhwc, quantized, wide) = outputs.values()
    np.testing.assert_allclose(nhwc, fp32, atol=1e-5)
    assert measure_sqnr_db(int8, quantized) > 35
    assert measure_sqnr_db(int16, wide) > 60
    assert quantized.dtype == np.float32


def test_the_chain_holds_and_layers_can_be_compared(built: Built) -> None:
    folder, artifacts = built[Form(nhwc=True, integers=True)]
    inputs = normal(16, *ODD_SHAPE, seed=9)
    chain = compare_artifacts(traced(seeded(OddNet), EXAMPLE), artifacts, folder, inputs)
    assert [one.describe() for one in chain if not one.ok] == []
    found = bisect_artifacts(folder / artifacts[0].path, folder / artifacts[1].path, inputs[:4])
    assert found.first is None


def test_inputs_are_laid_out_as_the_file_takes_them(built: Built) -> None:
    folder, artifacts = built[Form(nhwc=True, integers=True)]
    inputs = normal(2, *ODD_SHAPE)
    np.testing.assert_array_equal(fit_inputs(folder / artifacts[0].path, inputs), np.moveaxis(inputs, 1, -1))
    plain, (first, *_) = built[Form()]
    assert fit_inputs(plain / first.path, inputs) is inputs
    with pytest.raises(ExportError, match=r"inputs of shape \[2, 4, 16, 16\] float32; expected"):
        fit_inputs(folder / artifacts[0].path, normal(2, 4, 16, 16))


def test_onnx_files_take_images_as_cameras_give_them(tmp_path: Path) -> None:
    program, rows, inputs = traced(seeded(OddNet), EXAMPLE), [normal(48, *ODD_SHAPE)], normal(16, *ODD_SHAPE, seed=8)
    made = {}
    for form in (Form(), Form(nhwc=True)):
        folder = tmp_path / str(form.nhwc)
        asked = ExportRequest(folder, "pruned", ("onnx",), ("fp32", "fp16", "int8", "dynamic-int8"), rows, form=form)
        made[form.nhwc] = (folder, build_artifacts(program, EXAMPLE, asked))
    folder, turned = made[True]
    assert {one.inputs[0].shape for one in turned} == {(1, 16, 16, 3)}
    for plain, one in zip(made[False][1], turned, strict=True):
        outputs = run_file(made[False][0] / plain.path, inputs), run_file(folder / one.path, inputs)
        assert measure_sqnr_db(*outputs) > (100 if one.precision == "fp32" else 35)
    assert [one.describe() for one in compare_artifacts(program, turned, folder, inputs) if not one.ok] == []
    assert bisect_artifacts(folder / turned[0].path, folder / turned[2].path, inputs[:4]).first is None


@pytest.mark.parametrize("shape", [(6, 6, 6), (8, 6)])
def test_a_layout_that_cannot_be_told_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    net = torch.nn.Flatten()
    with pytest.raises(ExportError, match='leave input_layout = "nchw"'):
        export_tflite(net.eval(), torch.zeros(1, *shape), tmp_path / "net.tflite", Form(nhwc=True))


def test_targets_say_what_their_files_take() -> None:
    board = {"description": "a camera", "runtime": "litert", "input_layout": "nhwc", "io": "integer"}
    target = parse_target(board, "camera", "camera.toml")
    assert (target.input_layout, target.io) == ("nhwc", "integer")
    with pytest.raises(TargetError, match=r"io: .integer. is for litert or tflm or c; onnxruntime does not know it"):
        parse_target({**board, "runtime": "onnxruntime"}, "camera", "camera.toml")
    plain = parse_target({**board, "runtime": "onnxruntime", "io": "float32"}, "camera", "camera.toml")
    assert plain.input_layout == "nhwc"
    with pytest.raises(TargetError, match="did you mean 'nhwc'"):
        parse_target({**board, "input_layout": "nhcw"}, "camera", "camera.toml")


def test_a_target_may_choose_the_int8_scheme_itself() -> None:
    document = {"description": "a board", "int8_scheme": "u8s8-7bit-qoperator"}
    assert parse_target(document, "board", "board.toml").int8_scheme == "u8s8-7bit-qoperator"
    for broken, message in (
        ({"int8_scheme": "s8u8"}, r"did you mean 's8s8'|did you mean 'u8s8'"),
        ({"int8_scheme": "s8s8", "runtime": "litert"}, "is for onnxruntime; litert does not know it"),
    ):
        with pytest.raises(TargetError, match=message):
            parse_target({"description": "a board", **broken}, "board", "board.toml")
    vnni = {"avx2", "avx512_vnni"}
    assert find_scheme("auto", "x86_64", vnni) == choose_onnx_scheme("x86_64", vnni)
    forced = find_scheme("s8s8", "x86_64", {"avx2"})
    assert (forced.activations, forced.reduce_range, forced.layout) == ("int8", False, "qdq")
    assert "as the target asks, in place of uint8 x int8 (7 bits)" in forced.reason
