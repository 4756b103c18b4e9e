"""The record of each operator, by name."""

from __future__ import annotations

import torch
from torch.fx import Node

from edgeprune.graph.nodes import operator_of
from edgeprune.graph.operators import (
    convolutions,
    copies,
    gathers,
    norms,
    numbers,
    pads,
    pieces,
    pointwise,
    products,
    recurrent,
    reductions,
    views,
    windows,
)
from edgeprune.graph.operators.record import OperatorFamily

SUBJECTS = (
    convolutions, products, recurrent, pointwise, norms, reductions, windows, pads, views, pieces, copies, gathers,
    numbers,
)  # fmt: skip
OPERATORS: dict[str, OperatorFamily] = {
    name: family for subject in SUBJECTS for family in subject.FAMILIES for name in family.names
}
"""What is known of an operator, by its name as :func:`edgeprune.graph.nodes.operator_of` gives it."""
UNKNOWN = OperatorFamily()
TAGGED = OperatorFamily(rule=pointwise.pointwise)
"""What torch itself says is pointwise."""


def find_operator(node: Node) -> OperatorFamily:
    """What is known of a node's operator; of an unknown one, and of a node that calls none, nothing."""
    family = OPERATORS.get(operator_of(node))
    if family is not None:
        return family
    return TAGGED if torch.Tag.pointwise in getattr(node.target, "tags", ()) else UNKNOWN
