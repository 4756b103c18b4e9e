"""The unpruned net under the runtime's profiler, beside what its latency table predicts of each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeprune.core.breakdown import OTHERS, LayerTime, NodeTime, break_down
from edgeprune.core.layers import Layer
from edgeprune.device.measure import ModelFile
from edgeprune.device.nodes import profile_nodes
from edgeprune.errors import TargetError
from edgeprune.exporting.onnx_nodes import base_name, name_layer_nodes
from edgeprune.stages.job import Job
from edgeprune.stages.latency import measure_beside_original, read_correction, read_table, unpruned_file
from edgeprune.stages.record import read_originals


def break_down_net(job: Job) -> tuple[list[LayerTime], float]:
    """Layers of the unpruned net in the precision that is planned for, and what that net takes, in ms.

    Raises:
        TargetError: the target's runtime does not tell its nodes apart.
        RunError: the net was not profiled yet.
    """
    if job.planned.runtime != "onnxruntime":
        raise TargetError(
            f"target {job.target.name}: {job.planned.runtime} runs a net as one node, onnxruntime does not"
        )
    path = job.run.file(unpruned_file(job))
    times = measure_beside_original(job, read_originals(job), {"net": path})
    model = ModelFile.of(path, job.planned.runtime)
    nodes = profile_nodes(job.device, model, job.target.threads, job.detail)
    widths = {group: offered[-1] for group, offered in job.widths.items()}
    sorted_nodes = sort_nodes(path, nodes, job.analysis.layers)
    return break_down(job.layers, widths, read_table(job), read_correction(job), sorted_nodes), times.latency_ms["net"]


def sort_nodes(path: Path, nodes: Sequence[NodeTime], layers: Sequence[Layer]) -> Mapping[str, list[NodeTime]]:
    """Nodes by the layer that they belong to, by their weights' names or, where these are lost, in order."""
    named = name_layer_nodes(path)
    known = {weight.removesuffix(".weight") for weight, _ in named if weight}
    nameless = iter(layer.name for layer in layers if layer.name not in known)
    owners: dict[str, str] = {}
    for weight, names in named:
        owner = weight.removesuffix(".weight") or next(nameless, OTHERS)
        owners |= dict.fromkeys(names, owner)
    found: dict[str, list[NodeTime]] = {}
    for node in nodes:
        found.setdefault(owners.get(base_name(node.name), OTHERS), []).append(node)
    return found
