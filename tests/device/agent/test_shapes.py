"""At which sizes a model is run: an open batch is 1, any other open size must be given, and all are told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from device_models import QUICK, ignore
from edgeprune_agent.errors import AgentError
from edgeprune_agent.shapes import settle_shapes
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgeprune.cli import main
from edgeprune.cli.measure import parse_shapes
from edgeprune.core.target import Target
from edgeprune.device.agent.measure import evaluate_model, measure_models, sustain_model
from edgeprune.device.agent.nodes import profile_nodes
from edgeprune.device.board import ModelFile, Session
from edgeprune.device.connect import open_device
from edgeprune.errors import RemoteError, UsageError
from edgeprune.exporting.files import write_file

LOCAL = Target("local", "this machine")
Sizes = Sequence[int | str | None]


@pytest.mark.parametrize(
    ("declared", "wanted", "shapes"),
    [
        ({"x": [1, 3, 8, 8]}, {}, {"x": (1, 3, 8, 8)}),
        ({"x": ["N", 3, 8, 8]}, {}, {"x": (1, 3, 8, 8)}),
        ({"x": [None, 3]}, {}, {"x": (1, 3)}),
        ({"x": ["N", 3], "h": [2, "N", 16]}, {}, {"x": (1, 3), "h": (2, 1, 16)}),
        ({"x": ["N", 3, "H", "W"]}, {"x": (1, 3, 640, 480)}, {"x": (1, 3, 640, 480)}),
        ({"x": ["N", 3, "H", "W"]}, {"": (2, 3, 640, 480)}, {"x": (2, 3, 640, 480)}),
        ({"x": [1, 3], "ids": [1, "T"]}, {"ids": (1, 128)}, {"x": (1, 3), "ids": (1, 128)}),
        ({"scalar": []}, {}, {"scalar": ()}),
        ({"x": ["N", 0]}, {}, {"x": (1, 0)}),
        ({}, {}, {}),
    ],
)
def test_what_is_open_is_a_batch_of_one_or_is_given(
    declared: dict[str, Sizes], wanted: dict[str, tuple[int, ...]], shapes: dict[str, tuple[int, ...]]
) -> None:
    assert settle_shapes(declared, wanted) == shapes


@pytest.mark.parametrize(
    ("declared", "wanted", "message"),
    [
        ({"x": ["N", 3, "H", "W"]}, {}, r"input x \[N, 3, H, W\] has open sizes .*--shape x=1,3,SIZE,SIZE"),
        ({"x": ["N", 3], "h": [2, None, 16]}, {}, r"input h \[2, \?, 16\] .*--shape h=2,SIZE,16"),
        ({"x": ["N", 3, 8, 8]}, {"x": (1, 3, 9, 8)}, r"shape of x: \[1, 3, 9, 8\] does not fit \[N, 3, 8, 8\]"),
        ({"x": ["N", 3]}, {"x": (1, 3, 8)}, "does not fit"),
        ({"x": ["N", "T"]}, {"x": (1, 0)}, "does not fit"),
        ({"x": ["N"], "y": ["N"]}, {"": (1,)}, r"there are several inputs \(x, y\); name one"),
        ({"x": ["N"]}, {"z": (1,)}, "no input 'z'; the inputs are x"),
        ({"x": ["N"]}, {"x": (1,), "": (2,)}, "that of x is given twice"),
        ({"x": [1, 0, "T"]}, {"x": (1, 5, 4)}, r"does not fit \[1, 0, T\]"),
    ],
)
def test_what_does_not_fit_or_is_not_given_is_told(
    declared: dict[str, Sizes], wanted: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(AgentError, match=message) as told:
        settle_shapes(declared, wanted)
    assert told.value.kind == "request"


sizes = st.one_of(st.integers(-1, 9), st.sampled_from(["N", "T", ""]), st.none())


@given(st.dictionaries(st.text("xyz", max_size=2), st.lists(sizes, max_size=4), max_size=3), st.data())
def test_every_answer_is_whole_and_keeps_fixed_sizes(declared: dict[str, Any], data: Any) -> None:
    wanted = data.draw(st.dictionaries(st.sampled_from(["", *declared]), st.lists(st.integers(0, 9), max_size=4)))
    try:
        shapes = settle_shapes(declared, wanted)
    except AgentError:
        return
    assert shapes.keys() == declared.keys()
    for name, shape in shapes.items():
        assert len(shape) == len(declared[name])
        assert all(isinstance(size, int) and size >= 0 for size in shape)
        assert all(
            size == value for size, value in zip(declared[name], shape, strict=True) if type(size) is int and size >= 0
        )


def test_shapes_on_the_command_line() -> None:
    assert parse_shapes(["images=1,3,640,640", "1,4"]) == {"images": (1, 3, 640, 640), "": (1, 4)}
    assert parse_shapes(["serving_default_x:0=1,4", "a=b=2"]) == {"serving_default_x:0": (1, 4), "a=b": (2,)}
    for text in ("images", "x=", "x=1,,3", "x=0,3", "x=1x3", "x=-1", "x=1.5", "x=1,3,", ""):
        with pytest.raises(UsageError, match=r"expected \[NAME=\]SIZES, as images=1,3,640,640"):
            parse_shapes([text])
    with pytest.raises(UsageError, match="given twice"):
        parse_shapes(["x=1", "x=2"])


# files


def make_open_onnx(folder: Path, shape: Sizes = ("batch", 3, "height", "width")) -> ModelFile:
    """A convolution and its mean, of any height and width."""
    weights = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, 1, 1])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "open.onnx"
    path.write_bytes(model.SerializeToString())
    return ModelFile.of(path, "onnxruntime")


def make_open_tflite(folder: Path) -> ModelFile:
    """A TFLite file whose height and width are open: its signature has -1, its shape has 1."""
    from ai_edge_litert import schema_py_generated as schema
    from device_models import make_model

    model = schema.ModelT.InitFromPackedBuf(bytearray(make_model(folder, "litert").path.read_bytes()))
    graph = model.subgraphs[0]
    tensor = graph.tensors[graph.inputs[0]]
    tensor.shapeSignature = [1, -1, -1, 3]
    tensor.shape = [1, 1, 1, 3]
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = folder / "open.tflite"
    path.write_bytes(bytes(builder.Output()))
    return ModelFile.of(path, "litert")


MAKERS = {"images": make_open_onnx, "tflite": make_open_tflite}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_net_of_open_height_and_width_is_never_run_at_one_pixel(make: Any, no_devices: Path, tmp_path: Path) -> None:
    model = make(tmp_path)
    with open_device(LOCAL, None) as device:
        with pytest.raises(RemoteError, match=r"has open sizes beside the batch.*--shape"):
            measure_models(device, [model], 1, QUICK, ignore)
        with pytest.raises(RemoteError, match="has open sizes beside the batch"):
            sustain_model(device, model, LOCAL, 1, ignore)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_given_sizes_are_run_and_stand_in_the_measurement(make: Any, no_devices: Path, tmp_path: Path) -> None:
    model, latencies = make(tmp_path), {}
    for size in (16, 96):
        shape = (1, 3, size, size) if model.runtime == "onnxruntime" else (1, size, size, 3)
        with open_device(LOCAL, None, session=Session(shapes={"": shape})) as device:
            measured = measure_models(device, [model], 1, QUICK, ignore)[model.name]
        assert list(measured.inputs.values()) == [shape]
        latencies[size] = measured.latency.p50_ms
    assert latencies[96] > 3 * latencies[16]


def test_an_open_batch_is_one_and_that_is_told(no_devices: Path, tmp_path: Path) -> None:
    model = make_open_onnx(tmp_path, ("batch", 3, 8, 8))
    with open_device(LOCAL, None) as device:
        measured = measure_models(device, [model], 1, QUICK, ignore)[model.name]
        assert profile_nodes(device, model, 1, ignore)
    assert measured.inputs == {"images": (1, 3, 8, 8)}


def test_inputs_that_are_there_say_their_size(no_devices: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((2, 3, 5, 7), dtype=np.float32)
    with open_device(LOCAL, None) as device:
        outputs = evaluate_model(device, make_open_onnx(tmp_path), rows, ignore)
    assert outputs.shape == (2, 8, 1, 1)


def test_the_command_refuses_and_then_tells_the_sizes(
    no_devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    model = make_open_onnx(tmp_path)
    monkeypatch.setenv("EDGEPRUNE_HOST", "local")
    target = tmp_path / "quick.toml"
    target.write_text('description = "x"\n[protocol]\nmin_samples = 20\nmin_duration_s = 0.05\nprocesses = 2\n')
    words = ["measure", str(model.path), "--target", str(target)]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 1
    assert "--shape images=1,3,SIZE,SIZE" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([*words, "--shape", "images=1,3,32,48", "--output", str(tmp_path / "out.json")])
    assert ended.value.code in (0, 4)
    assert "inputs: images [1, 3, 32, 48]" in capsys.readouterr().out
    assert '"images": [' in (tmp_path / "out.json").read_text()


def save_graph(path: Path, graph: Any) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    write_file(path, model.SerializeToString())


def write_identity(path: Path, name: str, kind: int = TensorProto.FLOAT, sizes: Sizes = ("N", "T")) -> ModelFile:
    values = [helper.make_tensor_value_info(one, kind, sizes) for one in (name, "y")]
    graph = helper.make_graph([helper.make_node("Identity", [name], ["y"])], "g", values[:1], values[1:])
    write_file(
        path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    return ModelFile.of(path, "onnxruntime")


def test_files_whose_inputs_have_other_names_each_get_their_shapes(no_devices: Path, tmp_path: Path) -> None:
    models = [write_identity(tmp_path / f"{name}.onnx", name) for name in ("a", "b")]
    with open_device(LOCAL, None, session=Session(shapes={"a": (1, 9), "b": (1, 5)})) as device:
        measured = measure_models(device, models, 1, QUICK, ignore)
    assert [measured[model.name].inputs for model in models] == [{"a": (1, 9)}, {"b": (1, 5)}]
    with (
        open_device(LOCAL, None, session=Session(shapes={"a": (1, 9), "b": (1, 5), "c": (1, 1)})) as device,
        pytest.raises(RemoteError, match="no input 'c'; the inputs are a, b"),
    ):
        measure_models(device, models, 1, QUICK, ignore)


def test_what_no_input_can_be_made_up_for_is_told(no_devices: Path, tmp_path: Path) -> None:
    words = write_identity(tmp_path / "words.onnx", "words", TensorProto.STRING, (1, 4))
    value = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    constant = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=value)],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    path = tmp_path / "nothing.onnx"
    write_file(
        path, helper.make_model(constant, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    with open_device(LOCAL, None) as device:
        with pytest.raises(RemoteError, match=r"takes a tensor\(string\), and only tensors of numbers"):
            measure_models(device, [words], 1, QUICK, ignore)
        with pytest.raises(RemoteError, match="it has no inputs, so that there is nothing to time"):
            measure_models(device, [ModelFile.of(path, "onnxruntime")], 1, QUICK, ignore)
