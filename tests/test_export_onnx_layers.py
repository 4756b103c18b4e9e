"""Layers read from ONNX files: the same as the graph engine reads from the network itself."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_nets import traced
from onnx import TensorProto, helper
from torch import Tensor, nn

from edgeprune.core.layers import LayerShape
from edgeprune.errors import ExportError
from edgeprune.export.onnx import export_onnx
from edgeprune.export.onnx_layers import read_onnx_layers
from edgeprune.export.quantize_onnx import OnnxScheme, quantize_onnx
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


def key(shape: LayerShape) -> tuple[object, ...]:
    return (shape.op, shape.cin, shape.cout, shape.kernel, shape.stride, shape.groups, shape.size, shape.padding)


def test_as_the_graph_engine_reads_them(file: Path) -> None:
    program = trace_model(Mixed(), torch.zeros(2, 3, 17, 16))
    wanted = [layer.shape for layer in find_groups(program).layers]
    assert sorted(map(key, read_onnx_layers(file)), key=str) == sorted(map(key, wanted), key=str)
    assert len(wanted) == 7


@pytest.mark.parametrize("layout", ["qdq", "qoperator"])
def test_quantized_files_have_the_layers_of_the_float_one(file: Path, tmp_path: Path, layout: str) -> None:
    samples = np.random.default_rng(0).standard_normal((4, 3, 17, 16)).astype(np.float32)
    quantized = tmp_path / "int8.onnx"
    quantize_onnx(file, quantized, [samples], OnnxScheme("uint8", "int8", False, layout, "test"))
    assert sorted(map(key, read_onnx_layers(quantized)), key=str) == sorted(map(key, read_onnx_layers(file)), key=str)


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
