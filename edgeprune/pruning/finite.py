"""Values that are NaN or infinite: which tensor holds them, and which operator they arise in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.errors import EdgepruneError
from edgeprune.graph.trace import named_tensors, operator_of


def check_tensors(program: GraphModule, when: str, remedy: str) -> None:
    """Require that all parameters and statistics of a program are finite.

    Raises:
        EdgepruneError: one is not; names it, `when` it was seen, and the `remedy`.
    """
    for name, value in named_tensors(program).items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise EdgepruneError(f"{when}: {name} holds NaN or infinity; {remedy}")


def find_source(program: GraphModule, inputs: Tensor) -> str:
    """For people: where a value that is not finite arises first when the program runs on a batch."""
    if not bool(inputs.isfinite().all()):
        return "the inputs hold NaN or infinity"
    seeker = _Seeker(program)
    with torch.no_grad():
        seeker.run(inputs)
    if seeker.first is None:
        return "the net's outputs are finite: it is the loss, or the targets"
    node = seeker.first
    if node.op == "get_attr":
        return f"{node.target} holds NaN or infinity"
    layers = [str(one.target) for one in node.all_input_nodes if one.op == "get_attr"]
    name = layers[0].rpartition(".")[0] if layers else node.name
    return f"layer {name} ({operator_of(node)}) gives NaN or infinity from finite values"


class _Seeker(Interpreter):
    """Runs a graph and notes the first node whose value is not finite."""

    first: Node | None = None

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        read = n.op != "get_attr" or bool(n.users)
        if self.first is None and read and n.op != "output" and not _is_finite(value):
            self.first = n
        return value


def _is_finite(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(value.isfinite().all())
