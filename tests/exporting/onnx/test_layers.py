"""Layers read from ONNX files: the same as the graph engine reads from the network itself."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_nets import traced
from layer_nets import OPERATORS, WINDOWS, of_values
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.core.latency.layers import TRANSPOSED, LayerShape, Window, describe_window
from edgeprune.errors import ExportError
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.onnx.layers import read_onnx_layers
from edgeprune.exporting.onnx.quantize import OnnxScheme, quantize_onnx
from edgeprune.graph.costs import list_shapes
from edgeprune.graph.groups import find_groups
from edgeprune.graph.trace import trace_model


class Mixed(nn.Module):
    """Strided, grouped, depthwise, transposed and 1-D convolutions, linear layers on tokens and on vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.grouped = nn.Conv2d(8, 12, (1, 3), padding=(0, 1), groups=4)
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.tokens = nn.Linear(6, 10)
        self.series = nn.Conv1d(10, 4, 7, stride=3)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.grouped(torch.relu(self.depthwise(self.stem(x)))))
        z = self.tokens(y.flatten(2).transpose(1, 2))
        return self.head(self.series(z.transpose(1, 2)).mean(-1))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("layers") / "mixed.onnx"
    example = torch.zeros(1, 3, 17, 16)
    export_onnx(traced(Mixed(), example), example, path)
    return path


def test_as_the_graph_engine_reads_them(file: Path) -> None:
    program = trace_model(Mixed(), torch.zeros(2, 3, 17, 16))
    wanted = list_shapes(find_groups(program), {})
    assert sorted(read_onnx_layers(file)) == sorted(wanted)
    assert len(wanted) == 8


@pytest.mark.parametrize("name", WINDOWS | OPERATORS)
def test_graph_and_file_list_the_same(name: str, tmp_path: Path) -> None:
    build, shape = (WINDOWS | OPERATORS)[name]
    example = torch.zeros(1, *shape)
    program = trace_model(build(), example)
    export_onnx(program, example, tmp_path / "net.onnx")
    listed = list_shapes(find_groups(program), {})
    assert Counter(map(of_values, read_onnx_layers(tmp_path / "net.onnx"))) == Counter(map(of_values, listed))


@pytest.mark.parametrize("name", WINDOWS)
def test_a_described_convolution_writes_and_multiplies_what_torch_does(name: str) -> None:
    build, shape = WINDOWS[name]
    example, written = torch.zeros(1, *shape), dict[str, tuple[int, ...]]()
    net = build()
    layers = find_groups(trace_model(net, example)).layers
    for key, module in net.named_modules():
        module.register_forward_hook(lambda _, __, out, key=key: written.update({key: tuple(out.shape[2:])}))
    with FlopCounterMode(display=False) as counter:
        net(example)
    assert {layer.name: layer.shape.output_size for layer in layers}.items() <= written.items()
    assert 2 * sum(layer.shape.macs for layer in layers) == counter.get_total_flops()


def test_what_a_window_describes() -> None:
    same = Window((3, 3), (1, 1), (2, 2))
    assert describe_window("conv", (3, 8), ((17, 16), (17, 16)), same).padding == (2, 2)
    beyond = describe_window("conv", (3, 8), ((14, 14), (3, 3)), Window((3, 3), (4, 4)))
    assert (beyond.padding, beyond.output_size, beyond.output) == ((0, 0), (3, 3), ())
    even = describe_window("conv", (3, 8), ((16,), (16,)), Window((2,), (1,)))
    assert (even.padding, even.ends, even.output_size) == ((1,), ((1, 0),), (16,))
    up = describe_window(TRANSPOSED, (3, 16), ((16, 16), (32, 32)), Window((3, 3), (2, 2)))
    assert (up.ends, up.values, up.macs) == (((1, 0), (1, 0)), 3 * 16**2 + 16 * 32**2, 3 * 16 * 9 * 16**2)
    wider = describe_window(TRANSPOSED, (3, 16), ((16,), (33,)), Window((2,), (2,)))
    assert (wider.padding, wider.ends) == ((0,), ((0, -1),))


def test_equal_layers_are_equal_however_they_are_written() -> None:
    plain = LayerShape("conv", 3, 8, (3, 1), (2, 1), 1, (9, 9), (1, 0))
    assert plain == replace(plain, dilation=(1, 4), output=(5, 9))
    assert plain != replace(plain, dilation=(2, 1)) != replace(plain, output=(4, 9))
    assert LayerShape("add", 4, 4, size=(8, 8), output=(8, 8)) == LayerShape("add", 4, 4, size=(8, 8))
    assert LayerShape("add", 4, 4, size=(8, 8)).output_size == (8, 8)


@pytest.mark.parametrize("layout", ["qdq", "qoperator"])
def test_quantized_files_have_the_layers_of_the_float_one(file: Path, tmp_path: Path, layout: str) -> None:
    samples = np.random.default_rng(0).standard_normal((4, 3, 17, 16)).astype(np.float32)
    quantized = tmp_path / "int8.onnx"
    quantize_onnx(file, quantized, [samples], OnnxScheme("uint8", "int8", False, layout, "test"))
    assert read_onnx_layers(quantized) == read_onnx_layers(file)


def write(path: Path, nodes: list[onnx.NodeProto], sizes: list[int | str], weight: tuple[int, ...]) -> Path:
    values = np.zeros(weight, np.float32)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(values, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def test_an_open_batch_counts_as_one(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = write(tmp_path / "a.onnx", [node], ["batch", 8], (8, 3))
    assert read_onnx_layers(path) == (LayerShape("linear", 8, 3),)


def test_open_sizes_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    path = write(tmp_path / "a.onnx", [node], [1, 3, "h", "w"], (4, 3, 3, 3))
    with pytest.raises(ExportError, match=r"a\.onnx: input 'x' leaves its size open"):
        read_onnx_layers(path)


def test_products_of_two_activations_are_no_layer_and_recurrence_is_refused(tmp_path: Path) -> None:
    square = helper.make_node("MatMul", ["x", "x"], ["y"])
    with pytest.raises(ExportError, match="no convolution"):
        read_onnx_layers(write(tmp_path / "a.onnx", [square], [4, 4], (1,)))
    lstm = helper.make_node("LSTM", ["x", "w", "w"], ["y"], hidden_size=4)
    with pytest.raises(ExportError, match="operator LSTM"):
        read_onnx_layers(write(tmp_path / "b.onnx", [lstm], [4, 1, 4], (1, 16, 4)))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"no protocol buffer \xff\xfe")
    with pytest.raises(ExportError, match=r"a\.onnx"):
        read_onnx_layers(path)
    with pytest.raises(ExportError, match=r"b\.onnx"):
        read_onnx_layers(tmp_path / "b.onnx")
