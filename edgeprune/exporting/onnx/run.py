"""ONNX files in ONNX Runtime on this machine: their outputs, all their tensors, and what they take and give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.core.artifact import Signature
from edgeprune.errors import ExportError
from edgeprune.exporting.formats import Signatures, Values


def open_session(model: str | bytes, optimised: bool = True, threads: int = 1) -> Any:
    """A session of a file or its content, on the CPU; not `optimised`: the graph as it stands (`ORT_DISABLE_ALL`)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_onnx(path: Path, inputs: np.ndarray, optimised: bool = True, threads: int = 1) -> np.ndarray:
    """Outputs `[N, ...]` of a file for inputs that fit it: slow reference arithmetic if not `optimised`."""
    session = open_session(str(path), optimised, threads)
    feed = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {feed: row[None]})[0] for row in inputs])


def run_rows(path: Path, rows: np.ndarray) -> Iterator[Values]:
    """Every float tensor of a file for each row in turn; valid until the next row."""
    import onnx

    model = onnx.load(path)
    graph = onnx.shape_inference.infer_shapes(model).graph
    real = {value.name for value in (*graph.value_info, *graph.output) if value.type.tensor_type.elem_type == 1}
    names = [name for node in graph.node for name in node.output if name in real]
    give_(model, names)
    session, feed = open_session(model.SerializeToString(), optimised=False), model.graph.input[0].name
    for row in rows:
        yield {feed: row[None], **dict(zip(names, session.run(names, {feed: row[None]}), strict=True))}


def give_(model: Any, names: list[str]) -> None:
    """Make tensors outputs of a model, beside those that it has."""
    import onnx

    output_names = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in output_names)


def describe_onnx(path: Path) -> tuple[Signatures, Signatures]:
    """The inputs and the outputs of a file.

    Raises:
        ExportError: a shape is not fixed.
    """
    import onnx

    graph = onnx.load(path).graph

    def describe(value: Any) -> Signature:
        tensor = value.type.tensor_type
        if not all(axis.HasField("dim_value") for axis in tensor.shape.dim):
            raise ExportError(f"{path}: {value.name} has no fixed shape; export it with a batch of 1")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        return Signature(value.name, tuple(axis.dim_value for axis in tensor.shape.dim), str(dtype))

    return tuple(map(describe, graph.input)), tuple(map(describe, graph.output))
