"""Biases of static integer TFLite files that are beyond their integers, made to fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.exporting.quantizing.biases import IntegerLayer, coarsen, widen_scales
from edgeprune.exporting.tflite.schema import name_values, pack_tflite, unpack_tflite

INPUTS = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
"""Operator to the places of what it reads, of its weights and of its bias."""


def fit_tflite_biases(content: bytes, source: Path) -> bytes:
    """A static integer TFLite file with biases that fit, given the float file that it was made from."""
    schema, model = unpack_tflite(content)
    layers = list(_read_layers(schema, model))
    if not any(layer.overflows for layer in layers):
        return content
    biases = _read_biases(source)
    tensors, widened = model.subgraphs[0].tensors, widen_scales(layers, biases)
    for layer in layers:
        scales = widened.get(layer.weight)
        if scales is None or layer.name not in biases:
            continue
        weight, bias = tensors[layer.weight], tensors[layer.bias]
        _store_(schema, model, bias, layer.hold(biases[layer.name], scales), layer.input_scale * scales)
        if not np.array_equal(weight.quantization.scale, scales):
            values = np.frombuffer(bytes(model.buffers[weight.buffer].data), np.int8).reshape(weight.shape)
            axis = weight.quantization.quantizedDimension
            _store_(schema, model, weight, coarsen(values, layer.scales, scales, axis), scales)
    return pack_tflite(model)


def _read_layers(schema: Any, model: Any) -> Iterator[IntegerLayer]:
    """Layers with integer weights and biases, named by their bias."""
    kinds = name_values(schema.BuiltinOperator)
    graph = model.subgraphs[0]
    for operator in graph.operators:
        places = INPUTS.get(kinds[model.operatorCodes[operator.opcodeIndex].builtinCode], ())
        inputs = [int(operator.inputs[place]) for place in places if place < len(operator.inputs)]
        if len(inputs) == 3 and inputs[2] >= 0:
            source, weight, bias = (graph.tensors[index] for index in inputs)
            kind = {schema.TensorType.INT32: np.int32, schema.TensorType.INT64: np.int64}.get(bias.type)
            data = model.buffers[bias.buffer].data
            if kind is not None and weight.type == schema.TensorType.INT8 and data is not None:
                scales = np.asarray(weight.quantization.scale, np.float32)
                steps = np.frombuffer(bytes(data), kind)
                scale = float(source.quantization.scale[0])
                yield IntegerLayer(bias.name.decode(), scale, inputs[1], scales, inputs[2], steps)


def _read_biases(path: Path) -> dict[str, np.ndarray]:
    """Stored vectors of a float file by their name."""
    schema, model = unpack_tflite(path.read_bytes())
    stored = [(tensor, model.buffers[tensor.buffer].data) for tensor in model.subgraphs[0].tensors]
    return {
        tensor.name.decode(): np.frombuffer(bytes(data), np.float32)
        for tensor, data in stored
        if tensor.type == schema.TensorType.FLOAT32 and len(tensor.shape) == 1 and data is not None
    }


def _store_(schema: Any, model: Any, tensor: Any, values: np.ndarray, scales: np.ndarray) -> None:
    """Give a tensor other values, in a buffer of its own, and other scales."""
    model.buffers.append(schema.BufferT())
    tensor.buffer = len(model.buffers) - 1
    model.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    tensor.quantization.scale = scales.astype(np.float32)
