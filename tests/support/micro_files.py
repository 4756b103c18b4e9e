"""TFLite files of a few operators, built from the schema, as microcontrollers run them."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.exporting.tflite.libraries import import_library
from edgeprune.exporting.tflite.schema import pack_tflite

Shape = tuple[int, ...]
ITEMS = {"INT8": np.int8, "INT32": np.int32, "FLOAT32": np.float32, "FLOAT16": np.float16}


class MicroFile:
    """A file that grows by an operator at a time; tensors are told by their index, the first one is the input."""

    def __init__(self, shape: Shape, kind: str = "INT8") -> None:
        self.schema = import_library("ai_edge_litert.schema_py_generated")
        self.kind = kind
        self.tensors: list[Any] = []
        self.buffers = [self.schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: list[Any] = []
        self.add_tensor(shape)

    def add_tensor(self, shape: Shape, kind: str = "", values: np.ndarray | None = None, name: str = "") -> int:
        """A tensor; constant where it has values."""
        tensor, kind = self.schema.TensorT(), kind or self.kind
        tensor.name, tensor.type = name or f"t{len(self.tensors)}", getattr(self.schema.TensorType, kind)
        tensor.shape, tensor.buffer = np.array(shape, np.int32), 0
        if kind in ("INT8", "INT32"):
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = np.array([0.5 if kind == "INT8" else 0.25], np.float32)
            tensor.quantization.zeroPoint = np.array([0], np.int64)
        if values is not None:
            tensor.buffer = len(self.buffers)
            self.buffers.append(self.schema.BufferT())
            self.buffers[-1].data = np.frombuffer(values.astype(ITEMS[kind]).tobytes(), np.uint8)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add(self, op: str, inputs: list[int], shape: Shape, options: Any = None, version: int = 1) -> int:
        """An operator with one output; its index."""
        output = self.add_tensor(shape)
        operator, code = self.schema.OperatorT(), self.schema.OperatorCodeT()
        builtin = getattr(self.schema.BuiltinOperator, op)
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.codes), inputs, [output]
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType, operator.builtinOptions = getattr(self.schema.BuiltinOptions, name), options
        self.codes.append(code)
        self.operators.append(operator)
        return output

    def add_conv(self, read: int, channels: Shape, size: int, weights: str = "") -> int:
        """A convolution of 1x1; `channels` are those that it reads and makes."""
        kind, options = weights or self.kind, self.schema.Conv2DOptionsT()
        options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
        filters = self.add_tensor((channels[1], 1, 1, channels[0]), kind, np.ones(channels))
        bias = self.add_tensor((channels[1],), "INT32" if self.kind == "INT8" else self.kind, np.zeros(channels[1]))
        return self.add("CONV_2D", [read, filters, bias], (1, size, size, channels[1]), options, 3)

    def add_mean(self, read: int, channels: int) -> int:
        """The mean over height and width."""
        axes = self.add_tensor((2,), "INT32", np.array([1, 2]))
        return self.add("MEAN", [read, axes], (1, channels), self.schema.ReducerOptionsT(), 2)

    def add_transposed_conv(self, read: int, channels: Shape, size: int) -> int:
        """A transposed convolution of 2x2 with stride 2, to `size`."""
        options = self.schema.TransposeConvOptionsT()
        options.strideH = options.strideW = 2
        shape = self.add_tensor((4,), "INT32", np.array([1, size, size, channels[1]]))
        filters = self.add_tensor((channels[1], 2, 2, channels[0]), "", np.ones((channels[1], 2, 2, channels[0])))
        return self.add("TRANSPOSE_CONV", [shape, filters, read], (1, size, size, channels[1]), options)

    def build(self) -> bytes:
        """The content; the last operator makes the output."""
        model, graph = self.schema.ModelT(), self.schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = [0], list(self.operators[-1].outputs)
        model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], self.buffers, self.codes
        return pack_tflite(model)


def build_residual(kind: str = "INT8", size: int = 8) -> bytes:
    """Three convolutions of 1x1, the last two around a sum with what the first made, then a mean."""
    file = MicroFile((1, size, size, 3), kind)
    stem = file.add_conv(0, (3, 8), size)
    wide = file.add_conv(stem, (8, 16), size)
    narrow = file.add_conv(wide, (16, 8), size)
    total = file.add("ADD", [stem, narrow], (1, size, size, 8), file.schema.AddOptionsT(), 2)
    file.add_mean(total, 8)
    return file.build()
