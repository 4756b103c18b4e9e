"""Small TFLite files, built operator by operator from the schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeprune.exporting.tflite.libraries import import_library
from edgeprune.exporting.tflite.schema import pack_tflite

Size = tuple[int, ...]


@dataclass
class TFLiteFile:
    """A file being written; `tensor` of each call is the number that the next is to read."""

    schema: Any = field(default_factory=lambda: import_library("ai_edge_litert.schema_py_generated"))
    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)

    def add_tensor(self, shape: Size, kind: str = "INT8", values: np.ndarray | None = None) -> int:
        """A tensor, with its values where it is constant."""
        tensor, buffer = self.schema.TensorT(), self.schema.BufferT()
        tensor.shape, tensor.type = list(shape), getattr(self.schema.TensorType, kind)
        tensor.name, tensor.buffer = f"tensor{len(self.tensors)}", len(self.buffers)
        if values is not None:
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.buffers.append(buffer)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add_operator(self, kind: str, reads: list[int], shape: Size, **options: Any) -> int:
        """An operator that writes a tensor of a shape; options by their names in the schema."""
        operator, code = self.schema.OperatorT(), getattr(self.schema.BuiltinOperator, kind)
        self.kinds += [code] if code not in self.kinds else []
        operator.opcodeIndex, operator.inputs = self.kinds.index(code), reads
        operator.outputs = [self.add_tensor(shape)]
        name = {"AVERAGE_POOL_2D": "Pool2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D", "CONV_2D": "Conv2D"}.get(kind)
        if name:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, f"{name}Options")
            operator.builtinOptions = getattr(self.schema, f"{name}OptionsT")()
            for key, value in options.items():
                setattr(operator.builtinOptions, key, value)
        self.operators.append(operator)
        return operator.outputs[0]

    def add_weighted(self, kind: str, read: int, weights: np.ndarray, shape: Size, stride: int = 1) -> int:
        """A convolution or a linear layer with a bias, padded so that the shape comes out."""
        names = {np.dtype(np.int8): "INT8", np.dtype(np.float32): "FLOAT32"}
        constants = [self.add_tensor(weights.shape, names[weights.dtype], weights)]
        constants.append(self.add_tensor((shape[-1],), "INT32", np.zeros(shape[-1], np.int32)))
        return self.add_operator(kind, [read, *constants], shape, strideH=stride, strideW=stride)

    def content(self) -> bytes:
        """The file."""
        model, graph = self.schema.ModelT(), self.schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = [0], [self.operators[-1].outputs[0]]
        model.version, model.subgraphs, model.buffers = 3, [graph], self.buffers
        model.operatorCodes = [self.schema.OperatorCodeT() for _ in self.kinds]
        for code, kind in zip(model.operatorCodes, self.kinds, strict=True):
            code.builtinCode, code.deprecatedBuiltinCode, code.version = kind, min(kind, 127), 1
        return pack_tflite(model)


def build_separable(dead: int = 0, kind: type[np.generic] = np.int8) -> bytes:
    """A convolution of 8 filters, some of them zero, a separable one of 16, a pool and a linear layer of 4."""
    file = TFLiteFile()
    stem, pointwise = np.ones((8, 3, 3, 3), kind), np.ones((16, 1, 1, 8), kind)
    stem[:dead] = 0
    read = file.add_tensor((1, 12, 12, 3))
    read = file.add_weighted("CONV_2D", read, stem, (1, 6, 6, 8), 2)
    read = file.add_weighted("DEPTHWISE_CONV_2D", read, np.ones((1, 3, 3, 8), kind), (1, 6, 6, 8))
    read = file.add_weighted("CONV_2D", read, pointwise, (1, 6, 6, 16))
    pool = {"filterHeight": 6, "filterWidth": 6, "strideH": 6, "strideW": 6}
    read = file.add_operator("AVERAGE_POOL_2D", [read], (1, 1, 1, 16), **pool)
    read = file.add_operator("RESHAPE", [read], (1, 16))
    file.add_weighted("FULLY_CONNECTED", read, np.ones((4, 16), kind), (1, 4))
    return file.content()
