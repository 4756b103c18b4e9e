"""Probes of attention and of activations: right numbers in both runtimes and precisions, and the operators of a net."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional

from edgeprune.core.latency.layers import LayerShape
from edgeprune.exporting.probing.probes import build_probe, write_probes

ATTENTION = LayerShape("attention", 24, 32, (1, 1), (1, 1), 4, (10, 7), (0, 0))
ACTIVATIONS = [LayerShape(name, 12, 12, (1,), (1,), 1, (30,), (0,)) for name in ("gelu", "silu", "hardswish")]
STEP = 4 / 255
ALIKE = {"fp32": 1e-5, "int8": 0.15}
"""Largest difference: 8 bits have steps of 0.016, and attention rounds at six places."""


def make_inputs(shape: LayerShape) -> dict[str, np.ndarray]:
    """Within what the int8 tensors of a probe hold, -2 to 2, as the products of queries and keys are too."""
    sizes = {"input": (1, shape.size[0], shape.cin)}
    if shape.op == "attention":
        queries, keys = shape.size
        sizes = {"query": (1, queries, shape.cin), "key": (1, keys, shape.cin), "value": (1, keys, shape.cout)}
    random, limits = np.random.default_rng(0), {"query": 0.8, "key": 0.8}
    drawn = {name: random.uniform(-1, 1, size) * limits.get(name, 1.9) for name, size in sizes.items()}
    return {name: value.astype(np.float32) for name, value in drawn.items()}


def compute(shape: LayerShape, inputs: dict[str, np.ndarray]) -> np.ndarray:
    tensors = [torch.from_numpy(value) for value in inputs.values()]
    if shape.op != "attention":
        return np.asarray(getattr(functional, shape.op)(tensors[0]))
    query, key, value = (one.unflatten(-1, (shape.groups, -1)).transpose(1, 2) for one in tensors)
    mixed = functional.scaled_dot_product_attention(query, key, value)
    return np.asarray(mixed.transpose(1, 2).flatten(2))


def run_onnx(model: bytes, inputs: dict[str, np.ndarray], tmp_path: Path) -> tuple[np.ndarray, list[str]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(tmp_path / "optimized.onnx")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    quantized = "uint8" in session.get_inputs()[0].type
    fed: dict[str, Any] = dict(inputs)
    if quantized:
        fed = {name: np.round(value / STEP + 128).astype(np.uint8) for name, value in inputs.items()}
    (found,) = session.run(None, fed)
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    return (found.astype(np.float32) - 128) * STEP if quantized else found, operators


def run_tflite(model: bytes, inputs: dict[str, np.ndarray]) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        value, (scale, zero) = inputs[detail["name"]], detail["quantization"]
        interpreter.set_tensor(detail["index"], np.round(value / scale + zero).astype(np.int8) if scale else value)
    interpreter.invoke()
    detail = interpreter.get_output_details()[0]
    found, (scale, zero) = interpreter.get_tensor(detail["index"]), detail["quantization"]
    return np.asarray((found.astype(np.float32) - zero) * scale if scale else found)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("shape", [ATTENTION, *ACTIVATIONS], ids=LayerShape.describe)
def test_probes_of_operators_compute_them(shape: LayerShape, precision: str, tmp_path: Path) -> None:
    inputs = make_inputs(shape)
    expected = compute(shape, inputs)
    found, _ = run_onnx(build_probe(shape, "onnx", precision), inputs, tmp_path)
    np.testing.assert_allclose(found, expected, atol=ALIKE[precision])
    np.testing.assert_allclose(
        run_tflite(build_probe(shape, "tflite", precision), inputs), expected, atol=ALIKE[precision]
    )


@pytest.mark.parametrize(
    ("shape", "precision", "operators"),
    [
        (ATTENTION, "fp32", {"Reshape", "Transpose", "FusedMatMul", "Softmax", "MatMul"}),
        (ATTENTION, "int8", {"Reshape", "Transpose", "QLinearMul", "QLinearMatMul", "QLinearSoftmax"}),
        (ACTIVATIONS[0], "fp32", {"Gelu"}),
        (ACTIVATIONS[0], "int8", {"DequantizeLinear", "Gelu", "QuantizeLinear"}),
        (ACTIVATIONS[1], "fp32", {"QuickGelu"}),
        (ACTIVATIONS[1], "int8", {"QLinearSigmoid", "QLinearMul"}),
    ],
)
def test_the_runtime_sees_what_it_sees_in_a_net(
    shape: LayerShape, precision: str, operators: set[str], tmp_path: Path
) -> None:
    """The operators are those of a vision transformer's exported file, optimised by the same runtime."""
    _, found = run_onnx(build_probe(shape, "onnx", precision), make_inputs(shape), tmp_path)
    assert set(found) == operators


def test_files_of_operators_have_names_of_their_own(tmp_path: Path) -> None:
    shapes = {ATTENTION, *ACTIVATIONS, LayerShape("attention", 24, 32, (1, 1), (1, 1), 2, (10, 7), (0, 0))}
    assert len(set(write_probes(shapes, "onnx", "fp32", tmp_path).values())) == len(shapes)
