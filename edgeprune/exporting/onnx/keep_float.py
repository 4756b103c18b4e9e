"""Float layers of a mixed ONNX file, written so that ONNX Runtime leaves them in float.

Its optimiser (WeightBiasQuantization, seen in 1.31) rounds the weights of a Conv or Gemm between DequantizeLinear and
QuantizeLinear to 8 bits by itself, one scale for all, and runs the layer in integers. It does not touch the fused forms
of these operators, which compute the same in the same kernels.
"""

from __future__ import annotations

FUSED: dict[str, tuple[str, dict[str, str | float]]] = {
    "Conv": ("FusedConv", {}),
    "Gemm": ("FusedGemm", {"activation": "LeakyRelu", "activation_alpha": 1.0}),
}
"""Operator to its fused form, with attributes by which that changes nothing: a product always has an activation."""
DOMAIN = "com.microsoft"


def keep_floats(content: bytes) -> bytes:
    """The same file with its layers of float weights in their fused forms."""
    import onnx

    model = onnx.load_from_string(content)
    stored = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in FUSED and node.input[1] in stored:
            node.op_type, attributes = FUSED[node.op_type]
            node.domain = DOMAIN
            node.attribute.extend(onnx.helper.make_attribute(*attribute) for attribute in attributes.items())
    if DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized
