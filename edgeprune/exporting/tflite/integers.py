"""Static int8 TFLite files as code generators want them: integers at the ends, settled sizes, common operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.errors import ExportError
from edgeprune.exporting.tflite.schema import name_kinds, pack_tflite, unpack_tflite


def settle_integers(content: bytes) -> bytes:
    """The same net with int8 input and output, without open sizes, in operators that generators know.

    A QUANTIZE at the beginning and a DEQUANTIZE at the end are left to the caller, by the scales of the new ends. The
    mean of an image becomes a depthwise convolution with weights of 1, whose scale is 1 / (height * width): the same
    sum, rounded once. What it computes is held against LiteRT by whoever makes the code.

    Raises:
        ExportError: it has more than one input or output, or one that is no int8.
    """
    schema, model = unpack_tflite(content)
    graph = model.subgraphs[0]
    if len(model.subgraphs) != 1 or len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ExportError(f"a net of {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; expected one of each")
    _cut_ends_(schema, model)
    for tensor in graph.tensors:
        tensor.shapeSignature = None
    _replace_means_(schema, model)
    for operator in graph.operators:
        _settle_options_(schema, model, operator)
    for end in (*graph.inputs, *graph.outputs):
        if graph.tensors[end].type != schema.TensorType.INT8:
            raise ExportError(f"{_name(graph.tensors[end])} is no int8; expected a net in static int8 from end to end")
    model.signatureDefs = None
    return pack_tflite(model)


def _cut_ends_(schema: Any, model: Any) -> None:
    kind, graph = name_kinds(schema, model), model.subgraphs[0]
    (source,), (result,) = graph.inputs, graph.outputs
    readers = [operator for operator in graph.operators if source in operator.inputs]
    if len(readers) == 1 and kind(readers[0]) == "QUANTIZE" and _is_float(schema, graph, source):
        graph.inputs = [readers[0].outputs[0]]
        graph.operators.remove(readers[0])
    writers = [operator for operator in graph.operators if result in operator.outputs]
    if len(writers) == 1 and kind(writers[0]) == "DEQUANTIZE":
        graph.outputs = [writers[0].inputs[0]]
        graph.operators.remove(writers[0])


def _is_float(schema: Any, graph: Any, index: int) -> bool:
    is_float: bool = graph.tensors[index].type == schema.TensorType.FLOAT32
    return is_float


def _settle_options_(schema: Any, model: Any, operator: Any) -> None:
    """Write out what a RESHAPE gives, and drop what means nothing: kept dimensions of a matrix."""
    kind, tensors = name_kinds(schema, model)(operator), model.subgraphs[0].tensors
    if kind == "RESHAPE" and operator.builtinOptions is None:
        options = schema.ReshapeOptionsT()
        options.newShape = list(map(int, tensors[operator.outputs[0]].shape))
        operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.ReshapeOptions, options
    if kind == "FULLY_CONNECTED" and len(tensors[operator.inputs[0]].shape) == 2:
        operator.builtinOptions.keepNumDims = False


def _replace_means_(schema: Any, model: Any) -> None:
    kind, graph = name_kinds(schema, model), model.subgraphs[0]
    for place in range(len(graph.operators) - 1, -1, -1):
        operator = graph.operators[place]
        if kind(operator) == "MEAN" and _is_image_mean(schema, model, operator):
            graph.operators[place : place + 1] = _make_mean(schema, model, operator)


def _is_image_mean(schema: Any, model: Any, operator: Any) -> bool:
    """Whether it is the mean over height and width of one int8 image [1, H, W, C]."""
    tensors = model.subgraphs[0].tensors
    source, axes = tensors[operator.inputs[0]], tensors[operator.inputs[1]]
    data = model.buffers[axes.buffer].data
    if source.type != schema.TensorType.INT8 or len(source.shape) != 4 or data is None:
        return False
    return {int(axis) % 4 for axis in np.frombuffer(bytes(data), np.int32)} == {1, 2}


def _make_mean(schema: Any, model: Any, operator: Any) -> list[Any]:
    graph = model.subgraphs[0]
    source, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    _, height, width, channels = map(int, source.shape)
    name, scale = _name(result), np.float32(1 / (height * width))
    ones = np.ones((1, height, width, channels), np.int8)
    weight = _add_tensor(schema, model, f"{name}/ones", ones, np.full(channels, scale))
    bias_scale = np.full(channels, np.float32(source.quantization.scale[0]) * scale)
    bias = _add_tensor(schema, model, f"{name}/zeros", np.zeros(channels, np.int32), bias_scale)
    whole = schema.TensorT(
        [1, 1, 1, channels], schema.TensorType.INT8, 0, f"{name}/image".encode(), result.quantization
    )
    graph.tensors.append(whole)
    options = schema.DepthwiseConv2DOptionsT(
        padding=schema.Padding.VALID, strideH=height, strideW=width, depthMultiplier=1
    )
    convolve = _add_operator(schema, model, "DEPTHWISE_CONV_2D", 3)
    convolve.inputs, convolve.outputs = [operator.inputs[0], weight, bias], [len(graph.tensors) - 1]
    convolve.builtinOptionsType, convolve.builtinOptions = schema.BuiltinOptions.DepthwiseConv2DOptions, options
    if len(result.shape) == 4:
        convolve.outputs = operator.outputs
        return [convolve]
    reshape = _add_operator(schema, model, "RESHAPE", 1)
    reshape.inputs, reshape.outputs = convolve.outputs, operator.outputs
    return [convolve, reshape]


def _add_tensor(schema: Any, model: Any, name: str, values: np.ndarray, scales: np.ndarray) -> int:
    """The index of a new constant, with a scale for each channel of its last axis."""
    model.buffers.append(schema.BufferT(np.frombuffer(values.tobytes(), np.uint8)))
    kind = schema.TensorType.INT8 if values.dtype == np.int8 else schema.TensorType.INT32
    quantization = schema.QuantizationParametersT()
    quantization.scale, quantization.zeroPoint = scales.astype(np.float32), np.zeros(len(scales), np.int64)
    quantization.quantizedDimension = values.ndim - 1
    tensors = model.subgraphs[0].tensors
    tensors.append(schema.TensorT(list(values.shape), kind, len(model.buffers) - 1, name.encode(), quantization))
    return len(tensors) - 1


def _add_operator(schema: Any, model: Any, name: str, version: int) -> Any:
    """A new operator of a kind, still without inputs and outputs."""
    code = getattr(schema.BuiltinOperator, name)
    model.operatorCodes.append(schema.OperatorCodeT(min(code, 127), None, version, code))
    return schema.OperatorT(len(model.operatorCodes) - 1)


def _name(tensor: Any) -> str:
    name: str = tensor.name.decode() if isinstance(tensor.name, bytes) else tensor.name
    return name
