"""What each layer of a file computes on given inputs, in real numbers, whatever precision the file holds them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import ExportError
from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.metadata import pack_tflite, unpack_tflite
from edgeprune.exporting.runners import fit_inputs, quantize_input


@dataclass(frozen=True)
class LayerOutput:
    """One layer: `output` is `[N, ...]`; `constants` are its weights and bias, `None` for each other operand.

    `node` is the same in every precision of a net; `layer` is for people.
    """

    node: str
    layer: str
    operator: str
    output: np.ndarray
    constants: tuple[np.ndarray | None, ...]


Trace = dict[str, LayerOutput]
"""Name of a tensor, the same in every precision of a net, to the layer that computes it; in order."""

MOVES = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""ONNX operators that compute nothing."""


def trace_file(path: Path, inputs: np.ndarray, optimised: bool = False) -> Trace:
    """Every layer's output for `inputs` `[N, ...]`, in reference kernels, row by row.

    `optimised` runs this processor's own kernels instead: of ONNX files only what is held in 8 bits and the net's
    output are read then, since to read anything else would undo the fusion that these kernels come from.

    Raises:
        ExportError: neither an ONNX nor a TFLite file, it does not run, or `inputs` do not fit.
    """
    tracers: dict[str, Callable[[Path, np.ndarray, bool], Trace]] = {".onnx": _trace_onnx, ".tflite": _trace_tflite}
    if path.suffix not in tracers:
        raise ExportError(f"{path}: suffix {path.suffix!r} is none of {', '.join(tracers)}")
    with foreign("running layer by layer", path):
        return tracers[path.suffix](path, fit_inputs(path, inputs), optimised)


class _OnnxGraph:
    """An ONNX graph by tensor name."""

    def __init__(self, path: Path) -> None:
        import onnx

        self.model = onnx.load(path)
        graph = self.model.graph
        self.stored = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output if name}
        quantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
        pairs = [(quantized.get(node.input[0]), node) for node in graph.node if node.op_type == "DequantizeLinear"]
        self.held = {source: node.output[0] for source, node in pairs if source is not None}
        self.sources = {held: source for source, held in self.held.items()}
        self.codes = {node.output[0]: node for source, node in pairs if source is not None}

    def find_points(self) -> Iterator[tuple[str, str]]:
        """Names of each input and each layer's result, and the tensor that holds it for the layers after it."""
        yield from ((one.name, self.held.get(one.name, one.name)) for one in self.model.graph.input)
        plumbing = {"QuantizeLinear", "DequantizeLinear"}
        for node in self.model.graph.node:
            if node.op_type not in plumbing:
                yield from ((name, self.held.get(name, name)) for name in node.output if name)
        yield from ((one.name, one.name) for one in self.model.graph.output if one.name in self.sources)

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
        import onnx
        import onnxruntime

        if not names:
            return {}
        known = {one.name for one in self.model.graph.output}
        self.model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        content = self.model.SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
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


def _trace_onnx(path: Path, inputs: np.ndarray, optimised: bool) -> Trace:
    graph = _OnnxGraph(path)
    fed = {one.name for one in graph.model.graph.input}
    shown = {*graph.codes, *(one.name for one in graph.model.graph.output)} if graph.codes else {}
    points = [(name, held) for name, held in graph.find_points() if not optimised or held in shown]
    weights = {name: graph.find_constant(name) for node in graph.model.graph.node for name in node.input if name}
    derived = [name for name, stored in weights.items() if stored and name not in graph.stored]
    fetched = [held for _, held in points if held not in fed]
    values = graph.run_fused(inputs, fetched) if optimised else graph.run(inputs, list(dict.fromkeys(fetched)))
    single = _OnnxGraph(path).run(inputs[:1], list(dict.fromkeys(derived)))
    constants = {
        name: single[name] if name in single else graph.stored[name] for name, stored in weights.items() if stored
    }
    trace = {}
    for name, held in points:
        output = inputs if held in fed else values[held]
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
    found = tuple(constants.get(operand) for operand in origin.input)
    layer = labels[0].removesuffix("_quantized") if labels else maker.name
    return LayerOutput(origin.name, _unit(layer), origin.op_type, output, found)


def _unit(name: str) -> str:
    """The module that a parameter or a node belongs to."""
    return name.removesuffix(".weight").removesuffix(".bias").removeprefix("node_")


def _open_tflite(path: Path, optimised: bool) -> Any:
    """An interpreter whose tensors can all be read: XNNPACK keeps only those that are outputs."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    if optimised:
        _, model = unpack_tflite(path.read_bytes())
        graph = model.subgraphs[0]
        graph.outputs = sorted({int(index) for one in graph.operators for index in one.outputs})
        return Interpreter(model_content=pack_tflite(model), num_threads=1)
    return Interpreter(
        model_content=path.read_bytes(),
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )


def _trace_tflite(path: Path, inputs: np.ndarray, optimised: bool) -> Trace:
    interpreter = _open_tflite(path, optimised)
    interpreter.allocate_tensors()
    tensors = {one["index"]: one for one in interpreter.get_tensor_details()}
    operators = [one for one in interpreter._get_ops_details() if one["op_name"] != "DELEGATE"]
    (source,) = interpreter.get_input_details()
    feed = source["index"]
    computed = {int(index) for one in operators for index in one["outputs"]}
    rows: dict[int, list[np.ndarray]] = {index: [] for index in sorted(computed)}
    for row in inputs:
        interpreter.set_tensor(feed, quantize_input(row[None], source))
        interpreter.invoke()
        for index, kept in rows.items():
            kept.append(_real(interpreter.get_tensor(index), tensors[index]))

    def read_constant(index: int) -> np.ndarray | None:
        stored = index not in computed and index not in (feed, -1)
        return _real(interpreter.get_tensor(index), tensors[index]) if stored else None

    trace = {}
    for operator in operators:
        outputs = [int(index) for index in operator["outputs"]]
        for index in outputs:
            joined = np.concatenate(rows[index])
            trace[_plain(tensors[index]["name"])] = _tflite_layer(operator, tensors, index, joined, read_constant)
    return trace


def _tflite_layer(
    operator: dict[str, Any],
    tensors: dict[int, dict[str, Any]],
    index: int,
    output: np.ndarray,
    read_constant: Callable[[int], np.ndarray | None],
) -> LayerOutput:
    operands = [int(one) for one in operator["inputs"]]
    constants = tuple(read_constant(one) for one in operands)
    weights = [one for one, value in zip(operands, constants, strict=True) if value is not None and value.ndim > 1]
    node = _plain(tensors[index]["name"])
    label = tensors[weights[0]]["name"] if weights and "arith." not in tensors[weights[0]]["name"] else node
    return LayerOutput(node, _short(label), operator["op_name"], output, constants)


def _plain(name: str) -> str:
    """A tensor's name as the float file has it: the quantizer appends to those of inputs and outputs."""
    return name.removesuffix("_quantized").removesuffix("_dequant")


def _short(name: str) -> str:
    """`module.Net/torch.nn.modules.conv.Conv2d_body;2` as `Conv2d_body`; any other name as it is."""
    parts = [part for part in name.split(";") if "/" in part]
    return "/".join(step.rpartition(".")[2] for step in parts[-1].split("/")[1:]) if parts else name


def _real(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """Real numbers of a tensor, by its scales and zero points where it has some."""
    how = tensor["quantization_parameters"]
    scales, zeros = how["scales"], how["zero_points"]
    if not len(scales):
        return np.array(values)
    shape = [1] * values.ndim
    if len(scales) > 1:
        shape[how["quantized_dimension"]] = -1
    real = (values.astype(np.float64) - np.reshape(zeros, shape)) * np.reshape(scales, shape)
    return np.asarray(real, np.float32)
