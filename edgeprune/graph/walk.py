"""What a walk over a graph has learnt: the labels of every tensor's dimensions, and what the rules of operators add."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.core.latency.layers import LayerShape
from edgeprune.graph.labels import Array, Dim, Labels
from edgeprune.graph.nodes import operator_of, sizes_of

Dims = tuple[Dim, ...]
Value = Dims | list[Dims] | None
"""Labels of a node's dimensions: of its tensor, of its several tensors, or nothing for a number."""


@dataclass(frozen=True)
class Use:
    """A parameter's dimension in the role it plays for an operator: "out" or "in"."""

    tensor: str
    dim: int
    role: str


@dataclass(frozen=True)
class LayerUse:
    """An operator that takes time, as it was met: its shape, and the labels that its counts follow.

    A count is that of all combinations of slices of some dimensions, be it of all inputs of the batch that the sizes
    are for. `weight` is what it is named by, `space` has the dimensions of its places for each axis of the size.
    """

    node: str
    weight: str
    shape: LayerShape
    cin: Dims
    cout: Dims
    groups: Dims = ()
    space: tuple[Dims, ...] = ()


@dataclass(frozen=True)
class Shuffle:
    """A view, a transposition and a view that together only reorder one dimension of `source`."""

    source: str
    axis: int
    order: Array


@dataclass
class Walk:
    """What has been learnt so far."""

    program: GraphModule
    labels: Labels = field(default_factory=Labels)
    values: dict[Node, Value] = field(default_factory=dict)
    tensors: dict[str, Dims] = field(default_factory=dict)
    uses: dict[Use, None] = field(default_factory=dict)
    layers: list[LayerUse] = field(default_factory=list)
    inner: dict[str, Dim] = field(default_factory=dict)
    """Labels that are no dimension of any tensor: the groups of a grouped convolution or of group norm."""
    shuffles: dict[Node, Shuffle] = field(default_factory=dict)
    skipped: set[Node] = field(default_factory=set)
    unknown: dict[str, None] = field(default_factory=dict)
    """Operators, or forms of them, that no rule is for, in words."""
    faults: list[str] = field(default_factory=list)
    """What failed here that should not: operator, rule and exception."""
    parameters: frozenset[str] = frozenset()
    fed: set[Node] = field(default_factory=set)
    """Nodes whose values hang on an input, its sizes left aside."""

    @property
    def batch(self) -> int:
        """How many inputs the sizes are for: the first size of the first input."""
        sizes = [sizes_of(node.meta["val"]) for node in self.program.graph.find_nodes(op="placeholder")]
        return next((shape[0] for shape in sizes if shape), 1)

    def dims(self, value: object) -> Dims:
        """The labels of a tensor operand; a number has none."""
        labels = self.values.get(value) if isinstance(value, Node) else None
        return labels if isinstance(labels, tuple) else ()

    def sizes(self, value: object) -> tuple[int, ...]:
        """The sizes of a tensor operand; an open batch counts as in the example."""
        return sizes_of(value.meta.get("val")) if isinstance(value, Node) else ()

    def use(self, value: object, dim: int, role: str) -> None:
        """Note that an operator reads or makes channels with a parameter's dimension, be it through other operators.

        A constant filter (a buffer) only goes along.
        """
        labels = self.dims(value)[dim]
        while isinstance(value, Node) and value.op == "call_function" and value.all_input_nodes:
            value = value.all_input_nodes[0]
        if not isinstance(value, Node) or str(value.target) not in self.parameters or labels is None:
            return
        for place, own in enumerate(self.tensors[str(value.target)]):
            if own is labels:
                self.uses.setdefault(Use(str(value.target), place, role))

    def tie(self, node: Node, left: Dim, right: Dim) -> None:
        """Tie slice by slice, the node being the reason if one side cannot be tied."""
        if left is not None or right is not None:
            reason = f"{node.name} ({operator_of(node)}) joins it with positions that are no channels"
            self.labels.tie(left, right, reason)

    def note_fault(self, text: str) -> None:
        """Tell of a defect, also as a warning, which is an error in tests."""
        self.faults.append(text)
        warnings.warn(RuleFault(f"{text}; please report this"), stacklevel=2)

    def freeze(self, node: Node, dims: Sequence[Dim], why: str = "") -> None:
        """Keep every slice of `dims`, the node being the reason."""
        for dim in dims:
            self.labels.freeze(dim, why or f"{node.name} ({operator_of(node)}) needs every slice")


Rule = Callable[[Node, Walk], Value]
"""Labels of what a node gives; a rule that cannot tell calls `freeze_all`, and whatever it raises is a defect."""


class RuleFault(RuntimeWarning):
    """A defect in a rule of the engine, which makes it cut less than it could."""


def freeze_all(node: Node, walk: Walk, why: str = "no rule for this form of") -> Value:
    """What an operator without a rule gets, or one in a form that its rule does not know: what meets it stays whole."""
    if isinstance(node.meta.get("val"), (Tensor, list, tuple)):
        for source in node.all_input_nodes:
            for dims in each_dims(walk.values[source]):
                walk.freeze(node, dims, f"{why} {operator_of(node)} (at {node.name})")
                if any(dim is not None for dim in dims):
                    walk.unknown.setdefault(f"{why} {operator_of(node)}")
    return untracked(node)


def untracked(node: Node) -> Value:
    """Dimensions without labels, for every tensor that the node gives."""
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        return (None,) * value.dim()
    if isinstance(value, (list, tuple)):
        return [(None,) * tensor.dim() if isinstance(tensor, Tensor) else () for tensor in value]
    return None


def each_dims(value: Value) -> list[Dims]:
    """The labels of each tensor that a node gives."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
