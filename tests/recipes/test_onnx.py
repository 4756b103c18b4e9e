"""ONNX files as models: what they become, and what is refused in which words."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from numpy.typing import NDArray
from onnx.numpy_helper import from_array
from torch import nn

from edgeprune.errors import MissingExtra, RecipeError
from edgeprune.graph.groups import find_groups
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import is_dynamic, trace_model
from edgeprune.recipes.check import check_recipe
from edgeprune.recipes.load import load_recipe
from edgeprune.recipes.onnx_model import load_onnx

torch.set_num_threads(1)


def write(folder: Path, signature: str, body: str, opset: int = 13, **arrays: NDArray[np.generic]) -> Path:
    """An ONNX file from its text and its weights."""
    network = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> net {signature} {{ {body} }}')
    network.graph.initializer.extend(from_array(value, name) for name, value in arrays.items())
    path = folder / "net.onnx"
    onnx.save(network, path)
    return path


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def whole(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


OPEN = "(float[n, 3, h, w] x) => (float[n, 4] y)"
CLASSIFIER = """
    a = Conv<pads = [1, 1, 1, 1]>(x, kernel)
    b = Add(a, shift)
    c = Relu(b)
    d = Mul(c, scale)
    e = Conv<strides = [2, 2]>(d, kernel2, bias2)
    size = Shape(e)
    first = Slice(size, zero, one)
    flat = Concat<axis = 0>(first, rest)
    f = Reshape(e, flat)
    g = MatMul(f, matrix)
    y = Add(summand, g)
"""
WEIGHTS = {
    "kernel": normal(6, 3, 3, 3),
    "shift": normal(1, 6, 1, 1),
    "scale": normal(1, 6, 1, 1),
    "kernel2": normal(8, 6, 2, 2),
    "bias2": normal(8),
    "zero": whole(0),
    "one": whole(1),
    "rest": whole(-1),
    "matrix": normal(8 * 16, 4),
    "summand": normal(4),
}


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return write(tmp_path, OPEN, CLASSIFIER, **WEIGHTS)


def test_weights_are_parameters_wherever_the_file_has_them(classifier: Path) -> None:
    model = load_onnx(classifier, (3, 8, 8))
    shapes = sorted(tuple(value.shape) for value in model.parameters())
    assert shapes == sorted([(6, 3, 3, 3), (6,), (1, 6, 1, 1), (8, 6, 2, 2), (8,), (4, 128), (4,)])
    assert not model.training
    assert model(torch.zeros(5, 3, 8, 8)).shape == (5, 4)


def test_it_is_traced_with_an_open_batch_and_pruned(classifier: Path) -> None:
    model, example = load_onnx(classifier, (3, 8, 8)), torch.randn(2, 3, 8, 8)
    program = trace_model(model, example)
    assert is_dynamic(program)
    analysis = find_groups(program)
    keep = {group.name: range(group.size // 2) for group in analysis.groups if not group.frozen}
    assert sorted(len(kept) for kept in keep.values()) == [3, 4]
    pruned = apply_plan(program, analysis, keep)
    assert check_surgery(program, analysis, keep, pruned, example) <= 1e-9
    pruned(torch.randn(7, 3, 8, 8)).square().sum().backward()
    assert all(value.grad is not None for value in pruned.parameters())


def test_a_recipe_returns_it(classifier: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_text(f"""
import torch
from edgeprune.recipes.onnx_model import load_onnx
def model():
    return load_onnx({str(classifier)!r}, (3, 8, 8))
def train_data():
    return [(torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))]
eval_data = calibration_data = train_data
""")
    check_recipe(load_recipe(str(recipe)))


def test_a_batch_that_the_file_fixes_is_opened(tmp_path: Path) -> None:
    body = "a = Conv(x, kernel) b = Reshape(a, shape) y = Gemm<transB = 1>(b, matrix, summand)"
    arrays = {"kernel": normal(6, 3, 3, 3), "shape": whole(1, 54), "matrix": normal(4, 54), "summand": normal(4)}
    path = write(tmp_path, "(float[1, 3, 5, 5] x) => (float[1, 4] y)", body, **arrays)
    assert load_onnx(path)(torch.zeros(3, 3, 5, 5)).shape == (3, 4)


def test_operators_with_sizes_in_tensors_become_literal(tmp_path: Path) -> None:
    body = """
        a = Pad<mode = "reflect">(x, amounts)
        b, c = Split<axis = 1, num_outputs = 2>(a)
        d = Slice(b, starts, ends, axes, steps)
        e = Resize<mode = "linear", coordinate_transformation_mode = "half_pixel">(d, , factors)
        f = ReduceMean<keepdims = 0>(e, axes)
        g = GlobalMaxPool(c)
        h = Squeeze(g, axes)
        i = Unsqueeze(h, last)
        j = Tile(i, times)
        k = ReduceSum<keepdims = 0>(j, last)
        y = Add(f, k)
    """
    arrays = {
        "amounts": whole(0, 0, 1, 2, 0, 0, 2, 1),
        "starts": whole(1, -1),
        "ends": whole(2**62, -(2**62)),
        "axes": whole(2, 3),
        "steps": whole(2, -1),
        "factors": np.array([1, 1, 2, 2], np.float32),
        "last": whole(-1),
        "times": whole(1, 1, 3),
    }
    path = write(tmp_path, "(float[n, 4, 6, 6] x) => (float[n, 2] y)", body, opset=18, **arrays)
    model, example = load_onnx(path), torch.randn(3, 4, 6, 6)
    assert torch.allclose(trace_model(model, example)(example), model(example))


def test_what_is_computed_from_sizes_is_no_weight(tmp_path: Path) -> None:
    body = """
        size = Shape(x)
        width = Gather(size, two)
        steps = Range(zero, width, one)
        offsets = Cast<to = 1>(steps)
        a = Add(x, offsets)
        y = MatMul(a, matrix)
    """
    numbers = {"two": np.int64(2), "zero": np.int64(0), "one": np.int64(1)}
    arrays = {name: np.array(value) for name, value in numbers.items()}
    path = write(tmp_path, "(float[n, 5, 6] x) => (float[n, 5, 2] y)", body, **arrays, matrix=normal(6, 2))
    model = load_onnx(path)
    assert [tuple(value.shape) for value in model.parameters()] == [(2, 6)]
    assert [value.tolist() for value in model.buffers()] == [[0, 1, 2, 3, 4, 5]]


def test_tokens_in_front_of_the_batch_keep_their_place(tmp_path: Path) -> None:
    body = """
        a = Transpose<perm = [1, 0, 2]>(x)
        size = Shape(a)
        batch = Slice(size, one, two)
        shape = Concat<axis = 0>(tokens, batch, heads, rest)
        b = Reshape(a, shape)
        c = ReduceMean<axes = [0, 2], keepdims = 0>(b)
        y = MatMul(c, matrix)
    """
    arrays = {"one": whole(1), "two": whole(2), "tokens": whole(5), "heads": whole(2), "rest": whole(3)}
    path = write(tmp_path, "(float[n, 5, 6] x) => (float[n, 4] y)", body, **arrays, matrix=normal(3, 4))
    assert load_onnx(path)(torch.zeros(7, 5, 6)).shape == (7, 4)


SQUARE = "(float[n, 3, 8, 8] x) => (float[n, 3, a, b] y)"


@pytest.mark.parametrize(
    ("signature", "body", "arrays", "words"),
    [
        (OPEN, CLASSIFIER, WEIGHTS, r"input 'x' is \[open, 3, open, open\]; give load_onnx the sizes after the batch"),
        ("(float[n, 3] x, float[n, 3] z) => (float[n, 3] y)", "y = Add(x, z)", {}, "has 2 inputs"),
        (SQUARE, "y = GlobalLpPool(x)", {}, "no conversion of GlobalLpPool"),
        (SQUARE, "s = ReduceMax<keepdims = 0>(x) t = Cast<to = 7>(s) u = Unsqueeze(t, z) v = Concat<axis = 0>(f, u) "
         "y = Reshape(x, v)", {"z": whole(0), "f": whole(0, 3, -1)}, "Reshape '': its sizes hang on the data"),
        (SQUARE, 'y = Resize<mode = "nearest", nearest_mode = "ceil", coordinate_transformation_mode = "asymmetric">'
         "(x, , s)", {"s": np.array([1, 1, 1.5, 1.5], np.float32)}, "differs from ONNX Runtime by"),
        (SQUARE, "y = Reshape(x, s)", {"s": whole(3, -1, 8, 8)}, "is the batch its first dimension throughout"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused(
    tmp_path: Path, signature: str, body: str, arrays: dict[str, NDArray[np.generic]], words: str
) -> None:
    path = write(tmp_path, signature, body, **arrays)
    with pytest.raises(RecipeError, match=words) as caught:
        load_onnx(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x80\x02 something else")
    with pytest.raises(RecipeError, match="not a valid ONNX file"):
        load_onnx(tmp_path / "net.onnx")
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        load_onnx(tmp_path / "none.onnx")


def test_sizes_that_contradict_the_file_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, SQUARE, "y = Relu(x)")
    assert isinstance(load_onnx(path, (3, 8, 8)), nn.Module)
    with pytest.raises(RecipeError, match="give load_onnx the sizes"):
        load_onnx(path, (3, 9, 9))


def test_onnx2torch_is_asked_for_and_torchvision_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, SQUARE, "y = Relu(x)")
    load_onnx(path)
    assert "torchvision" not in sys.modules
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgeprune\[onnx-input\]'"):
        load_onnx(path)
