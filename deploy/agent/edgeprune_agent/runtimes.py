"""The inference runtimes of a board, behind one face."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edgeprune_agent.errors import AgentError, first_line
from edgeprune_agent.providers import find_shares, make_session
from edgeprune_agent.shapes import settle_shapes

PROVIDERS = {"onnxruntime": ("onnxruntime",), "litert": ("ai-edge-litert", "tflite-runtime")}
"""Packages that provide a runtime, the preferred one first."""
MODULES = {
    "onnxruntime": "onnxruntime",
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}


class Loaded(NamedTuple):
    """A model in its runtime.

    `run` infers on inputs that are in place; `predict` maps one input `[1, ...]` to the first output. `shapes` are the
    inputs' by name, first the one that `predict` takes.
    """

    run: Callable[[], Any]
    predict: Callable[[Any], Any]
    shapes: dict[str, tuple[int, ...]]


def find_runtimes() -> dict[str, str]:
    """Version of each package of an inference runtime that this interpreter has."""
    found = {}
    for name in MODULES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def import_runtime(runtime: str) -> Any:
    """The module of a runtime.

    Raises:
        AgentError: it is unknown, not installed, or does not load here.
    """
    if runtime not in PROVIDERS:
        raise AgentError("request", f"unknown runtime {runtime!r}; expected {' or '.join(PROVIDERS)}")
    installed = [name for name in PROVIDERS[runtime] if name in find_runtimes()]
    if not installed:
        raise AgentError("runtime", f"{' or '.join(PROVIDERS[runtime])} is not installed for {sys.executable}")
    try:
        importlib.import_module("numpy")
        return importlib.import_module(MODULES[installed[0]])
    except Exception as exc:
        raise AgentError("runtime", f"{installed[0]} is installed but does not load: {first_line(exc)}") from exc


def load_model(runtime: str, model: str | bytes, request: dict[str, Any]) -> Loaded:
    """Load a model from its file or its content, with repeatable inputs in place, as a request wants it run.

    Raises:
        AgentError: the runtime is missing or refuses the model, or sizes of its inputs are open.
    """
    module = import_runtime(runtime)
    load = load_onnx if runtime == "onnxruntime" else load_litert
    try:
        return load(module, model, request)
    except AgentError:
        raise
    except MemoryError as exc:
        raise AgentError("memory", "out of memory while a model was loaded") from exc
    except Exception as exc:
        raise AgentError("model", f"{runtime} cannot load it: {first_line(exc)}") from exc


def load_onnx(ort: Any, model: str | bytes, request: dict[str, Any]) -> Loaded:
    """ONNX Runtime, one operator after the other, inputs and outputs bound."""
    session = make_session(ort, model, request)
    binding, feed = session.io_binding(), make_feed(session, request)
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for value in session.get_outputs():
        binding.bind_output(value.name)
    require_inputs(session.get_inputs())
    source, result = session.get_inputs()[0], session.get_outputs()[0].name
    detail = {"dtype": onnx_dtype(source.type), "quantization": (0.0, 0)}

    def predict(row: Any) -> Any:
        return session.run([result], {source.name: quantize(row, detail)})[0]

    shapes = {name: tuple(array.shape) for name, array in feed.items()}
    return Loaded(lambda: session.run_with_iobinding(binding), predict, shapes)


def require_inputs(inputs: Sequence[Any]) -> None:
    """Require a model that takes something.

    Raises:
        AgentError: it does not, so that a runtime computes it once, and nothing is timed.
    """
    if not inputs:
        raise AgentError("model", "it has no inputs, so that there is nothing to time: runtimes compute it beforehand")


def make_feed(session: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Repeatable inputs of an ONNX Runtime session by name, of the shapes that a request gives where they are open.

    Raises:
        AgentError: an open size that nothing says, or a shape that does not fit.
    """
    inputs = session.get_inputs()
    declared = {value.name: value.shape for value in inputs}
    shapes = settle_shapes(declared, request.get("shapes") or {}, bool(request.get("several")))
    return {value.name: make_input(shapes[value.name], onnx_dtype(value.type)) for value in inputs}


def share_nodes(model: str, request: dict[str, Any]) -> dict[str, float]:
    """The share of the nodes that each execution provider of ONNX Runtime ran; empty where the CPU alone was asked for.

    Raises:
        AgentError: the CPU ran some that it should not.
    """
    if request["runtime"] != "onnxruntime" or request.get("provider", "cpu") == "cpu":
        return {}
    ort = import_runtime(request["runtime"])
    return find_shares(ort, model, request, make_feed(make_session(ort, model, request), request))


def onnx_dtype(kind: str) -> str:
    """The numpy name of ONNX Runtime's `tensor(float)`.

    Raises:
        AgentError: an input of it cannot be made up.
    """
    if not kind.startswith("tensor(") or kind == "tensor(string)":
        raise AgentError("model", f"it takes a {kind}, and only tensors of numbers can be made up to time it by")
    name = kind[len("tensor(") : -1]
    return {"float": "float32", "double": "float64"}.get(name, name)


def load_litert(module: Any, model: str | bytes, request: dict[str, Any]) -> Loaded:
    """LiteRT, or tflite-runtime, with its default delegate (XNNPACK)."""
    source = {"model_content": model} if isinstance(model, bytes) else {"model_path": model}
    interpreter = module.Interpreter(num_threads=request["threads"], **source)
    require_inputs(interpreter.get_input_details())
    declared = {detail["name"]: declared_sizes(detail) for detail in interpreter.get_input_details()}
    shapes = settle_shapes(declared, request.get("shapes") or {}, bool(request.get("several")))
    for detail in interpreter.get_input_details():
        if tuple(detail["shape"]) != shapes[detail["name"]]:
            interpreter.resize_tensor_input(detail["index"], shapes[detail["name"]])
    interpreter.allocate_tensors()
    inputs, output = interpreter.get_input_details(), interpreter.get_output_details()[0]
    for detail in inputs:
        interpreter.set_tensor(detail["index"], make_input(detail["shape"], detail["dtype"]))

    def predict(row: Any) -> Any:
        interpreter.set_tensor(inputs[0]["index"], quantize(row, inputs[0]))
        interpreter.invoke()
        return dequantize(interpreter.get_tensor(output["index"]), output, row.dtype)

    return Loaded(interpreter.invoke, predict, shapes)


def declared_sizes(detail: dict[str, Any]) -> list[int | None]:
    """The sizes of a TFLite input, open ones as None: its shape has 1 for these, its signature -1."""
    signature = detail.get("shape_signature")
    sizes = detail["shape"] if signature is None or len(signature) == 0 else signature
    return [int(size) if size > 0 else None for size in sizes]


def quantize(row: Any, detail: dict[str, Any]) -> Any:
    """Floats as the model's whole numbers, by its input's scale and zero point; its own type as it is.

    Raises:
        AgentError: another type.
    """
    import numpy

    scale, zero = detail["quantization"]
    dtype = numpy.dtype(detail["dtype"])
    if dtype == row.dtype:
        return row
    if dtype.kind not in "iu" or row.dtype.kind != "f" or not scale:
        raise AgentError("request", f"inputs are {row.dtype}, but the model takes {dtype}")
    bounds = numpy.iinfo(dtype)
    return numpy.clip(numpy.rint(row / scale) + zero, bounds.min, bounds.max).astype(dtype)


def dequantize(values: Any, detail: dict[str, Any], wanted: Any) -> Any:
    """A quantized output as floats, where floats came in."""
    scale, zero = detail["quantization"]
    if values.dtype.kind not in "iu" or wanted.kind != "f" or not scale:
        return values
    return ((values.astype("float32") - zero) * scale).astype("float32")


def make_input(shape: Any, dtype: Any) -> Any:
    """Repeatable values: normal floats, bytes over their whole range, small other whole numbers."""
    import numpy

    random = numpy.random.default_rng(0)
    kind = numpy.dtype(dtype)
    if kind.kind == "f":
        return random.standard_normal(shape).astype(kind)
    if kind.itemsize == 1 and kind.kind in "iu":
        bounds = numpy.iinfo(kind)
        return random.integers(bounds.min, bounds.max + 1, shape).astype(kind)
    return random.integers(0, 2, shape).astype(kind)
