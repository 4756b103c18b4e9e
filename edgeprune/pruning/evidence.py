"""What calibration data say about a graph: gradients and activations, gathered once, where they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.core.planning.plan import ChannelGroup
from edgeprune.errors import EdgepruneError, PlanError
from edgeprune.graph.analysis import Analysis
from edgeprune.graph.operators.table import find_operator
from edgeprune.pruning.finite import find_source

Scores = NDArray[np.float64]
Loss = Callable[[Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]
SMALL_BATCH = 16
"""Inputs to a gradient: over many inputs the gradient of a trained net vanishes, and says nothing."""
RANK_SAMPLES = 64
"""Inputs whose feature maps are looked at for their rank; HRank finds the mean rank stable from a few hundred on."""


@dataclass(frozen=True)
class Activation:
    """Figures of each channel of a group where layers read it."""

    mean: Scores
    """Mean absolute value."""
    zeros: Scores
    """Share of values that are zero, in [0, 1]."""


@dataclass(frozen=True)
class Evidence:
    """A traced graph in eval mode, its groups, and the calibration batches and loss that it is judged by."""

    program: GraphModule
    analysis: Analysis
    batches: tuple[Batch, ...]
    loss: Loss

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by qualified name."""
        return dict(self.program.named_parameters(remove_duplicate=False)) | dict(
            self.program.named_buffers(remove_duplicate=False)
        )

    @cached_property
    def squared_gradients(self) -> dict[str, Tensor]:
        """Mean square, over small batches, of the gradient of a batch's loss by each parameter."""
        parameters = {name: value for name, value in self.tensors.items() if isinstance(value, nn.Parameter)}
        total = {name: torch.zeros_like(value) for name, value in parameters.items()}
        pieces = [
            pair
            for inputs, targets in self.batches
            for pair in zip(torch.split(inputs, SMALL_BATCH), torch.split(targets, SMALL_BATCH), strict=True)
        ]
        for inputs, targets in pieces:
            loss = finite_loss(self.loss(self.program(inputs), targets), self.program, inputs)
            gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                total[name] += gradient.square() / len(pieces)
        return total

    @cached_property
    def gates(self) -> dict[str, Tensor]:
        """For each group, the derivative of each input's loss by a factor on each channel, `[inputs, channels]`."""
        sources = {group.name: producers(self, group) for group in self.analysis.channel_groups}
        gates: dict[str, list[Tensor]] = {name: [] for name in sources}
        for inputs, targets in self.batches:
            values = self._differentiable(inputs, {node for nodes in sources.values() for node in nodes})
            output = values.pop("output")
            loss = finite_loss(self.loss(output, targets), self.program, inputs) * len(inputs)
            derivatives = torch.autograd.grad(loss, list(values.values()), materialize_grads=True)
            gradients = dict(zip(values, derivatives, strict=True))
            for name, nodes in sources.items():
                parts = [self._by_channel(name, node, values[node.name] * gradients[node.name], 0) for node in nodes]
                gates[name].append(torch.stack(parts).sum(0) if parts else torch.zeros(len(inputs), 0))
        return {name: torch.cat(parts).detach() for name, parts in gates.items()}

    @cached_property
    def activations(self) -> dict[str, Activation]:
        """Figures of each group's channels where layers read them."""
        sources = {group.name: readers(self, group) for group in self.analysis.channel_groups}
        sums: dict[str, Tensor] = {}
        read_nodes = {node for nodes in sources.values() for node in nodes}
        for inputs, _ in self.batches:
            values = record(self.program, inputs, read_nodes)
            for name, nodes in sources.items():
                for node in nodes:
                    kinds = (values[node].abs(), (values[node] == 0).float(), torch.ones_like(values[node]))
                    figures = torch.stack([self._by_channel(name, node, kind).double() for kind in kinds])
                    sums[name] = sums.get(name, 0) + figures
        return {name: Activation(*(part[:2] / part[2]).numpy()) for name, part in sums.items()}

    @cached_property
    def ranks(self) -> dict[str, Scores]:
        """Mean rank of each channel's feature maps; of all inputs' values together where a channel has no map."""
        inputs = self.batches[0][0][:RANK_SAMPLES]
        sources = {group.name: readers(self, group) for group in self.analysis.channel_groups}
        values = record(self.program, inputs, {node for nodes in sources.values() for node in nodes})
        return {
            name: np.mean([self._ranks(name, node, values[node]) for node in nodes], axis=0)
            for name, nodes in sources.items()
            if nodes
        }

    def _differentiable(self, inputs: Tensor, sources: Iterable[Node]) -> dict[str, Tensor]:
        """The values of nodes, and the output, with their history."""
        nodes = set(sources)
        recorder = _Recorder(self.program, nodes)
        output = recorder.run(inputs)
        return {node.name: recorder.values[node] for node in nodes} | {"output": output}

    def _by_channel(self, group: str, node: Node, value: Tensor, *kept_dims: int) -> Tensor:
        """Sum a node's value over everything but the group's channels (and `kept_dims`, before them)."""
        dim, channels = place_of(self, group, node)
        others = [axis for axis in range(value.ndim) if axis != dim and axis not in kept_dims]
        rows = value.sum(others) if others else value
        own = torch.from_numpy(channels >= 0)
        size = len(self.analysis.atoms[group])
        result = rows.new_zeros((*rows.shape[:-1], size))
        return result.index_add(-1, torch.from_numpy(channels)[own], rows[..., own])

    def _ranks(self, group: str, node: Node, value: Tensor) -> Scores:
        dim, channels = place_of(self, group, node)
        maps = value.movedim(dim, 0).float()
        maps = maps if maps.ndim >= 4 else maps.reshape(len(maps), 1, len(value), -1)
        ranks = torch.linalg.matrix_rank(maps.flatten(1, -3)).float().mean(1).double().numpy()
        own = channels >= 0
        size = len(self.analysis.atoms[group])
        total = np.bincount(channels[own], ranks[own], size)
        return np.asarray(total / np.maximum(1, np.bincount(channels[own], minlength=size)))


class _Recorder(Interpreter):
    """Runs a graph and keeps the values of some nodes."""

    def __init__(self, program: GraphModule, nodes: Iterable[Node]) -> None:
        super().__init__(program)
        self.nodes = set(nodes)
        self.values: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self.nodes:
            self.values[n] = value
        return value


def record(program: GraphModule, inputs: Tensor, nodes: Iterable[Node]) -> Mapping[Node, Tensor]:
    """The values of some nodes on a batch, without history."""
    recorder = _Recorder(program, nodes)
    with torch.no_grad():
        recorder.run(inputs)
    return recorder.values


def producers(evidence: Evidence, group: ChannelGroup) -> list[Node]:
    """The nodes whose sum or merging makes the group's channels: layers, each with its batch norm if it has one.

    A layer that only passes on what the group already is (a depthwise convolution) is none.
    """
    out_tensors = {member.tensor for member in group.members if member.role == "out"}
    nodes = []
    for node in layer_nodes(evidence.program):
        source = node.args[0]
        if weight_of(node) in out_tensors and isinstance(source, Node) and not _carries(evidence, group.name, source):
            users = list(node.users)
            has_norm = len(users) == 1 and find_operator(users[0]).is_batch_norm
            nodes.append(users[0] if has_norm else node)
    return nodes


def readers(evidence: Evidence, group: ChannelGroup) -> list[Node]:
    """The nodes whose values layers read the group's channels from, each once."""
    in_tensors = {member.tensor for member in group.members if member.role == "in"}
    sources = [node.args[0] for node in layer_nodes(evidence.program) if weight_of(node) in in_tensors]
    nodes = [node for node in sources if isinstance(node, Node) and _carries(evidence, group.name, node)]
    return list(dict.fromkeys(nodes))


def layer_nodes(program: GraphModule) -> list[Node]:
    """Convolutions and linear layers whose weight is a parameter, in order."""
    return [node for node in program.graph.nodes if find_operator(node).is_layer and weight_of(node)]


def weight_of(node: Node) -> str:
    """The qualified name of a layer's weight, or nothing where it is computed."""
    weight = node.args[1]
    return str(weight.target) if isinstance(weight, Node) and weight.op == "get_attr" else ""


def place_of(evidence: Evidence, group: str, node: Node) -> tuple[int, NDArray[np.int64]]:
    """The dimension of a node's value that holds a group, and the channel of every slice there (or -1)."""
    for dim, labels in enumerate(_dims(evidence, node)):
        if labels is not None:
            atoms = evidence.analysis.atoms[group]
            channel = np.full(evidence.analysis.solution.count + 1, -1, np.int64)
            channel[atoms] = np.arange(len(atoms))
            channels = channel[evidence.analysis.solution.atoms[labels]].max(axis=1)
            if bool((channels >= 0).any()):
                return dim, channels
    raise PlanError(f"group {group!r} does not run through the value {node.name!r}")


def finite_loss(loss: Tensor, program: GraphModule, inputs: Tensor) -> Tensor:
    """The loss of a program on a batch of calibration inputs, if it is finite.

    Raises:
        EdgepruneError: NaN or infinite; says where that arises.
    """
    if not bool(torch.isfinite(loss)):
        raise EdgepruneError(
            f"calibration: the loss is not finite: {find_source(program, inputs)}; check the model, its loss and the "
            "targets of calibration_data()"
        )
    return loss


def _dims(evidence: Evidence, node: Node) -> tuple[Any, ...]:
    value = evidence.analysis.values.get(node.name)
    return value if isinstance(value, tuple) else ()


def _carries(evidence: Evidence, group: str, node: Node) -> bool:
    atoms = evidence.analysis.atoms[group]
    solution = evidence.analysis.solution
    return any(dim is not None and np.isin(solution.atoms[dim], atoms).any() for dim in _dims(evidence, node))
