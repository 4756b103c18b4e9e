"""Numbers, sizes and checks, and regions: what makes no tensor with channels of its own."""

from __future__ import annotations

from torch.fx import Node

from edgeprune.graph.operators.record import OperatorFamily, aten
from edgeprune.graph.walk import Value, Walk, untracked


def nothing(node: Node, walk: Walk) -> Value:
    """Numbers and checks: no tensor, or one without channels."""
    return untracked(node)


SIZES = "sym_float sym_int sym_max sym_min sym_ite sym_not sym_sum _sym_sqrt"
ARITHMETIC = "mul add sub neg pow floordiv truediv mod eq ne ge le gt lt"

FAMILIES = (
    OperatorFamily(aten("sym_size sym_numel sym_stride sym_storage_offset"), nothing, is_size=True),
    OperatorFamily(tuple(SIZES.split()), nothing, is_size=True),
    OperatorFamily(tuple(ARITHMETIC.split()), nothing),
    OperatorFamily(aten("arange linspace scalar_tensor item _assert_tensor_metadata _assert_scalar"), nothing),
    OperatorFamily(("wrap_with_autocast",), places={"region": 4}),
    OperatorFamily(("wrap_with_set_grad_enabled",), places={"region": 1}),
)
