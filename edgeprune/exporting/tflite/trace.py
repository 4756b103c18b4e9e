"""What each layer of a TFLite file computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.exporting.parity.layer_outputs import LayerOutput, Trace
from edgeprune.exporting.tflite.run import quantize_input
from edgeprune.exporting.tflite.schema import pack_tflite, unpack_tflite


def _open_tflite(path: Path, optimised: bool) -> Any:
    """An interpreter whose tensors can all be read: XNNPACK keeps only those that are outputs."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    if optimised:
        _, model = unpack_tflite(path.read_bytes())
        graph = model.subgraphs[0]
        graph.outputs = sorted({int(index) for operator in graph.operators for index in operator.outputs})
        return Interpreter(model_content=pack_tflite(model), num_threads=1)
    return Interpreter(
        model_content=path.read_bytes(),
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )


def trace_tflite(path: Path, inputs: np.ndarray, optimised: bool) -> Trace:
    """Every layer's output for `inputs` `[N, ...]` that fit the file."""
    interpreter = _open_tflite(path, optimised)
    interpreter.allocate_tensors()
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    operators = [operator for operator in interpreter._get_ops_details() if operator["op_name"] != "DELEGATE"]
    (source,) = interpreter.get_input_details()
    feed = source["index"]
    computed = {int(index) for operator in operators for index in operator["outputs"]}
    rows: dict[int, list[np.ndarray]] = {index: [] for index in sorted(computed)}
    for row in inputs:
        interpreter.set_tensor(feed, quantize_input(row[None], source))
        interpreter.invoke()
        for index, values in rows.items():
            values.append(_real(interpreter.get_tensor(index), tensors[index]))

    def read_constant(index: int) -> np.ndarray | None:
        stored = index not in computed and index not in (feed, -1)
        return _real(interpreter.get_tensor(index), tensors[index]) if stored else None

    trace = {}
    for operator in operators:
        outputs = [int(index) for index in operator["outputs"]]
        for index in outputs:
            joined = np.concatenate(rows[index])
            trace[_plain(tensors[index]["name"])] = _tflite_layer(operator, tensors, index, joined, read_constant)
    return trace


def _tflite_layer(
    operator: dict[str, Any],
    tensors: dict[int, dict[str, Any]],
    index: int,
    output: np.ndarray,
    read_constant: Callable[[int], np.ndarray | None],
) -> LayerOutput:
    operands = [int(operand) for operand in operator["inputs"]]
    constants = tuple(read_constant(operand) for operand in operands)
    weights = [
        operand for operand, value in zip(operands, constants, strict=True) if value is not None and value.ndim > 1
    ]
    node = _plain(tensors[index]["name"])
    label = tensors[weights[0]]["name"] if weights and "arith." not in tensors[weights[0]]["name"] else node
    return LayerOutput(node, _short(label), operator["op_name"], output, constants)


def _plain(name: str) -> str:
    """A tensor's name as the float file has it: the quantizer appends to those of inputs and outputs."""
    return name.removesuffix("_quantized").removesuffix("_dequant")


def _short(name: str) -> str:
    """`module.Net/torch.nn.modules.conv.Conv2d_body;2` as `Conv2d_body`; any other name as it is."""
    parts = [part for part in name.split(";") if "/" in part]
    return "/".join(step.rpartition(".")[2] for step in parts[-1].split("/")[1:]) if parts else name


def _real(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """Real numbers of a tensor, by its scales and zero points where it has some."""
    how = tensor["quantization_parameters"]
    scales, zeros = how["scales"], how["zero_points"]
    if not len(scales):
        return np.array(values)
    shape = [1] * values.ndim
    if len(scales) > 1:
        shape[how["quantized_dimension"]] = -1
    real = (values.astype(np.float64) - np.reshape(zeros, shape)) * np.reshape(scales, shape)
    return np.asarray(real, np.float32)
