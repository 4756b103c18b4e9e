"""The plans of the engine's benchmarks: half of the channels, and with them every second residual branch."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.graph.analysis import Analysis
from edgeprune.graph.costs import count_macs, layer_shapes
from edgeprune.graph.groups import find_groups
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.surgery import apply_plan

TOLERANCE, ONNX_TOLERANCE = 1e-9, 1e-4
TIED = ("model's output", "positions that are no channels", "one channel")
"""How reasons end for which a layer is none of the trunk's."""


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the seconds of processor time that it took: others work on the machine meanwhile."""
    start = time.process_time()
    return function(), time.process_time() - start


def strongest_half(program: GraphModule, analysis: Analysis) -> dict[str, list[int]]:
    """The half of every group whose slices have the largest L2 norm; branches stay."""
    keep = {}
    for group in analysis.channel_groups:
        if group.size < 2:
            continue
        norms = np.zeros(group.size)
        for member in (member for member in group.members if member.role == "out"):
            weight = program.get_parameter(member.tensor).detach().transpose(0, member.dim).flatten(1).square().sum(1)
            channels = analysis.channels(group.name, member.tensor, member.dim)
            np.add.at(norms, channels[channels >= 0], weight.numpy()[channels >= 0])
        keep[group.name] = sorted(np.argsort(-norms)[: group.size // 2].tolist())
    return keep


def channel_figures(analysis: Analysis, keep: dict[str, list[int]]) -> tuple[dict[str, Any], dict[str, str]]:
    """What a cut of channels leaves of the trunk, and the trunk's layers that it leaves whole with the reasons.

    The trunk is every convolution and linear layer with a parameter for its weight (a fixed matrix is none to prune)
    that is not tied to the model's output or to token positions.
    """
    widths = {group: len(channels) for group, channels in keep.items()}
    before, after = layer_shapes(analysis, {}), layer_shapes(analysis, widths)
    reasons = _reasons(analysis)
    why = {key: reasons[key] or reasons[key.rpartition("@")[0]] for key in before}
    trained = {
        member.tensor.removesuffix(".weight")
        for group in analysis.groups
        for member in group.members
        if member.role == "out"
    }
    trunk = [key for key in before if key.rpartition("@")[0] in trained or key in trained]
    trunk = [key for key in trunk if not any(reason.endswith(TIED) for reason in why[key])]
    figures = {
        "channels_kept": round(sum(after[key].cout for key in trunk) / sum(before[key].cout for key in trunk), 4),
        "macs_kept": round(count_macs(analysis, widths) / count_macs(analysis, {}), 4),
        "min_channels": min(after[key].cout for key in trunk),
        "min_channels_before": min(before[key].cout for key in trunk),
        "groups": len(keep),
    }
    whole = [key for key in trunk if before[key].cout == after[key].cout > 1]
    return figures, {key: "; ".join(why[key]) for key in whole}


def _reasons(analysis: Analysis) -> defaultdict[str, list[str]]:
    """Why the output channels of a layer, by its name, have to stay."""
    reasons = defaultdict(list)
    for group in analysis.groups:
        why = "it has one channel" if group.size < 2 else group.frozen
        for member in group.members:
            if why and member.role == "out":
                reasons[member.tensor.removesuffix(".weight")].append(why)
    return reasons


def prune_with_branches(
    program: GraphModule, analysis: Analysis, keep: dict[str, list[int]], example: Tensor
) -> dict[str, Any]:
    """A surgery of its own: the channels of `keep`, and every second residual branch in the order of the graph.

    Beside the proof, the pruned net is analysed anew: its multiply-accumulates have to be those that were foretold.
    """
    branches = [group.name for group in analysis.groups if group.is_branch and not group.frozen]
    cut = branches[::2]
    figures: dict[str, Any] = {"branches": len(branches), "branches_cut": len(cut), "branches_proof_error": None}
    if not cut:
        return figures
    plan: dict[str, list[int]] = keep | {name: [] for name in cut}
    pruned, seconds = timed(lambda: apply_plan(program, analysis, plan))
    figures["branches_proof_error"] = check_surgery(program, analysis, plan, pruned, example)
    with torch.no_grad():
        pruned(example)
    macs = count_macs(analysis, {name: len(channels) for name, channels in plan.items()})
    figures["branches_macs_kept"] = round(macs / count_macs(analysis, {}), 4)
    figures["branches_macs_as_foretold"] = macs == count_macs(find_groups(pruned), {})
    return figures | {"branches_prune_s": round(seconds, 4)}


def branch_failures(figures: dict[str, Any]) -> list[str]:
    """What is wrong with a surgery of branches, if anything."""
    error = figures["branches_proof_error"]
    reasons = [f"branches: relative error {error:.1e}"] if error is not None and not error <= TOLERANCE else []
    return reasons + ["branches: other MACs than foretold"] * (not figures.get("branches_macs_as_foretold", True))


def branch_summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Branches of all networks, and the largest error of the surgeries that cut some of them."""
    errors = [row["branches_proof_error"] for row in rows if row.get("branches_proof_error") is not None]
    return {
        "networks_with_branches": sum(row.get("branches", 0) > 0 for row in rows),
        "branches": sum(row.get("branches", 0) for row in rows),
        "branches_cut": sum(row.get("branches_cut", 0) for row in rows),
        "branches_proof_error": max(errors, default=None),
    }
