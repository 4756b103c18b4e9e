"""Faults planted in exported files: each is stopped by the parity chain, and its layer named where one is at fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export_nets import ODD_SHAPE, OddNet, normal, seeded
from parity_chain import compare_artifacts
from torch.fx import GraphModule

from edgeprune.core.artifact import Artifact
from edgeprune.errors import ExportError, ParityError
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.files import sha256_of
from edgeprune.exporting.metadata import embed_metadata
from edgeprune.exporting.parity import bisect
from edgeprune.exporting.parity import chain as parity
from edgeprune.exporting.parity.chain import compare_outputs
from edgeprune.exporting.parity.layer_outputs import trace_file
from edgeprune.exporting.parity.tolerances import TOLERANCES
from edgeprune.exporting.request import ExportRequest
from edgeprune.exporting.tflite.schema import pack_tflite, unpack_tflite
from edgeprune.graph.trace import trace_model
from edgeprune.stages.chain import check_link
from edgeprune.stages.measure import find_broken

EXAMPLE = torch.zeros(1, *ODD_SHAPE)
STRIPES = np.repeat(normal(80, 3, 16, 1), 16, axis=3) + 0.3 * normal(80, *ODD_SHAPE, seed=1)
"""Images whose rows and columns differ: a swapped kernel shows at the output too."""
INPUTS = STRIPES[64:]
CALIBRATION = [STRIPES[:64]]
Change = Callable[[np.ndarray], np.ndarray]

Made = tuple[GraphModule, tuple[Artifact, ...], Path]


@pytest.fixture(scope="module")
def onnx_files(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return build(tmp_path_factory.mktemp("onnx"), "onnx")


@pytest.fixture(scope="module")
def tflite_files(tmp_path_factory: pytest.TempPathFactory) -> Made:
    pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")
    return build(tmp_path_factory.mktemp("tflite"), "tflite")


def build(folder: Path, file_format: str) -> Made:
    program = trace_model(seeded(OddNet), EXAMPLE)
    request = ExportRequest(folder, "pruned", (file_format,), ("fp32", "int8"), CALIBRATION)
    return program, build_artifacts(program, EXAMPLE, request), folder


def copy(made: Made, folder: Path) -> Made:
    """The same files elsewhere, to be spoilt."""
    program, artifacts, source = made
    (folder / "artifacts").mkdir()
    for one in artifacts:
        (folder / one.path).write_bytes((source / one.path).read_bytes())
    return program, artifacts, folder


def check(made: Made) -> None:
    """What the line does with new files; recorded hashes are made those of the files, so that only parity decides."""
    program, artifacts, folder = made
    check_recorded((program, tuple(replace(one, sha256=sha256_of(folder / one.path)) for one in artifacts), folder))


def check_recorded(made: Made) -> None:
    program, artifacts, folder = made
    for link in compare_artifacts(program, artifacts, folder, INPUTS):
        check_link(link, artifacts, folder, INPUTS, {"pruned": program})


def store(name: str, change: Change) -> Callable[[Any], None]:
    """Replace a stored tensor by what `change` makes of it, in its own type."""

    def plant(model: Any) -> None:
        tensor = next(one for one in model.graph.initializer if one.name == name)
        old = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(change(old.copy()), old.dtype, order="C"), name))

    return plant


def node_of(model: Any, operator: str, index: int) -> Any:
    return [one for one in model.graph.node if one.op_type == operator][index]


def drop_bias(model: Any) -> None:
    del node_of(model, "Conv", 1).input[2:]


def change_stride_of_padding(model: Any) -> None:
    pads = next(one for one in node_of(model, "Conv", 1).attribute if one.name == "pads")
    pads.ints[:] = [2, 1, 0, 1]


def replace_activation(model: Any) -> None:
    """An operator that the converter took for another."""
    node_of(model, "Relu", -1).op_type = "Abs"


def swap_outputs_of_weights(values: np.ndarray) -> np.ndarray:
    return values[::-1]


ONNX_FAULTS: dict[str, tuple[str, Callable[[Any], None], str]] = {
    "wrong scale": (
        "int8",
        store("body.weight_scale", lambda v: v * 3),
        r"needed .*20 dB: body .*weights: wrong scale: 3 t",
    ),
    "swapped layout": (
        "int8",
        store("body.weight_quantized", lambda v: v.swapaxes(2, 3)),
        r"needed .*20 dB: body .*weights: swapped layout: axes \(0, 1, 3, 2\)",
    ),
    "clipped range": (
        "int8",
        store("relu_1_scale", lambda v: v / 6),
        r"needed .*20 dB: add .*output: clipped range: holds",
    ),
    "shifted zero point": (
        "int8",
        store("conv2d_1_zero_point", lambda v: v - 110),
        r"needed .*20 dB: body .*output: clipped range",
    ),
    "swapped weights": (
        "int8",
        store("stem.0.weight_quantized", swap_outputs_of_weights),
        r"needed .*20 dB: stem\.0 .*weights: ",
    ),
    "wrong bias in int8": (
        "int8",
        store("stem.0.weight_bias_quantized_scale", lambda v: v * -8),
        r"needed .*20 dB: stem\.0 .*bias: wrong scale: -8 times",
    ),
    "dropped bias": ("fp32", drop_bias, r"torch -> onnx fp32: .*70 dB: body \(conv2d\): SQNR"),
    "wrong padding": ("fp32", change_stride_of_padding, r"torch -> onnx fp32: .*70 dB: body \(conv2d\): SQNR"),
    "wrong float weights": (
        "fp32",
        store("point.weight", lambda v: v[:, ::-1]),
        r"torch -> onnx fp32: .*70 dB: point \(conv2d\): SQNR",
    ),
    "wrong operator": ("fp32", replace_activation, r"torch -> onnx fp32: .*70 dB: relu_\d \(relu\): SQNR"),
}


@pytest.mark.parametrize("fault", ONNX_FAULTS)
def test_a_fault_in_an_onnx_file_is_stopped_and_its_layer_named(onnx_files: Made, tmp_path: Path, fault: str) -> None:
    precision, plant, message = ONNX_FAULTS[fault]
    made = copy(onnx_files, tmp_path)
    path = tmp_path / next(one.path for one in made[1] if one.precision == precision)
    model = onnx.load(path)
    plant(model)
    onnx.save(model, path)
    with pytest.raises(ParityError, match=rf"(?s){message}"):
        check(made)


def test_sound_files_pass(onnx_files: Made, tflite_files: Made) -> None:
    check_recorded(onnx_files)
    check_recorded(tflite_files)


def edit_tflite(path: Path, plant: Callable[[Any, Any], None]) -> None:
    schema, model = unpack_tflite(path.read_bytes())
    plant(model, schema)
    path.write_bytes(pack_tflite(model))


def convolution(model: Any, schema: Any, index: int) -> Any:
    code = schema.BuiltinOperator.CONV_2D
    return [one for one in model.subgraphs[0].operators if model.operatorCodes[one.opcodeIndex].builtinCode == code][
        index
    ]


def clip_tflite(model: Any, schema: Any) -> None:
    output = model.subgraphs[0].tensors[convolution(model, schema, 1).outputs[0]]
    output.quantization.scale = np.asarray(output.quantization.scale) / np.float32(6)


def drop_tflite_bias(model: Any, schema: Any) -> None:
    bias = model.subgraphs[0].tensors[convolution(model, schema, 2).inputs[2]]
    model.buffers[bias.buffer].data = np.zeros_like(np.asarray(model.buffers[bias.buffer].data))


@pytest.mark.parametrize(
    ("precision", "plant", "message"),
    [
        ("int8", clip_tflite, r"needed .*20 dB: Conv2d_body .*output: clipped range"),
        ("fp32", drop_tflite_bias, r"torch -> tflite fp32: .*70 dB: point \(conv2d\): SQNR"),
    ],
)
def test_a_fault_in_a_tflite_file_is_stopped_and_its_layer_named(
    tflite_files: Made, tmp_path: Path, precision: str, plant: Callable[[Any, Any], None], message: str
) -> None:
    made = copy(tflite_files, tmp_path)
    edit_tflite(tmp_path / next(one.path for one in made[1] if one.precision == precision), plant)
    with pytest.raises(ParityError, match=rf"(?s){message}"):
        check(made)


def run_optimised_as(monkeypatch: pytest.MonkeyPatch, faulty: Path) -> None:
    """Let optimised kernels compute a faulty file in place of the int8 file of its format."""
    run_file = parity.run_file

    def run(path: Path, inputs: np.ndarray, optimised: bool = True) -> np.ndarray:
        same = path.suffix == faulty.suffix and optimised and "int8" in path.name
        return run_file(faulty if same else path, inputs, optimised)

    def trace(path: Path, inputs: np.ndarray, optimised: bool = False) -> Any:
        return trace_file(faulty if optimised else path, inputs, optimised)

    monkeypatch.setattr(parity, "run_file", run)
    monkeypatch.setattr(bisect, "trace_file", trace)


def test_a_saturating_scheme_is_stopped_and_its_layer_named(
    onnx_files: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels that cannot reach beyond a third of the range of one layer, as on x86 without VNNI."""
    made = copy(onnx_files, tmp_path)
    saturating = tmp_path / "saturating.onnx"
    model = onnx.load(tmp_path / made[1][1].path)
    store("body.weight_quantized", lambda v: np.clip(v.astype(np.int64), -30, 30))(model)
    onnx.save(model, saturating)
    run_optimised_as(monkeypatch, saturating)
    with pytest.raises(ParityError, match=r"(?s)optimised kernels: .*the int8 kernels saturate.*27 dB: (body|add) \("):
        check(made)


def test_wrong_xnnpack_kernels_are_stopped_and_their_layer_named(
    tflite_files: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A convolution that the delegate computes wrong, as in qemu-user 7.2: with another scale here."""
    made = copy(tflite_files, tmp_path)
    wrong = tmp_path / "wrong.tflite"
    wrong.write_bytes((tmp_path / made[1][1].path).read_bytes())
    edit_tflite(wrong, clip_tflite)
    run_optimised_as(monkeypatch, wrong)
    with pytest.raises(ParityError, match=r"(?s)XNNPACK computes int8 wrong.*20 dB: Conv2d_body .*clipped range"):
        check(made)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def raise_opset(path: Path) -> None:
    model = onnx.load(path)
    model.opset_import[0].version = 999
    onnx.save(model, path)


def raise_operator_version(path: Path) -> None:
    def plant(model: Any, schema: Any) -> None:
        for code in model.operatorCodes:
            code.version = 99

    edit_tflite(path, plant)


def claim_another_model(path: Path) -> None:
    embed_metadata(path, {"model_sha256": "of another model", "preprocessing": "none"})


@pytest.mark.parametrize("spoil", [truncate, raise_opset, claim_another_model])
def test_a_file_that_is_not_the_exported_one_is_stale(onnx_files: Made, tmp_path: Path, spoil: Any) -> None:
    made = copy(onnx_files, tmp_path)
    spoil(tmp_path / made[1][1].path)
    with pytest.raises(ExportError, match=r"pruned\.int8\.onnx: stale: sha256 .* export pruned-onnx-int8 again"):
        check_recorded(made)


@pytest.mark.parametrize("spoil", [truncate, raise_opset])
def test_an_onnx_file_that_does_not_load_is_named(onnx_files: Made, tmp_path: Path, spoil: Any) -> None:
    made = copy(onnx_files, tmp_path)
    spoil(tmp_path / made[1][1].path)
    with pytest.raises(ExportError, match=r"pruned\.int8\.onnx: (reading|running)"):
        check(made)


def test_an_operator_version_that_the_runtime_lacks_is_named(tflite_files: Made, tmp_path: Path) -> None:
    made = copy(tflite_files, tmp_path)
    raise_operator_version(tmp_path / made[1][1].path)
    with pytest.raises(ExportError, match=r"pruned\.int8\.tflite: .*(?:[A-Z_0-9]+).*"):
        check(made)


def test_inputs_in_the_other_layout_are_refused(onnx_files: Made) -> None:
    program, artifacts, folder = onnx_files
    with pytest.raises(ExportError, match=r"\[16, 16, 3\]|fails on an input of shape"):
        compare_artifacts(program, artifacts, folder, INPUTS.transpose(0, 2, 3, 1).copy())


def test_a_device_that_computes_something_else_is_stopped_or_its_file_left_out() -> None:
    values = normal(32, 10)
    links = {
        name: compare_outputs(f"{name}: here -> on the device", values, there, TOLERANCES["int8"])
        for name, there in (("pruned-onnx-fp32", values), ("pruned-onnx-int8", normal(32, 10, seed=3)))
    }
    assert find_broken(links, ("original-onnx-fp32", "pruned-onnx-fp32")) == ["pruned-onnx-int8"]
    with pytest.raises(ParityError, match=r"pruned-onnx-int8: here -> on the device: .*needed SQNR >= 20 dB"):
        find_broken(links, ("pruned-onnx-int8",))
