"""What each layer of an ONNX file computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.exporting.onnx.run import give_, open_session
from edgeprune.exporting.parity.layer_outputs import LayerOutput, Trace

MOVES = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""ONNX operators that compute nothing."""


class _OnnxGraph:
    """An ONNX graph by tensor name."""

    def __init__(self, path: Path) -> None:
        import onnx

        self.model = onnx.load(path)
        graph = self.model.graph
        self.stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output if name}
        quantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
        pairs = [(quantized.get(node.input[0]), node) for node in graph.node if node.op_type == "DequantizeLinear"]
        self.dequantized = {source: node.output[0] for source, node in pairs if source is not None}
        self.sources = {dequantized: source for source, dequantized in self.dequantized.items()}
        self.codes = {node.output[0]: node for source, node in pairs if source is not None}

    def find_points(self) -> Iterator[tuple[str, str]]:
        """Names of each input and each layer's result, and the tensor that holds it for the layers after it."""
        yield from ((value.name, self.dequantized.get(value.name, value.name)) for value in self.model.graph.input)
        plumbing = {"QuantizeLinear", "DequantizeLinear"}
        for node in self.model.graph.node:
            if node.op_type not in plumbing:
                yield from ((name, self.dequantized.get(name, name)) for name in node.output if name)
        yield from ((value.name, value.name) for value in self.model.graph.output if value.name in self.sources)

    def find_constant(self, name: str) -> str | None:
        """The stored tensor behind an operand, through its dequantization."""
        if name in self.stored:
            return name
        maker = self.makers.get(name)
        quantized = maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in self.stored
        return str(maker.input[0]) if maker is not None and quantized else None

    def find_labels(self, node: Any) -> list[str]:
        """Stored operands of a node, but for single numbers and those that the exporter named (`val_7`)."""
        stored = [self.find_constant(operand) for operand in node.input]
        return [name for name in stored if name and self.stored[name].ndim and not name.startswith("val_")]

    def find_origin(self, node: Any) -> Any:
        """The node whose values this one only moves; itself where it computes."""
        while node.op_type in MOVES and (before := self.makers.get(self.sources.get(node.input[0], node.input[0]))):
            node = before
        return node

    def run(self, inputs: np.ndarray, names: list[str], optimised: bool = False) -> dict[str, np.ndarray]:
        """Values of named tensors, those of each row of inputs in turn, joined."""
        if not names:
            return {}
        give_(self.model, names)
        session = open_session(self.model.SerializeToString(), optimised)
        feed = self.model.graph.input[0].name
        rows = [[np.atleast_1d(value) for value in session.run(names, {feed: row[None]})] for row in inputs]
        return {name: np.concatenate(values) for name, *values in zip(names, *rows, strict=True)}

    def run_fused(self, inputs: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        """The same in optimised kernels: tensors that are dequantized from 8 bits are read there and scaled here."""
        codes = [name for name in names if name in self.codes]
        sources = {name: str(self.codes[name].input[0]) for name in codes}
        fetched = dict.fromkeys(sources.get(name, name) for name in names)
        values = self.run(inputs, list(fetched), optimised=True)

        def scale(node: Any) -> np.ndarray:
            step, zero = (self.stored[name].astype(np.float64) for name in node.input[1:3])
            return np.asarray((values[node.input[0]] - zero) * step, np.float32)

        return values | {name: scale(self.codes[name]) for name in codes}


def trace_onnx(path: Path, inputs: np.ndarray, optimised: bool) -> Trace:
    """Every layer's output for `inputs` `[N, ...]` that fit the file."""
    graph = _OnnxGraph(path)
    input_names = {value.name for value in graph.model.graph.input}
    readable = {*graph.codes, *(value.name for value in graph.model.graph.output)} if graph.codes else {}
    points = [(name, holder) for name, holder in graph.find_points() if not optimised or holder in readable]
    weights = {name: graph.find_constant(name) for node in graph.model.graph.node for name in node.input if name}
    derived = [name for name, stored in weights.items() if stored and name not in graph.stored]
    fetched = [holder for _, holder in points if holder not in input_names]
    values = graph.run_fused(inputs, fetched) if optimised else graph.run(inputs, list(dict.fromkeys(fetched)))
    single = _OnnxGraph(path).run(inputs[:1], list(dict.fromkeys(derived)))
    constants = {
        name: single[name] if name in single else graph.stored[name] for name, stored in weights.items() if stored
    }
    trace = {}
    for name, holder in points:
        output = inputs if holder in input_names else values[holder]
        if np.issubdtype(output.dtype, np.floating):
            maker = graph.makers.get(graph.sources.get(name, name))
            trace[name] = _onnx_layer(graph, name, maker, output.astype(np.float32), constants)
    return trace


def _onnx_layer(
    graph: _OnnxGraph, name: str, maker: Any, output: np.ndarray, constants: dict[str, np.ndarray]
) -> LayerOutput:
    if maker is None:
        return LayerOutput(name, name, "input", output, ())
    origin = graph.find_origin(maker)
    labels = graph.find_labels(origin)
    if not labels:
        origin = maker
    operands = tuple(constants.get(operand) for operand in origin.input)
    layer = labels[0].removesuffix("_quantized") if labels else maker.name
    return LayerOutput(origin.name, _unit(layer), origin.op_type, output, operands)


def _unit(name: str) -> str:
    """The module that a parameter or a node belongs to."""
    return name.removesuffix(".weight").removesuffix(".bias").removeprefix("node_")
