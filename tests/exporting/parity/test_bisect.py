"""The layer at fault is named: planted faults in int8 files of both formats, and the causes told from values alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export_nets import ODD_SHAPE, GruNet, OddNet, TinyViT, normal, seeded, traced
from parity_chain import compare_artifacts

from edgeprune.errors import ExportError, ParityError
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.files import sha256_of
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.onnx.half import halve_onnx
from edgeprune.exporting.onnx.quantize import choose_onnx_scheme, quantize_onnx, quantize_onnx_dynamic
from edgeprune.exporting.parity.bisect import bisect_artifacts
from edgeprune.exporting.parity.causes import find_cause
from edgeprune.exporting.request import ExportRequest
from edgeprune.exporting.tflite.schema import pack_tflite, unpack_tflite
from edgeprune.stages.chain import check_link

SCHEME = choose_onnx_scheme("unknown", ())
INPUTS = normal(8, *ODD_SHAPE, seed=5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The odd net as ONNX, fp32 and int8."""
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(traced(seeded(OddNet), torch.zeros(1, *ODD_SHAPE)), torch.zeros(1, *ODD_SHAPE), folder / "fp32.onnx")
    quantize_onnx(folder / "fp32.onnx", folder / "int8.onnx", [normal(64, *ODD_SHAPE)], SCHEME)
    return folder / "fp32.onnx", folder / "int8.onnx"


def edit(model: Any, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replace a stored tensor by what `change` makes of it, in its own type."""
    tensor = next(one for one in model.graph.initializer if one.name == name)
    old = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(change(old.copy()), old.dtype), name))


def zero_channel(values: np.ndarray) -> np.ndarray:
    values[2] = 0
    return values


def scale_channel(values: np.ndarray) -> np.ndarray:
    values[4] *= 4
    return values


def insert_clip(model: Any) -> None:
    """A kernel that cannot reach beyond half of the range."""
    node = next(one for one in model.graph.node if "relu_2" in one.output)
    node.output[0] = "relu_2_before"
    limit = onnx.numpy_helper.from_array(np.float32(1.0), "limit")
    model.graph.initializer.append(limit)
    index = list(model.graph.node).index(node) + 1
    model.graph.node.insert(
        index, onnx.helper.make_node("Clip", ["relu_2_before", "", "limit"], ["relu_2"], "point_clip")
    )


def change_padding(model: Any) -> None:
    """The second convolution looks one row further down."""
    node = [one for one in model.graph.node if one.op_type == "Conv"][1]
    pads = next(one for one in node.attribute if one.name == "pads")
    pads.ints[:] = [0, 1, 2, 1]


FAULTS: dict[str, tuple[Callable[[Any], None], str, str]] = {
    "wrong scale": (lambda m: edit(m, "body.weight_scale", lambda v: v * 3), "body", "weights: wrong scale: 3 times"),
    "wrong scale of a channel": (
        lambda m: edit(m, "body.weight_scale", scale_channel),
        "body",
        "weights: wrong scale in channel 4 of 7: 4",
    ),
    "dead channel": (lambda m: edit(m, "point.weight_quantized", zero_channel), "point", "dead channel 2 of 5"),
    "swapped layout": (
        lambda m: edit(m, "body.weight_quantized", lambda v: v.swapaxes(2, 3)),
        "body",
        r"weights: swapped layout: axes \(0, 1, 3, 2\)",
    ),
    "other order": (
        lambda m: edit(m, "stem.0.weight_quantized", lambda v: v[:, ::-1]),
        "stem.0",
        "weights: swapped layout: the same values in another order",
    ),
    "clipped range": (lambda m: edit(m, "relu_1_scale", lambda v: v / 6), "add", "output: clipped range: holds"),
    "coarse scale": (lambda m: edit(m, "relu_scale", lambda v: v * 30), "stem.0", "scale too coarse: only"),
    "wrong bias": (
        lambda m: edit(m, "stem.0.weight_bias_quantized_scale", lambda v: v * -8),
        "stem.0",
        "bias: wrong scale: -8 times",
    ),
    "wrong zero point": (
        lambda m: edit(m, "conv2d_1_zero_point", lambda v: v - 110),
        "body",
        "output: clipped range",
    ),
    "limited kernel": (insert_clip, "point_clip", "output: clipped range: holds"),
    "wrong padding": (change_padding, "body", "output: noise of no known shape"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_and_its_layer_named(files: tuple[Path, Path], tmp_path: Path, fault: str) -> None:
    plant, layer, cause = FAULTS[fault]
    model = onnx.load(files[1])
    plant(model)
    onnx.save(model, tmp_path / "faulty.onnx")
    found = bisect_artifacts(files[0], tmp_path / "faulty.onnx", INPUTS)
    assert found.first is not None
    assert found.first.layer == layer
    assert re.search(cause, found.first.cause), found.first.cause
    before = found.layers[: found.layers.index(found.first)]
    assert all(one.sqnr_db >= 20 and not one.cause for one in before)
    assert found.describe().startswith(f"first layer below 20 dB: {layer} (")


def test_sound_files_have_no_layer_at_fault(files: tuple[Path, Path], tmp_path: Path) -> None:
    halve_onnx(files[0], tmp_path / "fp16.onnx")
    quantize_onnx_dynamic(files[0], tmp_path / "dynamic.onnx", SCHEME)
    for other, least in ((files[1], 30), (tmp_path / "fp16.onnx", 60), (tmp_path / "dynamic.onnx", 30)):
        found = bisect_artifacts(files[0], other, INPUTS)
        assert found.first is None
        assert len(found.layers) >= 8
        assert min(one.sqnr_db for one in found.layers) > least
        assert "layers keep 20 dB; the lowest: " in found.describe()


def test_a_stale_file_is_wrong_from_its_first_layer(files: tuple[Path, Path], tmp_path: Path) -> None:
    torch.manual_seed(9)
    program = traced(OddNet(), torch.zeros(1, *ODD_SHAPE))
    export_onnx(program, torch.zeros(1, *ODD_SHAPE), tmp_path / "fp32.onnx")
    quantize_onnx(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [normal(64, *ODD_SHAPE)], SCHEME)
    found = bisect_artifacts(files[0], tmp_path / "int8.onnx", INPUTS)
    assert found.first is not None
    assert (found.first.layer, found.first.cause.split(":")[0]) == ("stem.0", "weights")


def test_figures_stand_on_both_sides(files: tuple[Path, Path]) -> None:
    found = bisect_artifacts(files[0], files[1], INPUTS, limit_db=200.0)
    first = found.first
    assert first is not None
    assert (first.layer, first.operator) == ("input", "input")
    assert first.reference.low == pytest.approx(INPUTS.min())
    assert first.reference.deviation == pytest.approx(INPUTS.std())
    assert first.other.high == pytest.approx(INPUTS.max(), abs=0.05)
    assert sum(bool(one.cause) for one in found.layers) == 1  # only the first one is explained


@pytest.mark.parametrize(("net", "shape", "layer"), [(TinyViT, ODD_SHAPE, "project"), (GruNet, (8, 6), "classifier")])
def test_products_of_transformers_and_recurrent_nets_are_named(
    tmp_path: Path, net: Any, shape: tuple[int, ...], layer: str
) -> None:
    export_onnx(traced(seeded(net), torch.zeros(1, *shape)), torch.zeros(1, *shape), tmp_path / "fp32.onnx")
    quantize_onnx(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [normal(64, *shape)], SCHEME)
    inputs = normal(8, *shape, seed=5)
    assert bisect_artifacts(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", inputs).first is None
    model = onnx.load(tmp_path / "int8.onnx")
    node = next(one for one in model.graph.node if f"{layer}.bias" in one.input)
    edit(model, node.input[1].replace("DequantizeLinear_Output", "scale"), lambda v: v * 3)
    onnx.save(model, tmp_path / "faulty.onnx")
    found = bisect_artifacts(tmp_path / "fp32.onnx", tmp_path / "faulty.onnx", inputs)
    assert found.first is not None
    assert found.first.layer == layer


def test_files_without_a_layer_in_common_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    integer = replace(SCHEME, layout="qoperator")
    quantize_onnx(files[0], tmp_path / "integer.onnx", [normal(64, *ODD_SHAPE)], integer)
    with pytest.raises(ExportError, match=r"integer\.onnx: only 3 of 11 layers in common with .*QDQ layout"):
        bisect_artifacts(files[0], tmp_path / "integer.onnx", INPUTS)
    with pytest.raises(ExportError, match=r"suffix '\.pb'"):
        bisect_artifacts(tmp_path / "x.pb", files[1], INPUTS)


@pytest.fixture(scope="module")
def tflite_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The odd net as TFLite, fp32 and int8."""
    pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")
    from edgeprune.exporting.tflite.export import export_tflite
    from edgeprune.exporting.tflite.quantize import quantize_tflite

    folder = tmp_path_factory.mktemp("tflite")
    export_tflite(
        traced(seeded(OddNet), torch.zeros(1, *ODD_SHAPE)), torch.zeros(1, *ODD_SHAPE), folder / "fp32.tflite"
    )
    quantize_tflite(folder / "fp32.tflite", folder / "int8.tflite", [normal(64, *ODD_SHAPE)])
    return folder / "fp32.tflite", folder / "int8.tflite"


def convolutions(model: Any, schema: Any) -> list[Any]:
    code = schema.BuiltinOperator.CONV_2D
    return [one for one in model.subgraphs[0].operators if model.operatorCodes[one.opcodeIndex].builtinCode == code]


def scale_weights(model: Any, schema: Any) -> None:
    weights = model.subgraphs[0].tensors[convolutions(model, schema)[1].inputs[1]]
    weights.quantization.scale = np.asarray(weights.quantization.scale) * np.float32(3)


def kill_channel(model: Any, schema: Any) -> None:
    weights = model.subgraphs[0].tensors[convolutions(model, schema)[2].inputs[1]]
    data = np.array(model.buffers[weights.buffer].data).reshape(weights.shape)
    model.buffers[weights.buffer].data = zero_channel(data).ravel()


def swap_weights(model: Any, schema: Any) -> None:
    weights = model.subgraphs[0].tensors[convolutions(model, schema)[1].inputs[1]]
    data = np.array(model.buffers[weights.buffer].data).reshape(weights.shape)
    model.buffers[weights.buffer].data = np.ascontiguousarray(data.swapaxes(1, 2)).ravel()


def clip_output(model: Any, schema: Any) -> None:
    output = model.subgraphs[0].tensors[convolutions(model, schema)[1].outputs[0]]
    output.quantization.scale = np.asarray(output.quantization.scale) / np.float32(6)


@pytest.mark.parametrize(
    ("plant", "layer", "cause"),
    [
        (scale_weights, "Conv2d_body", "weights: wrong scale: 3 times"),
        (kill_channel, "Conv2d_point", "weights: dead channel 2 of 5"),
        (swap_weights, "Conv2d_body", "weights: swapped layout: axes (0, 2, 1, 3)"),
        (clip_output, "Conv2d_body", "output: clipped range: holds"),
    ],
)
def test_a_fault_in_a_tflite_file_is_caught_and_its_layer_named(
    tflite_files: tuple[Path, Path], tmp_path: Path, plant: Callable[[Any, Any], None], layer: str, cause: str
) -> None:
    schema, model = unpack_tflite(tflite_files[1].read_bytes())
    plant(model, schema)
    (tmp_path / "faulty.tflite").write_bytes(pack_tflite(model))
    assert bisect_artifacts(*tflite_files, INPUTS).first is None
    found = bisect_artifacts(tflite_files[0], tmp_path / "faulty.tflite", INPUTS).first
    assert found is not None
    assert found.layer == layer
    assert found.cause.startswith(cause)


def saturate(values: np.ndarray) -> np.ndarray:
    return np.where(abs(values) > 1.2, np.sign(values) * (1.2 + 0.3 * (abs(values) - 1.2)), values)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda v: v * 0.5, "wrong scale: 0.5 times"),
        (lambda v: v + 0.7, "wrong zero point: shifted by 0.7"),
        (lambda v: v.clip(-1, 1), "clipped range: holds [-1, 1]"),
        (saturate, "saturation: the largest values"),
        (lambda v: v.swapaxes(2, 3), "swapped layout: axes (0, 1, 3, 2)"),
        (lambda v: np.round(v / 2) * 2, "scale too coarse"),
        (lambda v: v[:, :4], "shape [16, 4, 6, 6] instead of [16, 6, 6, 6]"),
        (lambda v: v + normal(*v.shape, seed=8) * 0.3, "noise of no known shape"),
    ],
)
def test_causes_are_told_from_values(change: Callable[[np.ndarray], np.ndarray], cause: str) -> None:
    values = normal(16, 6, 6, 6)
    assert find_cause(values, change(values), first_axis=1).startswith(cause)


def in_float16(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)


def in_bfloat16(values: np.ndarray) -> np.ndarray:
    return torch.from_numpy(values).bfloat16().float().numpy()


@pytest.mark.parametrize(("name", "cast"), [("float16", in_float16), ("bfloat16", in_bfloat16)])
def test_values_in_sixteen_bits_are_told_from_a_wrong_scale(
    name: str, cast: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Of a channel that float16 cannot hold as much is left as a wrong scale would leave."""
    values = normal(8, 16, 6, 6)
    values[:, 3] *= 3e-8
    assert find_cause(values, cast(values), first_axis=1).startswith(f"the values are in {name} (")
    assert find_cause(cast(values), values, first_axis=1).startswith(f"the reference is in {name} (")
    assert find_cause(cast(values), cast(values) * 2, first_axis=1).startswith("wrong scale: 2 times")
    assert "float16" not in find_cause(values, values + normal(8, 16, 6, 6, seed=2) * np.float32(0.1), first_axis=1)
    tripled = values.copy()
    tripled[:, :2] *= 3
    assert find_cause(values, cast(tripled), first_axis=1).startswith("wrong scale in channel 0, 1 of 16")


def test_a_broken_link_of_the_line_names_the_layer(tmp_path: Path) -> None:
    example = torch.zeros(1, *ODD_SHAPE)
    program = traced(seeded(OddNet), example)
    request = ExportRequest(tmp_path, "pruned", ("onnx",), ("fp32", "int8"), [normal(64, *ODD_SHAPE)])
    artifacts = build_artifacts(program, example, request)
    model = onnx.load(tmp_path / artifacts[1].path)
    FAULTS["wrong scale"][0](model)
    onnx.save(model, tmp_path / artifacts[1].path)
    forged = (artifacts[0], replace(artifacts[1], sha256=sha256_of(tmp_path / artifacts[1].path)))
    float_link, int8_link, *_ = compare_artifacts(program, forged, tmp_path, INPUTS)
    programs = {"pruned": program}
    check_link(float_link, forged, tmp_path, INPUTS, programs)
    with pytest.raises(ParityError, match=r"needed SQNR >= 20 dB.*first layer below 20 dB: body.*wrong scale: 3 times"):
        check_link(int8_link, forged, tmp_path, INPUTS, programs)
