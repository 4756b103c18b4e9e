"""LiteRT, or tflite-runtime, with its default delegate (XNNPACK)."""

from __future__ import annotations

from typing import Any

from edgeprune_agent.runtimes import Loaded
from edgeprune_agent.shapes import settle_shapes
from edgeprune_agent.values import dequantize, make_input, quantize, require_inputs

FORMAT = "tflite"
PACKAGES = {"ai-edge-litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}


def load(module: Any, model: str | bytes, request: dict[str, Any]) -> Loaded:
    """A model, from its file or its content, with repeatable inputs in place."""
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
