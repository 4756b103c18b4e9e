"""TFLite models of one layer or a few, written with the operators that litert-torch writes for such a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.latency.layers import TRANSPOSED, LayerShape, Window, describe_window
from edgeprune.errors import ExportError
from edgeprune.exporting.probing.weights import INPUT_SCALE, OUTPUT_SCALE, ProbeWeights, make_weights
from edgeprune.extras import comes_with

with comes_with("tflite"):
    import flatbuffers  # type: ignore[import-untyped]
    from ai_edge_litert import schema_py_generated as schema

SCHEMA_VERSION = 3
OLD_CODES = 127
"""What the field that held an operator's code at first says of all newer ones."""
ZERO_POINT = -128
"""The int8 number of a real zero in activations that are never negative."""


@dataclass
class Graph:
    """What a model is made of, in the order in which it was added."""

    quantized: bool
    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    operators: list[Any] = field(default_factory=list)
    codes: list[Any] = field(default_factory=list)

    def add_activation(self, name: str, size: tuple[int, ...], scale: float, zero_point: int = ZERO_POINT) -> int:
        """The index of a new `[1, *size]` tensor between operators."""
        kind = schema.TensorType.INT8 if self.quantized else schema.TensorType.FLOAT32
        scales = np.array([scale], dtype=np.float32)
        quantization = make_quantization(scales, np.array([zero_point]), 0) if self.quantized else None
        self.tensors.append(schema.TensorT([1, *size], kind, 0, name, quantization))
        return len(self.tensors) - 1

    def add_constant(self, name: str, value: NDArray[Any], quantization: Any = None) -> int:
        """The index of a new tensor that holds this value."""
        kinds = {"float32": schema.TensorType.FLOAT32, "int32": schema.TensorType.INT32, "int8": schema.TensorType.INT8}
        self.buffers.append(schema.BufferT(np.frombuffer(value.tobytes(), dtype=np.uint8)))
        kind = kinds[value.dtype.name]
        self.tensors.append(schema.TensorT(list(value.shape), kind, len(self.buffers) - 1, name, quantization))
        return len(self.tensors) - 1

    def add_operator(self, name: str, version: int, inputs: list[int], output: int, options: Any = None) -> None:
        """Add an operator whose options object, if it has one, is named after its options type."""
        code = getattr(schema.BuiltinOperator, name)
        kind = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T")) if options else 0
        self.codes.append(schema.OperatorCodeT(min(code, OLD_CODES), None, version, code))
        self.operators.append(schema.OperatorT(len(self.codes) - 1, inputs, [output], kind, options))

    def serialize(self, output: int, inputs: Sequence[int] = (0,)) -> bytes:
        """The file of a model from the input tensors to the output tensor."""
        graph = schema.SubGraphT(self.tensors, list(inputs), [output], self.operators, "main")
        model = schema.ModelT(SCHEMA_VERSION, self.codes, [graph], "edgeprune probe", self.buffers)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def build_tflite_probe(layers: Sequence[tuple[LayerShape, bool]]) -> bytes:
    """Layers one behind the other, each with a ReLU and with whether it is quantized, as a TFLite file.

    Float32, or int8 with int8 weights and int32 biases, and a conversion where the two meet. Operators, padding and
    tensor layout are litert-torch 0.10's: channels last, 1-D layers with height 1, padding by the SAME rule where that
    gives what the layer asks for and by a PAD operator otherwise; a transposed convolution of stride 1 is a plain one,
    and each group of a transposed one is an operator of its own.
    """
    graph = Graph(layers[0][1])
    first = layers[0][0] if layers[0][0].op == "linear" else _as_2d(layers[0][0])
    tensor = graph.add_activation("input", (*first.size, first.cin), INPUT_SCALE)
    for number, (shape, quantized) in enumerate(layers):
        weights = make_weights(shape)
        if number:
            weights = replace(weights, input_scale=OUTPUT_SCALE)
        if quantized != graph.quantized:
            graph.quantized = quantized
            tensor = _add_conversion(graph, _as_2d(shape), tensor)
        name = "output" if number == len(layers) - 1 else f"between{number + 1}"
        if shape.op == "linear":
            tensor = _add_linear(graph, shape, weights, _Ends(tensor, name))
        elif shape.op == TRANSPOSED and set(shape.stride) != {1}:
            tensor = _add_transposed(graph, _as_2d(shape), weights, _Ends(tensor, name))
        else:
            own = weights.turn() if shape.op == TRANSPOSED else weights
            tensor = _add_convolution(graph, _as_2d(_turn(shape)), own, _Ends(tensor, name))
    return graph.serialize(tensor)


def _add_conversion(graph: Graph, shape: LayerShape, source: int) -> int:
    """What a convolution reads, in the numbers that the graph holds from here on."""
    converted = graph.add_activation("converted", (*shape.size, shape.cin), OUTPUT_SCALE)
    if graph.quantized:
        graph.add_operator("QUANTIZE", 1, [source], converted, schema.QuantizeOptionsT())
    else:
        graph.add_operator("DEQUANTIZE", 2, [source], converted, schema.DequantizeOptionsT())
    return converted


@dataclass(frozen=True)
class _Ends:
    """The tensor that an operator reads, and the name of the one that it writes."""

    source: int
    output: str


def _add_linear(graph: Graph, shape: LayerShape, weights: ProbeWeights, ends: _Ends) -> int:
    output = graph.add_activation(ends.output, (*shape.size, shape.cout), OUTPUT_SCALE)
    inputs = [ends.source, *_add_weights(graph, weights, (0, 1))]
    options = schema.FullyConnectedOptionsT(schema.ActivationFunctionType.RELU, keepNumDims=True)
    graph.add_operator("FULLY_CONNECTED", 5, inputs, output, options)
    return output


def _add_convolution(graph: Graph, shape: LayerShape, weights: ProbeWeights, ends: _Ends) -> int:
    source, same = ends.source, _is_same(shape)
    if any(map(any, shape.ends)) and not same:
        source = _add_padding(graph, shape, source)
    output = graph.add_activation(ends.output, (*shape.output_size, shape.cout), OUTPUT_SCALE)
    padding = schema.Padding.SAME if same else schema.Padding.VALID
    common = {"padding": padding, "strideH": shape.stride[0], "strideW": shape.stride[1]}
    common["fusedActivationFunction"] = schema.ActivationFunctionType.RELU
    common |= {"dilationHFactor": shape.steps[0], "dilationWFactor": shape.steps[1]}
    if shape.groups == shape.cin:
        inputs = [source, *_add_weights(graph, weights, (1, 2, 3, 0))]
        depthwise = schema.DepthwiseConv2DOptionsT(depthMultiplier=shape.cout // shape.cin, **common)
        graph.add_operator("DEPTHWISE_CONV_2D", 2 if shape.dilation else 1, inputs, output, depthwise)
    else:
        inputs = [source, *_add_weights(graph, weights, (0, 2, 3, 1))]
        graph.add_operator("CONV_2D", 6 if shape.groups > 1 else 1, inputs, output, schema.Conv2DOptionsT(**common))
    return output


def _add_padding(graph: Graph, shape: LayerShape, source: int) -> int:
    sizes = tuple(size + sum(pads) for size, pads in zip(shape.size, shape.ends, strict=True))
    sides = np.array([[0, 0], *shape.ends, [0, 0]], dtype=np.int32)
    padded = graph.add_activation("padded", (*sizes, shape.cin), INPUT_SCALE)
    graph.add_operator("PAD", 1, [source, graph.add_constant("padding", sides)], padded, schema.PadOptionsT())
    return padded


def _add_weights(graph: Graph, weights: ProbeWeights, order: tuple[int, ...]) -> list[int]:
    """Tensors of weights and bias; `order` says where each axis of the file's weights comes from."""

    def arrange(values: NDArray[Any]) -> NDArray[Any]:
        flat_height = values[:, :, np.newaxis] if values.ndim == 3 else values
        return flat_height.transpose(order)

    if not graph.quantized:
        return [graph.add_constant("weight", arrange(weights.weights)), graph.add_constant("bias", weights.bias)]
    zeros = np.zeros(len(weights.scales), dtype=np.int64)
    quantization = make_quantization(weights.scales, zeros, order.index(0))
    bias_quantization = make_quantization(weights.bias_scales, zeros, 0)
    return [
        graph.add_constant("weight", arrange(weights.integers), quantization),
        graph.add_constant("bias", weights.bias_integers, bias_quantization),
    ]


def make_quantization(scales: NDArray[np.float32], zero_points: NDArray[np.int64], axis: int) -> Any:
    """Scale and zero point of a tensor, or one of each along an axis."""
    return schema.QuantizationParametersT(scale=scales, zeroPoint=zero_points, quantizedDimension=axis)


def _is_same(shape: LayerShape) -> bool:
    """Whether TensorFlow's SAME rule pads this layer as the layer asks: alike at both ends of every axis."""
    axes = zip(shape.size, shape.kernel, shape.stride, shape.steps, shape.padding, strict=True)
    return (
        any(shape.padding)
        and not shape.output
        and all(
            max((ceil(size / stride) - 1) * stride + (width - 1) * step + 1 - size, 0) == 2 * pad
            for size, width, stride, step, pad in axes
        )
    )


def _turn(shape: LayerShape) -> LayerShape:
    """A transposed convolution of stride 1 as the plain one that it is, with its kernel turned about."""
    if shape.op != TRANSPOSED:
        return shape
    window = Window(shape.kernel, shape.stride, shape.dilation, shape.groups)
    return describe_window("conv", (shape.cin, shape.cout), (shape.size, shape.output_size), window)


def _add_transposed(graph: Graph, shape: LayerShape, weights: ProbeWeights, ends: _Ends) -> int:
    """Each group by itself, between a cut and a join."""
    if shape.dilation:
        raise ExportError(f"probe of {shape.describe()}: TFLite has no transposed convolution with stride and dilation")
    if shape.groups == 1:
        return _add_group(graph, shape, weights, ends)
    group_shape = replace(shape, cin=shape.cin // shape.groups, cout=shape.cout // shape.groups, groups=1)
    parts = []
    for number in range(shape.groups):
        begin, size = (0, 0, 0, number * group_shape.cin), (1, *group_shape.size, group_shape.cin)
        part = graph.add_activation(f"{ends.output}_in{number}", size[1:], INPUT_SCALE)
        bounds = [graph.add_constant(f"{part}_{i}", np.array(b, np.int32)) for i, b in enumerate((begin, size))]
        graph.add_operator("SLICE", 2 if graph.quantized else 1, [ends.source, *bounds], part, schema.SliceOptionsT())
        own = weights.take(number * group_shape.cout, group_shape.cout)
        parts.append(_add_group(graph, group_shape, own, _Ends(part, f"{ends.output}_out{number}")))
    output = graph.add_activation(ends.output, (*shape.output_size, shape.cout), OUTPUT_SCALE)
    graph.add_operator("CONCATENATION", 2, parts, output, schema.ConcatenationOptionsT(axis=3))
    return output


def _add_group(graph: Graph, shape: LayerShape, weights: ProbeWeights, ends: _Ends) -> int:
    """A transposed convolution: SAME where that cuts off what the layer asks for, else whole and then cut."""
    axes = zip(shape.size, shape.output_size, shape.stride, shape.ends, strict=True)
    is_same = all(ceil(out / stride) == size and 0 < sum(cut) // 2 == cut[0] for size, out, stride, cut in axes)
    is_cut = not is_same and any(sum(cut) > 0 for cut in shape.ends)
    size = replace(shape, padding=(0, 0), output=()).output_size if is_cut else shape.output_size
    whole = graph.add_activation(f"{ends.output}_whole" if is_cut else ends.output, (*size, shape.cout), OUTPUT_SCALE)
    inputs = [graph.add_constant(f"{ends.output}_size", np.array([1, *size, shape.cout], np.int32))]
    weight, bias = _add_weights(graph, weights, (0, 2, 3, 1))
    padding = schema.Padding.SAME if is_same else schema.Padding.VALID
    relu, (height, width) = schema.ActivationFunctionType.RELU, shape.stride
    options = schema.TransposeConvOptionsT(padding, strideH=height, strideW=width, fusedActivationFunction=relu)
    graph.add_operator("TRANSPOSE_CONV", 4, [*inputs, weight, ends.source, bias], whole, options)
    if not is_cut:
        return whole
    output = graph.add_activation(ends.output, (*shape.output_size, shape.cout), OUTPUT_SCALE)
    bounds = (0, *(before for before, _ in shape.ends), 0), (1, *shape.output_size, shape.cout)
    places = [graph.add_constant(f"{ends.output}_{i}", np.array(b, np.int32)) for i, b in enumerate(bounds)]
    graph.add_operator("SLICE", 2 if graph.quantized else 1, [whole, *places], output, schema.SliceOptionsT())
    return output


def _as_2d(shape: LayerShape) -> LayerShape:
    """The same convolution with height 1, if it had one axis."""
    if len(shape.size) == 2:
        return shape
    size, kernel, stride, padding = (1, *shape.size), (1, *shape.kernel), (1, *shape.stride), (0, *shape.padding)
    dilation, output = (shape.dilation and (1, *shape.dilation)), (1, *shape.output_size)
    return replace(shape, size=size, kernel=kernel, stride=stride, padding=padding, dilation=dilation, output=output)
