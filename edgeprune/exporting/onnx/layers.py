"""The layers of an ONNX file and what else in it takes time, described as the graph engine describes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.core.latency import steps as kinds
from edgeprune.core.latency.layers import TRANSPOSED, LayerShape, Window, describe_linear, describe_window
from edgeprune.core.latency.steps import Step, list_operators
from edgeprune.errors import ExportError
from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.onnx.run import give_, open_session

CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "FusedConv": 1, "ConvTranspose": 1}
PRODUCTS = {"Gemm": 1, "FusedGemm": 1, "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3, "QGemm": 3}
"""Operators that are layers, and which of their inputs is the weight."""
RECURRENT = ("LSTM", "GRU", "RNN", "Attention", "QAttention", "MultiHeadAttention")
"""Operators whose work is not that of one layer; a net with them is refused rather than undercounted."""
SAME = ("QuantizeLinear", "DequantizeLinear", "Identity", "Cast", "Dropout")
"""Operators that give their operand as it is, or rounded."""
COUNTS = ("Shape", "Size")
"""Operators that give numbers of a tensor's sizes."""
TWO = {kinds.ADD: "Add Sub QLinearAdd Sum", kinds.MUL: "Mul Div QLinearMul Pow Max Min Where Mod"}
"""Operators on two tensors; with a constant in place of one they are less."""
KINDS = {
    kinds.CLAMP: "Relu Clip LeakyRelu PRelu ThresholdedRelu QLinearLeakyRelu",
    kinds.POINTWISE: "Neg Abs Floor Round Sign Shrink",
    kinds.CURVE: "Tanh Exp Elu Selu Celu Softplus Mish Log Sqrt Erf Sin Cos Softsign Reciprocal",
    kinds.SCALE: "BatchNormalization",
    kinds.NORM: "LayerNormalization GroupNormalization InstanceNormalization RMSNormalization SkipLayerNormalization",
    kinds.SOFTMAX: "Softmax LogSoftmax QLinearSoftmax",
    kinds.REDUCE: "ReduceMean ReduceSum ReduceMax ReduceMin ReduceL2 ReduceL1 ReduceProd ReduceLogSumExp",
    kinds.CONCAT: "Concat QLinearConcat",
    kinds.RESIZE: "Resize Upsample",
    kinds.PRODUCT: "MatMul Gemm QLinearMatMul MatMulInteger",
    kinds.VIEW: "Reshape Flatten Squeeze Unsqueeze",
    kinds.PERMUTE: "Transpose",
    kinds.POOL: "MaxPool AveragePool GlobalAveragePool GlobalMaxPool QLinearAveragePool QLinearGlobalAveragePool",
    "gelu": "Gelu",
    "hardswish": "HardSwish",
    "silu": "Swish",
    "sigmoid": "Sigmoid QLinearSigmoid",
    "hardsigmoid": "HardSigmoid",
    **TWO,
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}


def read_onnx_layers(path: Path) -> tuple[LayerShape, ...]:
    """The layers of an ONNX file in order, then what else in it takes time, for a batch of 1.

    Float or quantized files (QDQ and QOperator form).

    Raises:
        ExportError: not an ONNX file, input sizes left open, or an operator whose work or whose sizes cannot be told.
    """
    with foreign("reading ONNX layers", path):
        import onnx

        model = onnx.load(path)
        _fix_batch_(model.graph, path)
        layers = list(find_layers(model.graph, path))
        if not layers:
            raise ExportError(f"{path}: no convolution and no product with a weight in it")
        net = _read_net(model, [node.output[0] for node in layers])
        shapes = [_describe_layer(node, net) for node in layers]
        operators = list_operators(list(_read_steps(net, shapes)), net.sizes, 1)
    return (*shapes, *(operator.shape for operator in operators))


def _fix_batch_(graph: Any, path: Path) -> None:
    """Set an open batch to 1, also where inner sizes were written down for another."""
    weights = {tensor.name for tensor in graph.initializer}
    for graph_input in graph.input:
        for axis, size in enumerate(graph_input.type.tensor_type.shape.dim if graph_input.name not in weights else ()):
            if size.dim_value <= 0 and axis > 0:
                raise ExportError(
                    f"{path}: input {graph_input.name!r} leaves its size open; export it with fixed sizes"
                )
            if axis == 0:
                size.dim_value = 1
    for graph_output in graph.output:
        graph_output.type.tensor_type.ClearField("shape")
    del graph.value_info[:]


def find_layers(graph: Any, path: Path) -> Iterator[Any]:
    """Nodes that are layers: what is computed from weights alone is a weight too, as are numbers that count sizes."""
    fixed = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in RECURRENT:
            raise ExportError(f"{path}: operator {node.op_type} of {node.name!r}: no latency model of such layers")
        if node.op_type in COUNTS or all(name in fixed for name in node.input if name):
            fixed.update(node.output)
        elif node.op_type in CONVOLUTIONS or (
            node.op_type in PRODUCTS and not fixed.isdisjoint((node.input[0], node.input[PRODUCTS[node.op_type]]))
        ):
            yield node


@dataclass(frozen=True)
class _Net:
    """What is computed in a graph from its inputs, in order.

    `layers` are the first outputs of layers, `names` says of each tensor which one it is but for rounding, `makers`
    what makes it, `constants` what is stored, `sizes` those of all tensors, stored ones included.
    """

    nodes: tuple[Any, ...]
    layers: tuple[str, ...]
    names: dict[str, str]
    makers: dict[str, Any]
    constants: dict[str, Any]
    sizes: dict[str, tuple[int, ...]]

    def reads(self, node: Any) -> tuple[str, ...]:
        """What a node reads that hangs on the inputs."""
        return tuple(self.names[name] for name in node.input if name in self.names)

    def numbers(self, node: Any, place: int, name: str) -> list[int] | None:
        """Whole numbers that are an attribute of a node, or a constant among its inputs; None if it has none."""
        import onnx

        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if name in attributes:
            return list(attributes[name])
        stored = self.constants.get(node.input[place]) if len(node.input) > place else None
        return None if stored is None else [int(number) for number in onnx.numpy_helper.to_array(stored).reshape(-1)]


def _read_net(model: Any, layers: Sequence[str]) -> _Net:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    names = {value.name: value.name for value in model.graph.input if value.name not in constants}
    nodes, makers = list[Any](), dict[str, Any]()
    for node in model.graph.node:
        reads = [names[name] for name in node.input if name in names]
        if node.op_type == "Constant":
            constants.update((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")
        if not reads or node.op_type in COUNTS:
            continue
        if node.op_type in SAME:
            names[node.output[0]] = reads[0]
            continue
        nodes.append(node)
        names |= {name: name for name in node.output if name}
        makers |= dict.fromkeys(node.output, node)
    weights = {name for node in nodes for name in node.input if name and name not in names}
    sizes = _find_sizes(model, set(names.values()) | weights)
    return _Net(tuple(nodes), tuple(layers), names, makers, constants, sizes)


def _find_sizes(model: Any, names: set[str]) -> dict[str, tuple[int, ...]]:
    """Sizes of tensors: inferred, or those of a run in ONNX Runtime where an operator is its own."""
    import onnx

    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        shape = tuple(dim.dim_value for dim in kind.shape.dim)
        if kind.HasField("shape") and all(shape):
            sizes[value.name] = shape
    missing = sorted(names - sizes.keys())
    return sizes | (_run_for_sizes(model, missing) if missing else {})


def _run_for_sizes(model: Any, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    graph, stored = model.graph, {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    give_(model, list(names))
    session = open_session(model.SerializeToString(), optimised=False)
    results = session.run(list(names), {value.name: _zeros(value) for value in inputs})
    return {name: tuple(result.shape) for name, result in zip(names, results, strict=True)}


def _zeros(value: Any) -> np.ndarray:
    import onnx

    kind = value.type.tensor_type
    return np.zeros([dim.dim_value for dim in kind.shape.dim], onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))


def _describe_layer(node: Any, net: _Net) -> LayerShape:
    return _describe_convolution(node, net) if node.op_type in CONVOLUTIONS else _describe_product(node, net)


def _describe_convolution(node: Any, net: _Net) -> LayerShape:
    kernel = net.sizes[node.input[CONVOLUTIONS[node.op_type]]][2:]
    op = TRANSPOSED if node.op_type == "ConvTranspose" else "conv"
    source = net.reads(node)[0]
    read, written = net.sizes[source if op == TRANSPOSED else _unpadded(source, net)], net.sizes[node.output[0]]
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    window = replace(_read_window(node, kernel), groups=groups)
    return describe_window(op, (read[1], written[1]), (read[2:], written[2:]), window)


def _read_window(node: Any, kernel: Sequence[int]) -> Window:
    lists = {attribute.name: tuple(attribute.ints) for attribute in node.attribute}
    return Window(tuple(kernel), lists.get("strides", (1,) * len(kernel)), lists.get("dilations", ()))


def _unpadded(source: str, net: _Net) -> str:
    """What a convolution reads before zeros are put around it in space."""
    node = net.makers.get(source)
    if node is None or node.op_type != "Pad" or net.numbers(node, 3, "axes") is not None:
        return source
    amounts, value = net.numbers(node, 1, "pads"), net.numbers(node, 2, "value")
    modes = [attribute.s for attribute in node.attribute if attribute.name == "mode"]
    if amounts is None or min(amounts) < 0 or any(value or ()) or modes not in ([], [b"constant"]):
        return source
    rank = len(amounts) // 2
    return source if any((*amounts[:2], *amounts[rank : rank + 2])) else net.reads(node)[0]


def _describe_product(node: Any, net: _Net) -> LayerShape:
    """A linear layer: a weight on the right of the product, as most have it, or on its left."""
    (source,), place = net.reads(node), PRODUCTS[node.op_type]
    read, written = net.sizes[source], net.sizes[node.output[0]]
    if node.input[0] not in net.names:
        return describe_linear(read[-2], written[-2], prod(written) // written[-2])
    turned = place == 1 and any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return describe_linear(read[0] if turned else read[-1], written[-1], prod(written[:-1]))


def _read_steps(net: _Net, layers: Sequence[LayerShape]) -> Iterator[Step]:
    ops = dict(zip(net.layers, (shape.op for shape in layers), strict=True))
    for node in net.nodes:
        first, reads = node.output[0], net.reads(node)
        kind = ops.get(first) or KIND_OF.get(node.op_type, kinds.FREE)
        if kind == kinds.CONCAT and _is_roll(reads, net):
            kind = kinds.FREE
        if kind in TWO and len(reads) < 2:
            kind = kinds.SCALE
        axes = _read_axes(node, kind, net)
        window = _pool_window(node, net) if kind == kinds.POOL else None
        yield Step(first, kind, reads, first, axes, window)
        for output in node.output[1:]:
            if output:
                yield Step(output, kinds.FREE, reads, output)


def _is_roll(reads: Sequence[str], net: _Net) -> bool:
    """Whether parts of one tensor are put together again in another order."""
    parts = [net.makers[name] for name in reads if name in net.makers]
    return (
        len(parts) == len(reads)
        and {part.op_type for part in parts} == {"Slice"}
        and len(set(map(net.reads, parts))) == 1
    )


def _read_axes(node: Any, kind: str, net: _Net) -> tuple[int, ...]:
    rank = len(net.sizes[net.reads(node)[0]])
    if kind == kinds.PERMUTE:
        return tuple(net.numbers(node, rank, "perm") or reversed(range(rank)))
    if kind != kinds.REDUCE:
        return ()
    return tuple(axis % rank for axis in net.numbers(node, 1, "axes") or range(rank))


def _pool_window(node: Any, net: _Net) -> Window:
    sizes = net.sizes[net.reads(node)[0]]
    kernel = next((tuple(attribute.ints) for attribute in node.attribute if attribute.name == "kernel_shape"), None)
    return Window(sizes[2:], sizes[2:]) if kernel is None else _read_window(node, kernel)
