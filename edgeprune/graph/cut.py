"""One plan on one graph, as the rewriting of its literals asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.fx import GraphModule, Node

from edgeprune.graph.analysis import Analysis
from edgeprune.graph.labels import Dim, Mask
from edgeprune.graph.nodes import sizes_of
from edgeprune.graph.walk import Dims, Value


@dataclass
class Cut:
    """One plan on one graph: which slices are left of any dimension. A mask is None where all are.

    `program` is the copy that is being cut.
    """

    analysis: Analysis
    alive: Mask
    program: GraphModule
    traced: dict[tuple[object, ...], torch.Tensor] = field(default_factory=dict)
    """Traced tensors by type and sizes: making one takes longer than all else that is done for a node."""
    _masks: dict[int, Mask | None] = field(default_factory=dict)

    def mask(self, dim: Dim) -> Mask | None:
        """Which slices stay."""
        if dim is None:
            return None
        if id(dim) not in self._masks:
            mask = np.asarray(self.alive[self.analysis.solution.atoms[dim]].all(axis=1))
            self._masks[id(dim)] = None if bool(mask.all()) else mask
        return self._masks[id(dim)]

    def count(self, dim: Dim, size: int) -> int:
        """How many of `size` slices stay."""
        mask = self.mask(dim)
        return size if mask is None else int(mask.sum())

    def dims(self, node: object) -> Dims:
        """The labels of a node's dimensions, as they were in the analysed graph."""
        value = self.analysis.values.get(node.name) if isinstance(node, Node) else None
        return value if isinstance(value, tuple) else ()

    def touches(self, node: Node) -> bool:
        """Whether the node reads or makes a tensor that becomes smaller."""
        if node.op == "output":
            return False
        inner = self.analysis.inner.get(node.name)
        return self.mask(inner) is not None or any(
            self._is_cut(self.analysis.values.get(tensor.name)) for tensor in (node, *node.all_input_nodes)
        )

    def _is_cut(self, value: Value) -> bool:
        pieces = value if isinstance(value, list) else [value or ()]
        return any(self.mask(dim) is not None for piece in pieces for dim in piece)

    def position(self, dim: Dim, place: int) -> int:
        """Where the slice at `place` (or the end) lies among those that stay."""
        mask = self.mask(dim)
        return place if mask is None else int(mask[:place].sum())

    def sizes_before(self, node: object) -> tuple[int, ...]:
        """The sizes that an operand had before surgery."""
        sizes = sizes_of(node.meta["val"]) if isinstance(node, Node) else ()
        return tuple(size if dim is None else len(dim) for dim, size in zip(self.dims(node), sizes, strict=True))


Rewrite = Callable[[Node, Cut], None]
"""Counts the literals of a node anew, in place; whatever it raises beside GraphError is a defect."""
