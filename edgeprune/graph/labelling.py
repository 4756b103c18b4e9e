"""One walk over a graph: every tensor's dimensions get their labels, by the rule of each operator's family."""

from __future__ import annotations

from collections.abc import Collection

from torch.fx import GraphModule, Node

from edgeprune.graph.nodes import operator_of
from edgeprune.graph.operators.table import find_operator
from edgeprune.graph.walk import Dims, Value, Walk, each_dims, freeze_all, untracked


def walk_graph(program: GraphModule, ignore: Collection[str] = ()) -> Walk:
    """Label every dimension of every tensor of the graph, and collect what ties them."""
    walk = Walk(program, parameters=frozenset(name for name, _ in program.named_parameters(remove_duplicate=False)))
    for node in program.graph.nodes:
        if node.op == "placeholder" or (
            not find_operator(node).is_size and not walk.fed.isdisjoint(node.all_input_nodes)
        ):
            walk.fed.add(node)
        walk.values[node] = _value(node, walk)
    for use in walk.uses:
        if use.role == "out" and is_ignored(use.tensor, ignore):
            walk.labels.freeze(walk.tensors[use.tensor][use.dim], "ignored by the user")
    return walk


def is_ignored(tensor: str, ignore: Collection[str]) -> bool:
    """Whether a parameter, or a module that it belongs to, is among those named."""
    return any(tensor == name or tensor.startswith(f"{name}.") for name in ignore)


def _value(node: Node, walk: Walk) -> Value:
    if node.op == "placeholder":
        return untracked(node)
    if node.op == "get_attr":
        return _parameter(node, walk)
    if node.op == "output":
        for source in node.all_input_nodes:
            for dims in each_dims(walk.values[source]):
                walk.freeze(node, dims, "it reaches the model's output")
        return None
    if node in walk.skipped:
        return untracked(node)
    rule = find_operator(node).rule
    if rule is None:
        return freeze_all(node, walk, "no rule for")
    try:
        return rule(node, walk)
    except Exception as exc:  # a defect here, of which a user's net must not die
        what = f"rule {rule.__module__}.{rule.__name__} failed at {node.name} ({operator_of(node)})"
        walk.note_fault(f"{what}: {type(exc).__name__}: {exc}; what meets it stays whole")
        return freeze_all(node, walk, "a defect in the rule for")


def _parameter(node: Node, walk: Walk) -> Dims:
    name = str(node.target)
    if name not in walk.tensors:
        walk.tensors[name] = tuple(walk.labels.fresh(size) for size in walk.sizes(node))
    return walk.tensors[name]
