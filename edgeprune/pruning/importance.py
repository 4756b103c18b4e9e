"""How much each channel of a group matters: one function for each published criterion, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from edgeprune.core.planning.plan import ChannelGroup
from edgeprune.core.text import suggest
from edgeprune.errors import PlanError, UsageError
from edgeprune.graph.operators.table import find_operator
from edgeprune.pruning.evidence import Activation, Evidence, Scores

Criterion = Callable[[Evidence, ChannelGroup], Scores]


def score_channels(method: str, evidence: Evidence) -> dict[str, Scores]:
    """The score of every channel of every group that can be pruned; higher matters more.

    A branch has one score, which says nothing: it is not ranked within itself.

    Raises:
        UsageError: an unknown method.
        PlanError: the method has nothing to go by in a group.
    """
    if method not in IMPORTANCE:
        raise UsageError(f"importance {method!r} is not known{suggest(method, IMPORTANCE)}")
    analysis, criterion = evidence.analysis, IMPORTANCE[method]
    branches = {group.name: np.ones(1) for group in analysis.groups if group.is_branch and not group.frozen}
    return {group.name: criterion(evidence, group) for group in analysis.channel_groups} | branches


def keep_best(scores: Scores, width: int) -> tuple[int, ...]:
    """The `width` channels of highest score, ascending; of equal ones the first."""
    best = np.argsort(-scores, kind="stable")[:width]
    return tuple(int(index) for index in np.sort(best))


def keep_best_by_group(scores: Mapping[str, Scores], widths: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The channels of highest score of each group, at the given widths."""
    return {group: keep_best(scores[group], width) for group, width in widths.items()}


def score_l1(evidence: Evidence, group: ChannelGroup) -> Scores:
    """Sum of the absolute weights that make a channel (Li et al., "Pruning Filters for Efficient ConvNets", 2017)."""
    return _sum_of_makers(evidence, group, lambda _, weight: weight.abs())


def score_l2(evidence: Evidence, group: ChannelGroup) -> Scores:
    """Euclidean norm of the weights that make a channel (He et al., "Soft Filter Pruning", 2018)."""
    return np.sqrt(_sum_of_makers(evidence, group, lambda _, weight: weight.square()))


def score_batchnorm(evidence: Evidence, group: ChannelGroup) -> Scores:
    """Absolute scale of the batch norms on a channel (Liu et al., "Network Slimming", 2017).

    Raises:
        PlanError: no batch norm on this group.
    """
    scales = {
        str(node.args[1].target)
        for node in evidence.program.graph.nodes
        if find_operator(node).is_batch_norm and getattr(node.args[1], "op", "") == "get_attr"
    }
    names = [member.tensor for member in group.members if member.tensor in scales]
    if not names:
        raise PlanError(f"group {group.name!r} has no batch norm with a scale; choose another importance, such as l2")
    return sum((_by_channel(evidence, group, name, 0, evidence.tensors[name].abs()) for name in names), _zeros(group))


def score_taylor(evidence: Evidence, group: ChannelGroup) -> Scores:
    """Squared first-order change of a small batch's loss when a weight goes, summed over a channel's weights.

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019, eq. 8 (weight form).
    """
    return _sum_of_makers(evidence, group, lambda name, weight: weight.square() * evidence.squared_gradients[name])


def score_gate_taylor(evidence: Evidence, group: ChannelGroup) -> Scores:
    """Mean absolute first-order change of an input's loss when a factor on the channel goes from 1 to 0.

    Source: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", 2017, eq. 8.
    """
    return np.asarray(_gates(evidence, group).abs().mean(0).double().numpy())


def score_fisher(evidence: Evidence, group: ChannelGroup) -> Scores:
    """Half the Fisher information of a factor on the channel: the second-order change of the loss without it.

    Source: Theis et al., "Faster Gaze Prediction with Dense Networks and Fisher Pruning", 2018, eq. 10; the diagonal
    of Optimal Brain Damage (LeCun et al., 1990) for gates.
    """
    return np.asarray(_gates(evidence, group).square().mean(0).double().numpy() / 2)


def score_fpgm(evidence: Evidence, group: ChannelGroup) -> Scores:
    """Sum of distances to the other channels' weights: what lies near the median can be replaced by the others.

    Source: He et al., "Filter Pruning via Geometric Median", 2019, eq. 4.
    """
    total = np.zeros((group.size, group.size))
    for tensor, dim in _makers(group):
        channels = torch.from_numpy(evidence.analysis.channels(group.name, tensor, dim))
        order = torch.argsort(channels, stable=True)
        order = order[channels[order] >= 0]
        rows = evidence.tensors[tensor].detach().double().movedim(dim, 0)[order].reshape(group.size, -1)
        total += torch.cdist(rows, rows).square().numpy()
    return np.asarray(np.sqrt(total).sum(axis=1))


def score_lamp(evidence: Evidence, group: ChannelGroup) -> Scores:
    """Squared norm of a channel's weights over that of all channels at least as large.

    Source: Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning", 2021, eq. 4, for channels.
    """
    squares = score_l2(evidence, group) ** 2
    order = np.argsort(squares, kind="stable")
    rest = np.cumsum(squares[order][::-1])[::-1]
    scores = np.zeros(group.size)
    scores[order] = np.divide(squares[order], rest, out=np.zeros(group.size), where=rest > 0)
    return scores


def score_activation_mean(evidence: Evidence, group: ChannelGroup) -> Scores:
    """Mean absolute activation where layers read the channel (Polyak and Wolf, "Channel-level Acceleration", 2015)."""
    return _activation(evidence, group).mean


def score_apoz(evidence: Evidence, group: ChannelGroup) -> Scores:
    """Share of activations that are not zero (Hu et al., "Network Trimming", 2016: average percentage of zeros)."""
    return 1 - _activation(evidence, group).zeros


def score_hrank(evidence: Evidence, group: ChannelGroup) -> Scores:
    """Mean rank of a channel's feature maps (Lin et al., "HRank", 2020).

    Raises:
        PlanError: no convolution or linear layer reads this group.
    """
    if group.name not in evidence.ranks:
        raise PlanError(_nothing(group, "reads"))
    return evidence.ranks[group.name]


def score_random(evidence: Evidence, group: ChannelGroup) -> Scores:
    """Uniform random numbers, the same for the same group name: the control."""
    return np.random.default_rng(list(group.name.encode())).random(group.size)


IMPORTANCE: dict[str, Criterion] = {
    "l1": score_l1,
    "l2": score_l2,
    "batchnorm": score_batchnorm,
    "taylor": score_taylor,
    "gate_taylor": score_gate_taylor,
    "fisher": score_fisher,
    "fpgm": score_fpgm,
    "lamp": score_lamp,
    "activation_mean": score_activation_mean,
    "apoz": score_apoz,
    "hrank": score_hrank,
    "random": score_random,
}
"""Importance criteria by name."""


def _makers(group: ChannelGroup) -> list[tuple[str, int]]:
    return [(member.tensor, member.dim) for member in group.members if member.role == "out"]


def _sum_of_makers(evidence: Evidence, group: ChannelGroup, figure: Callable[[str, Tensor], Tensor]) -> Scores:
    total = _zeros(group)
    for tensor, dim in _makers(group):
        total += _by_channel(evidence, group, tensor, dim, figure(tensor, evidence.tensors[tensor].detach()))
    return total


def _by_channel(evidence: Evidence, group: ChannelGroup, tensor: str, dim: int, value: Tensor) -> Scores:
    """Sum of a tensor's entries for each channel of the group along one dimension."""
    channels = evidence.analysis.channels(group.name, tensor, dim)
    sums = value.detach().double().movedim(dim, 0).reshape(len(channels), -1).sum(1).numpy()
    own = channels >= 0
    return np.bincount(channels[own], sums[own], group.size).astype(np.float64)


def _zeros(group: ChannelGroup) -> Scores:
    return np.zeros(group.size)


def _gates(evidence: Evidence, group: ChannelGroup) -> Tensor:
    gates = evidence.gates[group.name]
    if gates.shape[1] == 0:
        raise PlanError(_nothing(group, "makes"))
    return gates


def _activation(evidence: Evidence, group: ChannelGroup) -> Activation:
    if group.name not in evidence.activations:
        raise PlanError(_nothing(group, "reads"))
    return evidence.activations[group.name]


def _nothing(group: ChannelGroup, verb: str) -> str:
    return f"group {group.name!r}: no convolution or linear layer {verb} it; choose another importance, such as l2"
