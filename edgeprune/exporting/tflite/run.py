"""TFLite files in LiteRT on this machine: their outputs, all their tensors, and what they take and give."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.core.artifact import Signature
from edgeprune.exporting.formats import Signatures, Values
from edgeprune.extras import comes_with


def run_tflite(path: Path, inputs: np.ndarray, optimised: bool = True, threads: int = 1) -> np.ndarray:
    """Outputs `[N, ...]` of a file for inputs that fit it, in LiteRT or else tflite-runtime.

    Floats given to a file that takes integers are quantized by its scale, and what it gives becomes float again.
    `optimised=False` runs its slow reference kernels instead of XNNPACK.

    Raises:
        MissingExtra: no runtime is installed.
    """
    interpreter = _interpreter(path.read_bytes(), threads, optimised)
    source, result = (side[0] for side in _details(interpreter))

    def run_row(row: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], quantize_input(row[None], source))
        interpreter.invoke()
        return _dequantize(np.array(interpreter.get_tensor(result["index"])), result, row.dtype)

    return np.concatenate([run_row(row) for row in inputs])


def run_rows(path: Path, rows: np.ndarray) -> Iterator[Values]:
    """Every float tensor of a file for each row in turn; valid until the next row."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=path.read_bytes(),
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    (feed,) = (detail["index"] for detail in interpreter.get_input_details())
    computed = {int(index) for operator in interpreter._get_ops_details() for index in operator["outputs"]} | {feed}
    names = {
        detail["index"]: detail["name"]
        for detail in interpreter.get_tensor_details()
        if detail["index"] in computed and detail["dtype"] == np.float32
    }
    for row in rows:
        interpreter.set_tensor(feed, row[None])
        interpreter.invoke()
        yield {name: interpreter.get_tensor(index) for index, name in names.items()}


def quantize_input(value: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """Floats as the integers that an input of a TFLite file takes; what it takes as it is stays so."""
    scale, zero = detail["quantization"]
    kind = np.dtype(detail["dtype"])
    if kind == value.dtype or not scale:
        return value
    bounds = np.iinfo(kind)
    return np.asarray(np.clip(np.rint(value / scale) + zero, bounds.min, bounds.max).astype(kind))


def _dequantize(value: np.ndarray, detail: dict[str, Any], dtype: np.dtype[Any]) -> np.ndarray:
    scale, zero = detail["quantization"]
    if value.dtype.kind != "i" or dtype.kind != "f" or not scale:
        return value
    return np.asarray((value.astype(dtype) - zero) * dtype.type(scale))


def check_tflite(content: bytes) -> None:
    """Require that the runtime here has a kernel for every operator of a TFLite model.

    Raises:
        MissingExtra: no runtime is installed. What the runtime raises passes through: call within :func:`foreign`.
    """
    _interpreter(content)


def describe_tflite(path: Path) -> tuple[Signatures, Signatures]:
    """The inputs and the outputs of a file, by their names in its signature."""
    interpreter = _interpreter(path.read_bytes())
    signatures = list(interpreter.get_signature_list().values())
    inputs, outputs = _details(interpreter)
    names = signatures[0] if signatures else {"inputs": [], "outputs": []}

    def describe(details: list[dict[str, Any]], labels: list[str]) -> Signatures:
        labels = labels if len(labels) == len(details) else [detail["name"] for detail in details]
        return tuple(
            Signature(label, tuple(map(int, detail["shape"])), np.dtype(detail["dtype"]).name)
            for label, detail in zip(labels, details, strict=True)
        )

    return describe(inputs, names["inputs"]), describe(outputs, names["outputs"])


def _details(interpreter: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return interpreter.get_input_details(), interpreter.get_output_details()


def _interpreter(content: bytes, threads: int = 1, optimised: bool = True) -> Any:
    runtime = _import_runtime()
    kernels = {} if optimised else {"experimental_op_resolver_type": runtime.OpResolverType.BUILTIN_REF}
    interpreter = runtime.Interpreter(model_content=content, num_threads=threads, **kernels)
    interpreter.allocate_tensors()
    return interpreter


def _import_runtime() -> Any:
    with comes_with("tflite"):
        try:
            return importlib.import_module("ai_edge_litert.interpreter")
        except ImportError:
            return importlib.import_module("tflite_runtime.interpreter")
