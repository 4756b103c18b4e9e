"""ONNX models of a single operator that is no layer: attention products, an activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeprune.core.latency.layers import ATTENTION, LayerShape
from edgeprune.exporting.probing.weights import INPUT_SCALE

OPSET = 20
"""The opset of exported nets: the first with an operator for GELU."""
IR_VERSION = 9
UNIT_SCALE = 1 / 255
"""Real value of one step of what lies between 0 and 1: the outputs of a softmax and of a sigmoid."""
UNITS = ("shares", "gate")
"""Tensors that lie between 0 and 1."""

Inputs = Mapping[str, Sequence[int]]
Constants = dict[str, NDArray[np.generic]]


def build_onnx_operator(shape: LayerShape, quantized: bool) -> bytes:
    """The operator as torch's exporter writes it, as an ONNX file; quantized, with uint8 tensors at each step.

    Attention takes queries, keys and values, `[1, tokens, channels]` each; an activation takes `[1, values, channels]`.
    """
    inputs, nodes, constants = _attention(shape) if shape.op == ATTENTION else _activation(shape)
    if quantized:
        nodes, constants = _quantize(inputs, nodes, constants)
    kind = TensorProto.UINT8 if quantized else TensorProto.FLOAT
    output = [1, shape.size[0], shape.cout]
    model: ModelProto = helper.make_model(
        helper.make_graph(
            nodes,
            "probe",
            [helper.make_tensor_value_info(name, kind, size) for name, size in inputs.items()],
            [helper.make_tensor_value_info("output", kind, output)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="edgeprune",
    )
    return bytes(model.SerializeToString())


def _attention(shape: LayerShape) -> tuple[Inputs, list[NodeProto], Constants]:
    heads, (queries, keys) = shape.groups, shape.size
    inputs = {"query": (1, queries, shape.cin), "key": (1, keys, shape.cin), "value": (1, keys, shape.cout)}
    constants: Constants = {"scale": np.array((shape.cin / heads) ** -0.25, dtype=np.float32)}
    constants["joined"] = np.array([1, queries, shape.cout])
    nodes = []
    for name, size in inputs.items():
        constants[f"{name}_parts"] = np.array([*size[:2], heads, size[2] // heads])
        nodes.append(helper.make_node("Reshape", [name, f"{name}_parts"], [f"{name}_split"]))
        order = [0, 2, 3, 1] if name == "key" else [0, 2, 1, 3]
        nodes.append(helper.make_node("Transpose", [f"{name}_split"], [f"{name}_heads"], perm=order))
    nodes += [
        helper.make_node("Mul", ["query_heads", "scale"], ["query_scaled"]),
        helper.make_node("Mul", ["key_heads", "scale"], ["key_scaled"]),
        helper.make_node("MatMul", ["query_scaled", "key_scaled"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "value_heads"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["mixed_tokens"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["mixed_tokens", "joined"], ["output"]),
    ]
    return inputs, nodes, constants


def _activation(shape: LayerShape) -> tuple[Inputs, list[NodeProto], Constants]:
    inputs = {"input": (1, shape.size[0], shape.cin)}
    if shape.op == "silu":
        gate = helper.make_node("Sigmoid", ["input"], ["gate"])
        return inputs, [gate, helper.make_node("Mul", ["input", "gate"], ["output"])], {}
    operator = {"gelu": "Gelu", "hardswish": "HardSwish"}[shape.op]
    return inputs, [helper.make_node(operator, ["input"], ["output"])], {}


def _quantize(inputs: Inputs, nodes: list[NodeProto], constants: Constants) -> tuple[list[NodeProto], Constants]:
    """The same with every tensor rounded to 8 bits, as static quantization writes it: each read dequantized anew."""
    factors = {name: value for name, value in constants.items() if value.dtype == np.float32}
    tensors: Constants = {"step": np.array(INPUT_SCALE, np.float32), "middle": np.array(128, np.uint8)}
    tensors |= {"unit_step": np.array(UNIT_SCALE, np.float32), "zero": np.array(0, np.uint8)}
    tensors |= {f"{name}_step": np.asarray(value.item() / 255, np.float32) for name, value in factors.items()}
    tensors |= constants | dict.fromkeys(factors, np.array(255, np.uint8))
    steps = dict.fromkeys([*inputs, *(node.output[0] for node in nodes)], ("step", "middle"))
    steps |= dict.fromkeys(UNITS, ("unit_step", "zero")) | {name: (f"{name}_step", "zero") for name in factors}
    quantized_nodes = list[NodeProto]()
    for node in nodes:
        target = node.output[0]
        real = NodeProto()
        real.CopyFrom(node)
        real.input[:] = [f"{name}_for_{target}" if name in steps else name for name in node.input]
        real.output[:] = [f"{target}_real"]
        reads = [name for name in node.input if name in steps]
        quantized_nodes += [
            helper.make_node("DequantizeLinear", [name, *steps[name]], [f"{name}_for_{target}"]) for name in reads
        ]
        quantized_nodes += [real, helper.make_node("QuantizeLinear", [f"{target}_real", *steps[target]], [target])]
    operands = {name for node in quantized_nodes for name in node.input}
    return quantized_nodes, {name: value for name, value in tensors.items() if name in operands}
