"""Probes: right numbers in both runtimes, and the very operators that a layer becomes inside a network."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.core.latency.layers import JOIN, TRANSPOSED, LayerShape, Window, describe_window, join_ends
from edgeprune.errors import ExportError, MissingExtra
from edgeprune.exporting.probing.probes import CONVERSIONS, build_probe, write_probes
from edgeprune.exporting.probing.weights import INPUT_SCALE, OUTPUT_SCALE, make_weights

LAYERS = [
    LayerShape("conv", 3, 16, (3, 3), (1, 1), 1, (32, 32), (1, 1)),
    LayerShape("conv", 16, 32, (3, 3), (2, 2), 1, (32, 32), (1, 1)),
    LayerShape("conv", 13, 7, (1, 1), (2, 2), 1, (14, 14), (0, 0)),
    LayerShape("conv", 8, 9, (5, 3), (1, 2), 1, (12, 17), (0, 1)),
    LayerShape("conv", 16, 16, (3, 3), (1, 1), 16, (16, 16), (1, 1)),
    LayerShape("conv", 16, 32, (3, 3), (2, 2), 16, (16, 16), (1, 1)),
    LayerShape("conv", 24, 12, (3, 3), (1, 1), 4, (14, 14), (0, 0)),
    LayerShape("conv", 1, 8, (3, 3), (1, 1), 1, (14, 14), (1, 1)),
    LayerShape("conv", 6, 48, (7,), (2,), 1, (100,), (3,)),
    LayerShape("conv", 48, 48, (5,), (1,), 48, (50,), (2,)),
    LayerShape("conv", 3, 16, (3, 3), (1, 1), 1, (20, 20), (2, 2), (2, 2)),
    LayerShape("conv", 8, 12, (3, 3), (1, 2), 1, (21, 18), (0, 0), (3, 2)),
    LayerShape("conv", 8, 16, (3, 5), (2, 1), 8, (21, 18), (2, 4), (2, 2)),
    LayerShape("conv", 6, 10, (3,), (1,), 1, (50,), (4,), (4,)),
    LayerShape("conv", 3, 16, (2, 4), (1, 1), 1, (16, 16), (1, 2), output=(16, 16)),
    LayerShape("conv", 6, 10, (2,), (1,), 1, (30,), (2,), (3,), (30,)),
    LayerShape("linear", 64, 10),
    LayerShape("linear", 24, 40, (1,), (1,), 1, (50,), (0,)),
]
TURNED = [
    LayerShape(TRANSPOSED, 3, 16, (3, 3), (2, 2), 1, (16, 16), (1, 1), output=(32, 32)),
    LayerShape(TRANSPOSED, 12, 6, (2, 2), (2, 2), 1, (9, 8), (0, 0)),
    LayerShape(TRANSPOSED, 4, 7, (5, 4), (2, 3), 1, (7, 6), (2, 0)),
    LayerShape(TRANSPOSED, 4, 7, (5, 5), (2, 2), 1, (7, 6), (2, 2), output=(11, 10)),
    LayerShape(TRANSPOSED, 3, 5, (3, 3), (1, 1), 1, (9, 8), (1, 1), (2, 2)),
    LayerShape(TRANSPOSED, 6, 4, (3, 3), (2, 2), 2, (9, 8), (1, 1)),
    LayerShape(TRANSPOSED, 6, 6, (2, 2), (2, 2), 6, (9, 8), (0, 0)),
    LayerShape(TRANSPOSED, 3, 8, (4,), (2,), 1, (16,), (1,)),
]
by_layer = pytest.mark.parametrize("shape", LAYERS, ids=LayerShape.describe)
both_precisions = pytest.mark.parametrize("precision", ["fp32", "int8"])
both_formats = pytest.mark.parametrize("file_format", ["onnx", "tflite"])


def make_input(shape: LayerShape) -> np.ndarray:
    """Steps of INPUT_SCALE, `[1, cin, *size]`."""
    return np.random.default_rng(5).integers(0, 256, (1, shape.cin, *shape.size), dtype=np.uint8)


def run_reference(shape: LayerShape, steps: np.ndarray) -> np.ndarray:
    weights, x = make_weights(shape), torch.from_numpy(steps.astype(np.float32) * np.float32(INPUT_SCALE))
    weight, bias = torch.from_numpy(weights.weights), torch.from_numpy(weights.bias)
    if shape.op == "linear":
        return functional.linear(x.movedim(1, -1), weight, bias).relu().movedim(-1, 1).numpy()
    sides = [end for ends in reversed(shape.ends) for end in ends]
    if shape.op != TRANSPOSED:
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[len(shape.size) - 1]
        padded = functional.pad(x, sides)
        return convolve(padded, weight, bias, shape.stride, 0, shape.steps, shape.groups).relu().numpy()
    convolve = (functional.conv_transpose1d, functional.conv_transpose2d)[len(shape.size) - 1]
    groups = weight.reshape(shape.groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
    whole = convolve(x, groups, None, shape.stride, 0, 0, shape.groups, shape.steps)
    return (functional.pad(whole, [-end for end in sides]) + bias.reshape(-1, *[1] * len(shape.size))).relu().numpy()


def open_onnx(model: bytes, optimized: Path | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def open_tflite(model: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def run_probe(shape: LayerShape, file_format: str, precision: str, steps: np.ndarray) -> np.ndarray:
    """Real outputs, `[1, cout, *output_size]`, whatever the probe's own layout and numbers are."""
    channels_last = file_format == "tflite" or shape.op == "linear" or (precision == "int8" and shape.op == "conv")
    x = np.moveaxis(steps, 1, -1) if channels_last else steps
    if precision == "fp32":
        x = x.astype(np.float32) * np.float32(INPUT_SCALE)
    y = (run_onnx if file_format == "onnx" else run_tflite)(build_probe(shape, file_format, precision), x)
    assert y.dtype == {"fp32": "float32", "int8": {"onnx": "uint8", "tflite": "int8"}[file_format]}[precision]
    if precision == "int8":
        y = (y.astype(np.float32) + (128 if y.dtype == np.int8 else 0)) * np.float32(OUTPUT_SCALE)
    size = (shape.cout, *shape.output_size)
    return np.moveaxis(y.reshape(1, *size[1:], size[0]), -1, 1) if channels_last else y.reshape(1, *size)


def run_onnx(model: bytes, x: np.ndarray) -> np.ndarray:
    session = open_onnx(model)
    return session.run(None, {"input": x.reshape(session.get_inputs()[0].shape)})[0]


def run_tflite(model: bytes, x: np.ndarray) -> np.ndarray:
    interpreter = open_tflite(model)
    source, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    number = (x.astype(np.int16) - 128).astype(np.int8) if x.dtype == np.uint8 else x
    interpreter.set_tensor(source["index"], number.reshape(source["shape"]))
    interpreter.invoke()
    return interpreter.get_tensor(output["index"])


@pytest.mark.parametrize("shape", [*LAYERS, *TURNED], ids=LayerShape.describe)
@both_formats
@both_precisions
def test_a_probe_computes_its_layer(shape: LayerShape, file_format: str, precision: str) -> None:
    steps = make_input(shape)
    expected = run_reference(shape, steps)
    found = run_probe(shape, file_format, precision, steps)
    if precision == "fp32":
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    else:
        rounded_by_runtime = shape.op == TRANSPOSED and shape.groups > 1 and file_format == "onnx"
        steps_off = 1.5 if rounded_by_runtime else 0.51  # ONNX Runtime rounds float weights between rounded tensors
        np.testing.assert_allclose(found, expected.clip(max=255 * OUTPUT_SCALE), atol=steps_off * OUTPUT_SCALE)


@both_formats
@pytest.mark.parametrize("precision", ["fp32", "int8", *CONVERSIONS])
@pytest.mark.parametrize("size", [(9, 7), (30,)], ids=str)
def test_a_join_computes_its_two_layers(size: tuple[int, ...], file_format: str, precision: str) -> None:
    ones, none = (1,) * len(size), (0,) * len(size)
    join = LayerShape(JOIN, 24, 24, ones, ones, 1, size, none)
    first, second = join_ends(join)
    given, made = CONVERSIONS.get(precision, (precision, precision))
    steps = make_input(first)
    between = run_reference(first, steps)
    if precision != "fp32":
        between = (between / OUTPUT_SCALE).round().clip(max=255) * OUTPUT_SCALE
    weights = make_weights(second)
    bias = weights.bias_integers * weights.scales * OUTPUT_SCALE
    matrix = weights.weights.reshape(second.cout, second.cin)
    expected = np.maximum(np.einsum("oc,nc...->no...", matrix, between) + bias.reshape(1, -1, *ones), 0)
    x = np.moveaxis(steps, 1, -1) if (file_format, given) != ("onnx", "fp32") else steps
    x = x.astype(np.float32) * np.float32(INPUT_SCALE) if given == "fp32" else x
    found = (run_onnx if file_format == "onnx" else run_tflite)(build_probe(join, file_format, precision), x)
    if made == "int8":
        found = (found.astype(np.float32) + (128 if found.dtype == np.int8 else 0)) * np.float32(OUTPUT_SCALE)
    if (file_format, made) != ("onnx", "fp32"):
        found = np.moveaxis(found.reshape(1, *size, second.cout), -1, 1)
    assert 0.1 < (expected > 0).mean() < 0.9
    tolerance = 1e-4 if precision == "fp32" else 1.01 * OUTPUT_SCALE
    np.testing.assert_allclose(
        found, expected.clip(max=np.inf if made == "fp32" else 255 * OUTPUT_SCALE), atol=tolerance
    )


@by_layer
def test_the_weights_are_ordinary_numbers_that_neither_vanish_nor_saturate(shape: LayerShape) -> None:
    weights = make_weights(shape)
    for values in (weights.weights, weights.bias):
        assert np.isfinite(values).all()
        assert (np.abs(values[values != 0]) > 1e-6).all()
    output = run_reference(shape, make_input(shape))
    assert 0.1 < (output > 0).mean() < 0.9
    assert 20 * OUTPUT_SCALE < output.max() < 255 * OUTPUT_SCALE


@st.composite
def convolutions(draw: st.DrawFn) -> LayerShape:
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    cin, cout = groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 9))
    if draw(st.booleans()):
        groups = cin
        cout = cin * draw(st.integers(1, 2))
    axes = draw(st.integers(1, 2))
    several = [tuple(draw(st.integers(low, high)) for _ in range(axes)) for low, high in ((1, 5), (1, 3), (5, 12))]
    padding = tuple(draw(st.integers(0, kernel - 1)) for kernel in several[0])
    dilation = tuple(
        draw(st.integers(1, 1 + (size + 2 * pad - 1) // max(1, kernel - 1) - 1))
        for size, pad, kernel in zip(several[2], padding, several[0], strict=True)
    )
    shape = LayerShape("conv", cin, cout, several[0], several[1], groups, several[2], padding, dilation)
    if draw(st.booleans()):
        return shape
    window = Window(*several[:2], dilation, groups)
    return describe_window("conv", (cin, cout), (several[2], shape.output_size), window)


@given(shape=convolutions(), precision=st.sampled_from(["fp32", "int8"]))
@settings(max_examples=120, deadline=None)
def test_any_convolution_is_the_same_in_every_runtime(shape: LayerShape, precision: str) -> None:
    steps = make_input(shape)
    expected = run_reference(shape, steps)
    tolerance = 1e-5 if precision == "fp32" else 0.51 * OUTPUT_SCALE
    limit = np.inf if precision == "fp32" else 255 * OUTPUT_SCALE
    for file_format in ("onnx", "tflite"):
        found = run_probe(shape, file_format, precision, steps)
        np.testing.assert_allclose(found, expected.clip(max=limit), rtol=1e-5, atol=tolerance)


@by_layer
@both_precisions
def test_onnx_runtime_runs_the_layer_as_one_node(shape: LayerShape, precision: str, tmp_path: Path) -> None:
    model = build_probe(shape, "onnx", precision)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    open_onnx(model, tmp_path / "optimized.onnx")
    nodes = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    if precision == "int8":
        assert nodes == ["QGemm" if shape.op == "linear" else "QLinearConv"]
    else:
        layers = [name for name in nodes if name not in ("ReorderInput", "ReorderOutput")]
        assert layers in (["FusedGemm"], ["Conv"], ["FusedConv"])


@by_layer
@both_precisions
def test_xnnpack_takes_the_whole_tflite_probe(shape: LayerShape, precision: str) -> None:
    interpreter = open_tflite(build_probe(shape, "tflite", precision))
    delegates = [op for op in interpreter._get_ops_details() if op["op_name"] == "DELEGATE"]
    assert len(delegates) == 1
    assert interpreter.get_input_details()[0]["index"] in delegates[0]["inputs"]
    assert interpreter.get_output_details()[0]["index"] in delegates[0]["outputs"]


@by_layer
def test_the_bias_of_an_int8_tflite_probe_has_the_accumulators_scale(shape: LayerShape) -> None:
    tensors = open_tflite(build_probe(shape, "tflite", "int8")).get_tensor_details()
    scales = {one["name"]: one["quantization_parameters"]["scales"] for one in tensors}
    assert len(scales["weight"]) == shape.cout
    np.testing.assert_allclose(scales["bias"], scales["input"] * scales["weight"], rtol=1e-6)


class ConvolutionChain(nn.Module):
    """Channels-last layers of which litert-torch pads some by the SAME rule and some by a PAD operator."""

    shapes = (
        LayerShape("conv", 1, 4, (1, 1), (1, 1), 1, (33, 33), (0, 0)),
        LayerShape("conv", 4, 16, (3, 3), (1, 1), 1, (33, 33), (1, 1)),
        LayerShape("conv", 16, 16, (3, 3), (2, 2), 1, (33, 33), (1, 1)),
        LayerShape("conv", 16, 16, (5, 3), (1, 1), 16, (17, 17), (2, 1)),
        LayerShape("conv", 16, 24, (3, 3), (2, 2), 4, (17, 17), (0, 0)),
        LayerShape("conv", 24, 24, (3, 3), (2, 2), 1, (8, 8), (1, 1)),
        LayerShape("conv", 24, 48, (3, 3), (1, 1), 24, (4, 4), (0, 1)),
    )

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(one.cin, one.cout, one.kernel, one.stride, one.padding, groups=one.groups) for one in self.shapes
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x.permute(0, 2, 3, 1)


def list_operators(model: bytes) -> list[tuple[Any, ...]]:
    """Each operator: code, options, and the sizes and types of its inputs and outputs."""
    from ai_edge_litert import schema_py_generated as schema

    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    graph = tree.subgraphs[0]

    def describe(index: int) -> tuple[Any, ...]:
        tensor = graph.tensors[index]
        return tuple(int(size) for size in tensor.shape), tensor.type

    return [
        (
            tree.operatorCodes[operator.opcodeIndex].builtinCode,
            sorted(vars(operator.builtinOptions).items()),
            [describe(index) for index in (*operator.inputs, *operator.outputs)],
        )
        for operator in graph.operators
    ]


def test_tflite_probes_are_what_litert_torch_makes_of_the_layers(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import litert_torch

        litert_torch.convert(ConvolutionChain().eval(), (torch.randn(1, 33, 33, 1),)).export(tmp_path / "net.tflite")
    probes = [list_operators(build_probe(shape, "tflite", "fp32")) for shape in ConvolutionChain.shapes]
    assert list_operators((tmp_path / "net.tflite").read_bytes()) == [one for probe in probes for one in probe]


@both_formats
@both_precisions
def test_written_probes_are_the_same_each_time_and_never_share_a_file(
    file_format: str, precision: str, tmp_path: Path
) -> None:
    first = write_probes(LAYERS, file_format, precision, tmp_path / "new" / "one")
    second = write_probes(LAYERS[::-1], file_format, precision, tmp_path / "two")
    assert len({path.name for path in first.values()}) == len(LAYERS) == len(list((tmp_path / "two").iterdir()))
    for shape in LAYERS:
        assert first[shape].name == second[shape].name
        assert first[shape].read_bytes() == second[shape].read_bytes() == build_probe(shape, file_format, precision)


@pytest.mark.parametrize(
    ("shape", "file_format", "precision", "message"),
    [
        (LAYERS[0], "pte", "fp32", "unknown format 'pte'; expected onnx or tflite"),
        (LAYERS[0], "onnx", "fp16", "unknown precision 'fp16'; expected fp32 or int8"),
        (LayerShape("pool", 4, 4, (2, 2), (2, 2), 1, (8, 8), (0, 0)), "onnx", "fp32", "no probe for op 'pool'"),
        (LayerShape("conv", 4, 6, (3, 3), (1, 1), 4, (8, 8), (1, 1)), "onnx", "fp32", "groups must divide"),
        (LayerShape("conv", 4, 6, (3, 3), (1, 1), 1, (8, 8), (1,)), "onnx", "fp32", "need 1 or 2 or 3 numbers each"),
        (LayerShape("conv", 4, 6, (3,) * 3, (1,) * 3, 1, (8,) * 3, (1,) * 3), "tflite", "fp32", "need 1 or 2 numbers"),
        (LayerShape("conv", 4, 6, (3,), (1,), 1, (8,), (1,), (2, 2)), "onnx", "fp32", "need 1 or 2 or 3 numbers each"),
        (LayerShape("conv", 4, 6, (3,), (1,), 1, (8,), (0,), (4,)), "onnx", "fp32", "larger than the padded input"),
        (LayerShape("conv", 4, 6, (3,), (1,), 1, (8,), (2,), output=(4,)), "onnx", "fp32", "less comes out"),
        (LayerShape(TRANSPOSED, 4, 6, (3,), (2,), 1, (8,), (1,), (2,)), "tflite", "fp32", "with stride and dilation"),
        (LayerShape("linear", 4, 6, size=(7,)), "onnx", "fp32", "need 0 or 1 numbers each"),
        (LayerShape("conv", 4, 0, (3,), (1,), 1, (8,), (1,)), "tflite", "int8", "begin at 1"),
        (LayerShape("conv", 4, 4, (5,), (1,), 1, (2,), (1,)), "tflite", "int8", "larger than the padded input"),
    ],
)
def test_what_cannot_be_probed_is_refused(shape: LayerShape, file_format: str, precision: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        build_probe(shape, file_format, precision)


def test_a_missing_tflite_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "edgeprune.exporting.tflite.probes", raising=False)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgeprune\[tflite\]'"):
        build_probe(LAYERS[0], "tflite", "fp32")


def test_a_directory_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match="cannot write the probe of conv"):
        write_probes(LAYERS[:1], "onnx", "fp32", tmp_path / "file" / "below")
