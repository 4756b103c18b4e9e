"""Residual branches of a graph: what can be cut so that its block becomes the identity (or its shortcut)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import takewhile

from torch.fx import GraphModule, Node

from edgeprune.graph.analysis import Branch
from edgeprune.graph.nodes import operator_of, sizes_of
from edgeprune.graph.operators.build import ADD
from edgeprune.graph.operators.table import find_operator
from edgeprune.graph.trace import named_tensors


def find_branches(program: GraphModule, weights: Mapping[str, str]) -> dict[str, Branch]:
    """Every residual branch with a layer in it, by name, in the order of the graph.

    `weights` gives the weight of each layer's node. Of an addition's two operands the one with more layers is the
    branch, and the other its shortcut; both must come from a common tensor, so that nothing that the net reads is
    cut off with the branch. Where all branches are cut an input must still reach each addition that it reaches now: of
    blocks that write what they read of an image into a learned token, the first stays.
    """
    branches: dict[str, Branch] = {}
    idle, bare = _find_idle(program), set[Node]()
    for node in program.graph.nodes:
        branch = _longest_branch(node, weights, idle)
        bare_sources = [
            source for source in node.all_input_nodes if source in bare and sizes_of(source.meta.get("val"))
        ]
        if branch is not None:
            if any(source is node.args[1 - branch.operand] for source in bare_sources):
                bare.add(node)
            elif bare_sources:
                branch = None
        if branch is not None:
            branches[_unique(_name([weights[layer] for layer in branch.layers]), branches)] = branch
        elif bare_sources or node.op == "placeholder":
            bare.add(node)
    return branches


def _longest_branch(node: Node, weights: Mapping[str, str], idle: Collection[Node]) -> Branch | None:
    """The branch of an addition, if it is one that has some: of its operands that with more layers."""
    if node.target is not ADD:
        return None
    branches = [branch for operand in (0, 1) if (branch := _branch(node, operand, weights, idle)) is not None]
    return max(branches, key=lambda candidate: len(candidate.layers), default=None)


def _find_idle(program: GraphModule) -> set[Node]:
    """Operators from which nothing leads to an output: checks, and results that nobody takes."""
    idle: set[Node] = set()
    for node in reversed(program.graph.nodes):
        if node.op == "call_function" and not _writes(node) and idle.issuperset(node.users):
            idle.add(node)
    return idle


def _branch(add: Node, operand: int, weights: Mapping[str, str], idle: Collection[Node]) -> Branch | None:
    source, shortcut = (add.args[place] for place in (operand, 1 - operand))
    if not isinstance(source, Node) or not isinstance(shortcut, Node) or source is shortcut or add.kwargs:
        return None
    if sizes_of(shortcut.meta.get("val")) != sizes_of(add.meta.get("val")) or any(map(_writes, add.users)):
        return None
    inside = _computed_for(source, add, shortcut, idle)
    layers = tuple(node.name for node in add.graph.nodes if node in inside and node.name in weights)
    if not layers or not _meets(shortcut, {tensor for node in inside for tensor in node.all_input_nodes} - inside):
        return None
    return Branch(add.name, operand, frozenset(node.name for node in inside), layers)


def _computed_for(source: Node, add: Node, shortcut: Node, idle: Collection[Node]) -> set[Node]:
    """`source` and what it is computed from, as far as nothing but `add` reads it in the end."""
    inside: set[Node] = set()
    waiting = [source]
    while waiting:
        node = waiting.pop()
        readers = {user for user in node.users if user not in idle}
        if node is shortcut or node.op == "placeholder" or not readers <= inside | {add}:
            continue
        inside.add(node)
        waiting += [operand for operand in node.all_input_nodes if operand not in inside]
    for node in add.graph.nodes:
        if node in idle and not inside.isdisjoint(node.all_input_nodes):
            inside.add(node)
    return inside


def _meets(shortcut: Node, entries: set[Node]) -> bool:
    """Whether the shortcut is, or is computed from, one of the tensors that the branch starts from."""
    waiting, visited = [shortcut], {shortcut}
    while waiting:
        node = waiting.pop()
        if node in entries:
            return True
        fresh = set(node.all_input_nodes) - visited
        visited |= fresh
        waiting += fresh
    return False


def _writes(node: Node) -> bool:
    return str(getattr(node.target, "overloadpacket", "")).endswith("_")


def _name(weights: Iterable[str]) -> str:
    """What the names of a branch's layers have in common."""
    paths = [weight.removesuffix(".weight").split(".") for weight in weights]
    shared = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))]
    return ".".join(shared or paths[0]) + ":branch"


def _unique(name: str, names: Collection[str]) -> str:
    number = sum(other.split("#")[0] == name for other in names)
    return f"{name}#{number + 1}" if number else name


def cut_branches_(program: GraphModule, branches: Iterable[Branch]) -> None:
    """Let each addition pass its shortcut on, and remove what is then computed for nothing, weights included."""
    cut = list(branches)
    if not cut:
        return
    nodes = {node.name: node for node in program.graph.nodes}
    before = _read_tensors(program)
    for branch in cut:
        add = nodes[branch.add]
        add.replace_all_uses_with(add.args[1 - branch.operand])
        program.graph.erase_node(add)
    inside = frozenset[str]().union(*(branch.nodes for branch in cut))
    program.graph.eliminate_dead_code(lambda node: node.name not in inside and node.is_impure())
    _drop_repeated_(program)
    for name in before - _read_tensors(program):
        owner, _, attribute = name.rpartition(".")
        delattr(program.get_submodule(owner), attribute)


def _drop_repeated_(program: GraphModule) -> None:
    """Remove activations of what the same activation has just given, as a cut block leaves them behind.

    They compute nothing, but runtimes fuse an activation only into what computes: LiteRT ran such a net in int8 at half
    the speed.
    """
    for node in list(program.graph.nodes):
        source = node.args[0] if node.args else None
        if not isinstance(source, Node) or operator_of(node) != operator_of(source):
            continue
        if find_operator(node).is_idempotent and (node.args[1:], node.kwargs) == (source.args[1:], source.kwargs):
            node.replace_all_uses_with(source)
            program.graph.erase_node(node)


def _read_tensors(program: GraphModule) -> set[str]:
    names = {str(node.target) for node in program.graph.find_nodes(op="get_attr")}
    return names & named_tensors(program).keys()
