"""Run one TFLite file in a runtime of another environment: tflite-micro|tflite-runtime FILE INPUTS.npy OUTPUTS.npy.

Inputs are float32; a quantized input gets them by its scale, a quantized output is given back in real numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def load_micro(path: str) -> tuple[Any, Any, Callable[[np.ndarray], np.ndarray]]:
    from tflite_micro import runtime  # type: ignore[import-not-found]

    interpreter = runtime.Interpreter.from_file(path)

    def run(row: np.ndarray) -> np.ndarray:
        interpreter.set_input(row, 0)
        interpreter.invoke()
        return np.array(interpreter.get_output(0))

    return interpreter.get_input_details(0), interpreter.get_output_details(0), run


def load_old(path: str) -> tuple[Any, Any, Callable[[np.ndarray], np.ndarray]]:
    from tflite_runtime.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(row: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], row)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(result["index"]))

    return source, result, run


def scales_of(details: Any) -> tuple[float, int]:
    how = details["quantization_parameters"]
    return float(how["scales"][0]), int(how["zero_points"][0])


def quantize(rows: np.ndarray, details: Any) -> np.ndarray:
    if details["dtype"] == np.float32:
        return rows
    scale, zero = scales_of(details)
    bounds = np.iinfo(details["dtype"])
    return (np.round(rows / scale) + zero).clip(bounds.min, bounds.max).astype(details["dtype"])


def dequantize(outputs: np.ndarray, details: Any) -> np.ndarray:
    if details["dtype"] == np.float32:
        return outputs
    scale, zero = scales_of(details)
    return ((outputs.astype(np.float64) - zero) * scale).astype(np.float32)


if __name__ == "__main__":
    name, path, inputs, outputs = sys.argv[1:]
    source, result, run = {"tflite-micro": load_micro, "tflite-runtime": load_old}[name](path)
    rows = quantize(np.load(inputs), source)
    np.save(outputs, dequantize(np.concatenate([run(row[None]) for row in rows]), result))
