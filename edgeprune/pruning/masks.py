"""Masks of `torch.nn.utils.prune`: made permanent, and the channels that they leave without effect removed, exactly.

A channel goes if nobody reads it, or if it has one and the same value for every input, as a masked convolution before
a batch norm has: that value then goes into the bias of what reads it. A padded convolution sees the border of a
constant, so that one constant channel stays there and stands for all. What cannot be moved exactly stays, and so do
the zeros that make up no channel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgeprune.graph.analysis import Analysis
from edgeprune.graph.labels import Dim
from edgeprune.graph.nodes import arg
from edgeprune.graph.operators.table import find_operator
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.walk import Dims, Value
from edgeprune.pruning.constant_biases import add_constant_
from edgeprune.pruning.constants import Constants, one_value
from edgeprune.pruning.evidence import weight_of
from edgeprune.pruning.fold import fold_weights

Mask = NDArray[np.bool_]
LEAST_CARRIER = 0.01
"""How small a constant may be, relative to those that it stands for."""


def make_permanent(model: nn.Module) -> nn.Module:
    """A copy of a model whose masks (`torch.nn.utils.prune`) have been multiplied into its weights, or itself.

    The copy can be traced, saved and trained like any other; the given model keeps its masks.
    """
    return fold_weights(model)[0]


def find_dead_channels(program: GraphModule, analysis: Analysis) -> dict[str, tuple[int, ...]]:
    """The channels to keep of every group that has channels whose removal changes no output; a plan's `keep`.

    `program` is in eval mode. At least one channel of a group stays.
    """
    return _Search(program, analysis).keep()


def remove_dead_channels(program: GraphModule, analysis: Analysis) -> GraphModule:
    """A copy of a program in eval mode without its dead channels, which computes the same.

    What dead channels contributed goes into biases, a new one where need be, off a batch norm's running mean, or
    into the weights of a constant channel that stays.
    """
    search = _Search(program, analysis)
    keep = search.keep()
    pruned = apply_plan(program, analysis, keep)
    nodes = {node.name: node for node in pruned.graph.nodes}
    for node in program.graph.nodes:
        reading = search.reading(node)
        if reading is not None and node.name in nodes:
            search.move_(reading, nodes[node.name], pruned)
    pruned.recompile()
    return pruned


@dataclass(frozen=True)
class _Reading:
    """A layer and what it reads: constants by input channel, and weights as `[groups, outputs, inputs, window]`."""

    axis: int
    channels: NDArray[np.int64]
    outputs: Dim
    weight: Tensor
    values: Tensor
    """The value of each input channel; NaN where it hangs on the input or on the place."""
    at_border: bool
    """Whether places differ in how much of the window they see."""
    is_shared: bool
    is_transposed: bool

    def reached(self, alive: Mask) -> Mask:
        """Which inputs have any effect on the outputs that are alive."""
        rows = torch.from_numpy(alive).reshape(self.weight.shape[:2])[:, :, None]
        return np.asarray(((self.weight != 0).any(-1) & rows).any(1).flatten().numpy())


class _Search:
    """Which atoms of a graph can go, as the greatest set in which each is either unread or constant."""

    def __init__(self, program: GraphModule, analysis: Analysis) -> None:
        self.program, self.analysis, self.atoms = program, analysis, analysis.solution.atoms
        self.times = Counter(weight_of(node) for node in program.graph.nodes if find_operator(node).is_layer)
        self.values = Constants(program).find()
        self.readings: dict[Node, _Reading | None] = {}
        self.dead = np.zeros(analysis.solution.count + 1, np.bool_)
        if not any(_writes(node) for node in program.graph.nodes):
            for group in analysis.channel_groups:
                self.dead[analysis.atoms[group.name]] = True
        self._settle_()

    def keep(self) -> dict[str, tuple[int, ...]]:
        """Kept channels of the groups that lose some."""
        alive = {name: ~self.dead[atoms] for name, atoms in self.analysis.atoms.items()}
        return {name: tuple(map(int, mask.nonzero()[0])) for name, mask in alive.items() if not mask.all()}

    def move_(self, reading: _Reading, node: Node, pruned: GraphModule) -> None:
        """Give a pruned layer what the inputs that it has lost contributed."""
        gone = torch.from_numpy(self._gone(reading.channels)) & ~reading.values.isnan()
        values = torch.where(gone, reading.values, 0.0).reshape(len(reading.weight), 1, -1, 1)
        parts = (reading.weight * values).sum(2).flatten(0, 1)
        parts = parts[torch.from_numpy(self._alive(reading.outputs, len(parts)))]
        if not bool(parts.any()):
            return
        carrier = self._carrier(reading) if reading.at_border else None
        if carrier is None:
            add_constant_(node, pruned, parts.sum(1))
            return
        weight = pruned.get_parameter(weight_of(node))
        column = weight.detach().select(
            0 if reading.is_transposed else 1, int(self._alive(reading.channels, 0)[:carrier].sum())
        )
        column.add_((parts / reading.values[carrier]).reshape(column.shape))

    def reading(self, node: Node) -> _Reading | None:
        """How a layer reads its channels, if that can be said."""
        if node not in self.readings:
            self.readings[node] = self._read(node) if find_operator(node).is_layer and weight_of(node) else None
        return self.readings[node]

    def _settle_(self) -> None:
        """Spare what has an effect, then what is needed to keep each group there, until nothing changes."""
        nodes = [node for node in reversed(self.program.graph.nodes) if node.op in ("call_function", "output")]
        while True:
            before = self.dead.copy()
            for node in nodes:
                self._spare_(node)
            if np.array_equal(before, self.dead) and not self._spare_some_():
                return

    def _spare_some_(self) -> bool:
        """Keep as many more channels as a group needs to have one, and a multiple of its step."""
        spared = False
        for group in self.analysis.channel_groups:
            atoms = self.analysis.atoms[group.name]
            dead = atoms[self.dead[atoms]]
            alive = len(atoms) - len(dead)
            wanted = max(group.step, -(-alive // group.step) * group.step) - alive if len(dead) else 0
            self.dead[dead[:wanted]] = False
            spared |= wanted > 0
        return spared

    def _spare_(self, node: Node) -> None:
        for source in node.all_input_nodes:
            if source.op == "get_attr":
                continue
            for dims in _each(self.analysis.values.get(source.name)):
                for axis, dim in enumerate(dims):
                    gone = None if dim is None else self._gone(dim)
                    if dim is not None and gone is not None and bool(gone.any()):
                        guilty = gone & self._matters(node, source, dims, axis)
                        self.dead[self.atoms[dim[guilty]]] = False

    def _matters(self, node: Node, source: Node, dims: Dims, axis: int) -> Mask | bool:
        """Which slices along an axis of what a node reads have an effect beyond themselves."""
        dim, family = dims[axis], find_operator(node)
        reading = self.reading(node)
        if family.acts_per_channel or dim is None:
            return False
        if reading is not None and node.args[0] is source and axis == reading.axis:
            return self._matters_to(reading)
        passes = reading is not None or family.reduces_per_channel
        return not (passes and any(other is dim for other in self._dims(node)))

    def _matters_to(self, reading: _Reading) -> Mask:
        """Which inputs of a layer cannot go: those that vary, and constants that nothing can take over."""
        outputs = reading.weight.shape[0] * reading.weight.shape[1]
        reached = reading.reached(self._alive(reading.outputs, outputs))
        values = reading.values.numpy()
        matters = reached & np.isnan(values)
        moving = reached & ~matters & (values != 0) & self._gone(reading.channels)
        if not moving.any() or not (reading.at_border or reading.is_shared):
            return np.asarray(matters)
        if reading.is_shared or len(reading.weight) > 1:
            return np.asarray(matters | moving)
        carrier, strongest = self._carrier(reading), np.abs(np.where(moving, values, 0)).argmax()
        if carrier is None or abs(values[carrier]) < LEAST_CARRIER * abs(values[strongest]):
            matters[strongest] = True
        return np.asarray(matters)

    def _carrier(self, reading: _Reading) -> int | None:
        """The greatest constant among the inputs that stay."""
        constant = self._alive(reading.channels, 0) & ~reading.values.isnan().numpy()
        sizes = np.where(constant, reading.values.abs().numpy(), 0)
        return int(sizes.argmax()) if sizes.any() else None

    def _read(self, node: Node) -> _Reading | None:
        weight = self.program.get_parameter(weight_of(node)).detach()
        axes, transposed = weight.dim() - 2, find_operator(node).is_transposed
        source, value = node.args[0], self.values.get(node.args[0])  # type: ignore[arg-type]
        if not isinstance(source, Node) or not isinstance(value, Tensor):
            return None
        axis = value.dim() - 1 - axes
        channels, outputs = self._dims(source)[axis], self._dims(node)[axis]
        if channels is None:
            return None
        groups = int(arg(node, 6, "groups", 1))
        blocks = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        padding = arg(node, 4, "padding", 0) if axes else 0
        at_border = transposed or padding not in (0, "valid", [0] * axes, [0])
        is_shared = self.times[weight_of(node)] > 1
        blocks = blocks.transpose(1, 2) if transposed else blocks
        return _Reading(axis, channels, outputs, blocks, one_value(value, axis), at_border, is_shared, transposed)

    def _dims(self, node: Node) -> Dims:
        value = self.analysis.values.get(node.name)
        return value if isinstance(value, tuple) else ()

    def _gone(self, dim: Any) -> Mask:
        """Which slices go: those with any dead atom."""
        return np.asarray(self.dead[self.atoms[dim]].any(axis=1))

    def _alive(self, dim: Any, size: int) -> Mask:
        return np.ones(size, np.bool_) if dim is None else ~self._gone(dim)


def _writes(node: Node) -> bool:
    """Whether an operator changes one of its operands, so that values hang on when they are read."""
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable)


def _each(value: Value) -> Sequence[Dims]:
    return [] if value is None else value if isinstance(value, list) else [value]
