"""Run an exported file in its own runtime on this machine, and read what it takes and gives."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.core.artifact import Signature
from edgeprune.errors import ExportError
from edgeprune.exporting.checks import channels_last
from edgeprune.exporting.foreign import foreign

Signatures = tuple[Signature, ...]


def run_onnx(path: Path, inputs: np.ndarray, optimised: bool = True, threads: int = 1) -> np.ndarray:
    """Outputs `[N, ...]` of an ONNX file for `inputs` `[N, ...]`, row by row as files have a batch of 1.

    `optimised=False` runs the graph as it stands (`ORT_DISABLE_ALL`): slow reference arithmetic without fused or
    saturating int8 kernels.

    Raises:
        ExportError: the file cannot be loaded or run, or `inputs` do not fit it.
    """
    inputs = fit_inputs(path, inputs)
    ((signature,), _) = describe_file(path)
    with foreign("running in ONNX Runtime", path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(None, {signature.name: row[None]})[0] for row in inputs])


def run_tflite(path: Path, inputs: np.ndarray, optimised: bool = True, threads: int = 1) -> np.ndarray:
    """Outputs `[N, ...]` of a TFLite file for `inputs` `[N, ...]`, row by row, in LiteRT or else tflite-runtime.

    Floats given to a file that takes integers are quantized by its scale, and what it gives becomes float again.
    `optimised=False` runs its slow reference kernels instead of XNNPACK.

    Raises:
        ExportError: no runtime is installed, the file cannot be loaded or run, or `inputs` do not fit it.
    """
    inputs = fit_inputs(path, inputs)
    with foreign("running in LiteRT", path):
        interpreter = _interpreter(path.read_bytes(), threads, optimised)
        source, result = (side[0] for side in _details(interpreter))

        def run_row(row: np.ndarray) -> np.ndarray:
            interpreter.set_tensor(source["index"], quantize_input(row[None], source))
            interpreter.invoke()
            return _dequantize(np.array(interpreter.get_tensor(result["index"])), result, row.dtype)

        return np.concatenate([run_row(row) for row in inputs])


RUNNERS: dict[str, Callable[..., np.ndarray]] = {"onnx": run_onnx, "tflite": run_tflite}
"""Format to the function that runs a file of it, given its path, inputs and whether by optimised kernels."""


def fit_inputs(path: Path, inputs: np.ndarray) -> np.ndarray:
    """Inputs `[N, ...]` in the layout that a file takes: with channels last where they fit only so.

    Raises:
        ExportError: they fit in neither layout.
    """
    if inputs.ndim == 4:
        (signature, *_), _ = describe_file(path)
        if inputs.shape[1:] != signature.shape[1:] == channels_last(inputs.shape)[1:]:
            inputs = np.ascontiguousarray(np.moveaxis(inputs, 1, -1))
    _check_inputs(path, inputs)
    return inputs


def quantize_input(value: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """Floats as the integers that an input of a TFLite file takes; what it takes as it is stays so."""
    scale, zero = detail["quantization"]
    kind = np.dtype(detail["dtype"])
    if kind == value.dtype or not scale:
        return value
    bounds = np.iinfo(kind)
    return np.asarray(np.clip(np.rint(value / scale) + zero, bounds.min, bounds.max).astype(kind))


def _dequantize(value: np.ndarray, detail: dict[str, Any], wanted: np.dtype[Any]) -> np.ndarray:
    scale, zero = detail["quantization"]
    if value.dtype.kind != "i" or wanted.kind != "f" or not scale:
        return value
    return np.asarray((value.astype(wanted) - zero) * wanted.type(scale))


def check_tflite(content: bytes) -> None:
    """Require that the runtime here has a kernel for every operator of a TFLite model.

    Raises:
        ExportError: no runtime is installed. What the runtime raises passes through: call within :func:`foreign`.
    """
    _interpreter(content)


def describe_file(path: Path) -> tuple[Signatures, Signatures]:
    """The inputs and the outputs of an exported file, by its suffix.

    Raises:
        ExportError: unknown suffix, unreadable file, or a shape that is not fixed.
    """
    describers = {".onnx": _describe_onnx, ".tflite": _describe_tflite}
    if path.suffix not in describers:
        raise ExportError(f"{path}: suffix {path.suffix!r} is none of {', '.join(describers)}")
    with foreign("reading", path):
        return describers[path.suffix](path)


def _describe_onnx(path: Path) -> tuple[Signatures, Signatures]:
    import onnx

    graph = onnx.load(path).graph

    def describe(value: Any) -> Signature:
        tensor = value.type.tensor_type
        if not all(axis.HasField("dim_value") for axis in tensor.shape.dim):
            raise ExportError(f"{path}: {value.name} has no fixed shape; export it with a batch of 1")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        return Signature(value.name, tuple(axis.dim_value for axis in tensor.shape.dim), str(dtype))

    return tuple(map(describe, graph.input)), tuple(map(describe, graph.output))


def _describe_tflite(path: Path) -> tuple[Signatures, Signatures]:
    interpreter = _interpreter(path.read_bytes())
    signatures = list(interpreter.get_signature_list().values())
    inputs, outputs = _details(interpreter)
    names = signatures[0] if signatures else {"inputs": [], "outputs": []}

    def describe(details: list[dict[str, Any]], labels: list[str]) -> Signatures:
        labels = labels if len(labels) == len(details) else [one["name"] for one in details]
        return tuple(
            Signature(label, tuple(map(int, one["shape"])), np.dtype(one["dtype"]).name)
            for label, one in zip(labels, details, strict=True)
        )

    return describe(inputs, names["inputs"]), describe(outputs, names["outputs"])


def _details(interpreter: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return interpreter.get_input_details(), interpreter.get_output_details()


def _interpreter(content: bytes, threads: int = 1, optimised: bool = True) -> Any:
    for module in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        try:
            runtime = importlib.import_module(module)
        except ImportError:
            continue
        kernels = {} if optimised else {"experimental_op_resolver_type": runtime.OpResolverType.BUILTIN_REF}
        interpreter = runtime.Interpreter(model_content=content, num_threads=threads, **kernels)
        interpreter.allocate_tensors()
        return interpreter
    raise ExportError("TFLite: neither ai-edge-litert nor tflite-runtime is here; run: pip install 'edgeprune[tflite]'")


def _check_inputs(path: Path, inputs: np.ndarray) -> Signature:
    signatures, _ = describe_file(path)
    if len(signatures) != 1:
        raise ExportError(f"{path}: has {len(signatures)} inputs; a file with exactly one can be run")
    signature = signatures[0]
    quantized = path.suffix == ".tflite" and signature.dtype in ("int8", "int16") and inputs.dtype == np.float32
    typed = inputs.dtype == signature.dtype or quantized
    fits = len(inputs) > 0 and inputs.shape[1:] == signature.shape[1:] and typed
    if not fits:
        expected = f"at least one row of {list(signature.shape[1:])} {signature.dtype}"
        raise ExportError(f"{path}: inputs of shape {list(inputs.shape)} {inputs.dtype}; expected {expected}")
    return signature
