"""What was found in a graph: its channel groups, its layers, and what surgery needs to cut them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgeprune.core.latency.layers import Layer
from edgeprune.core.planning.plan import ChannelGroup
from edgeprune.graph.labels import NONE, Array, Dim, Solution
from edgeprune.graph.walk import Dims, Shuffle, Value


@dataclass(frozen=True)
class Branch:
    """One operand of an addition, and everything that is computed for it alone."""

    add: str
    """The node that adds the branch to its shortcut."""
    operand: int
    """Which of the addition's two operands the branch is."""
    nodes: frozenset[str]
    layers: tuple[str, ...]
    """Nodes of the convolutions and linear layers in it, in order."""


@dataclass(frozen=True)
class Analysis:
    """What can be pruned in a graph, and what that does to its layers.

    `notes` names operators without a rule and what was frozen for which reason, `faults` (among the notes) what failed
    in the analysis itself. The rest is for surgery.
    """

    groups: tuple[ChannelGroup, ...]
    layers: tuple[Layer, ...]
    operators: tuple[Layer, ...]
    """What takes time beside the layers (:mod:`edgeprune.core.latency.steps`)."""
    notes: tuple[str, ...]
    atoms: dict[str, Array] = field(repr=False, compare=False)
    """The atoms of each group, in the order of its channels."""
    solution: Solution = field(repr=False, compare=False)
    values: dict[str, Value] = field(repr=False, compare=False)
    tensors: dict[str, Dims] = field(repr=False, compare=False)
    inner: dict[str, Dim] = field(repr=False, compare=False)
    shuffles: dict[str, Shuffle] = field(repr=False, compare=False)
    branches: dict[str, Branch] = field(default_factory=dict, repr=False, compare=False)
    faults: tuple[str, ...] = ()

    @property
    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """Groups of channels that may be narrowed; branches and what is frozen are none."""
        return tuple(group for group in self.groups if not group.frozen and not group.is_branch)

    def group(self, name: str) -> ChannelGroup:
        """The group of that name.

        Raises:
            KeyError: there is none.
        """
        return {group.name: group for group in self.groups}[name]

    def channels(self, group: str, tensor: str, dim: int) -> Array:
        """For every slice of a parameter's dimension, the channel of `group` that it belongs to, or -1."""
        labels = self.tensors[tensor][dim]
        if labels is None:
            raise KeyError(f"{tensor}: dimension {dim} is not tracked")
        atoms = self.atoms[group]
        channel = np.full(self.solution.count + 1, NONE, np.int64)
        channel[atoms] = np.arange(len(atoms))
        return np.asarray(channel[self.solution.atoms[labels]].max(axis=1), np.int64)
