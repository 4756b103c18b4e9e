"""Values that are NaN or infinite: which tensor holds them, and which operator they arise in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.errors import EdgepruneError
from edgeprune.graph.nodes import operator_of
from edgeprune.graph.trace import is_sound, named_tensors


def check_tensors(program: GraphModule, moment: str, remedy: str) -> None:
    """Require that all parameters and statistics of a program are finite; masks may hold infinity.

    Raises:
        EdgepruneError: one is not; names it, the `moment` at which it was seen, and the `remedy`.
    """
    for name, value in named_tensors(program).items():
        if not is_sound(name, value):
            raise EdgepruneError(f"{moment}: {name} holds NaN or infinity; {remedy}")


def find_source(program: GraphModule, inputs: Tensor) -> str:
    """For people: where a value that is not finite arises first when the program runs on a batch."""
    if not bool(inputs.isfinite().all()):
        return "the inputs hold NaN or infinity"
    seeker = _Seeker(program)
    with torch.no_grad():
        seeker.run(inputs)
    node = seeker.wrong or seeker.masked
    if node is None:
        return "the net's outputs are finite: it is the loss, or the targets"
    if node.op == "get_attr":
        return f"{node.target} holds NaN or infinity"
    layers = [str(stored.target) for stored in node.all_input_nodes if stored.op == "get_attr"]
    name = layers[0].rpartition(".")[0] if layers else node.name
    return f"layer {name} ({operator_of(node)}) gives NaN or infinity from finite values"


class _Seeker(Interpreter):
    """Runs a graph and notes the first node whose value is wrong, and the first that is minus infinity somewhere, as a
    masked score is."""

    wrong: Node | None = None
    masked: Node | None = None

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        for tensor in value if isinstance(value, list | tuple) else (value,):
            if n.op != "output" and isinstance(tensor, Tensor) and tensor.is_floating_point():
                self._note(n, tensor)
        return value

    def _note(self, node: Node, value: Tensor) -> None:
        if node.op == "get_attr":
            is_wrong, is_masked = bool(node.users) and not is_sound(str(node.target), value), False
        else:
            is_wrong, is_masked = bool((value.isnan() | value.isposinf()).any()), bool(value.isneginf().any())
        if is_wrong and self.wrong is None:
            self.wrong = node
        if is_masked and self.masked is None:
            self.masked = node
