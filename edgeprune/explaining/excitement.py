"""For images: the inputs that excited the channels most that were cut, as a list and as pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.errors import MissingExtra
from edgeprune.pruning.evidence import Evidence, place_of, producers, readers, record
from edgeprune.run import write_atomic
from edgeprune.stages.job import Job
from edgeprune.stages.open_net import read_net

MOST_INPUTS, BATCH = 256, 16
CHANNELS, INPUTS = 8, 6
"""Of a group, the channels that are shown; of a channel, the inputs."""
FOLDER = "explained"


def find_exciting(job: Job, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For each group that lost channels, those with the highest scores, and the calibration inputs with their highest
    mean activation where a layer reads them, in the unpruned net.
    """
    images = _read_images(job)
    net = read_net(job)
    evidence = Evidence(net.program, net.analysis, (), job.recipe.loss)
    cut = {row["group"]: row for row in groups if row["cut"]}
    activations = _measure(evidence, images, list(cut))
    return {name: _describe(job, cut[name], own, images) for name, own in activations.items()}


def _read_images(job: Job) -> Tensor:
    batches, count = [], 0
    for inputs, _ in job.recipe.calibration_data():
        batches.append(inputs)
        count += len(inputs)
        if count >= MOST_INPUTS:
            break
    return torch.cat(batches)[:MOST_INPUTS]


def _choose_channels(row: Mapping[str, Any]) -> list[int]:
    """The channels that went, best first: these were nearest to be kept."""
    return sorted(row["cut"], key=lambda channel: row["ranks"][channel])[:CHANNELS]


def _measure(evidence: Evidence, images: Tensor, groups: Sequence[str]) -> dict[str, np.ndarray]:
    """Mean activation of each channel by input, `[inputs, channels]`, of each group that a layer reads or makes."""
    nodes = {name: _find_node(evidence, name) for name in groups}
    places = {name: node for name, node in nodes.items() if node is not None}
    rows: dict[str, list[np.ndarray]] = {name: [] for name in places}
    for batch in torch.split(images, BATCH):
        values = record(evidence.program, batch, places.values())
        for name, node in places.items():
            rows[name].append(_by_channel(evidence, name, node, values[node]))
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def _find_node(evidence: Evidence, name: str) -> Node | None:
    """Where the group's channels are read first; where none are, where they are made."""
    group = evidence.analysis.group(name)
    return next(iter((*readers(evidence, group), *producers(evidence, group))), None)


def _by_channel(evidence: Evidence, group: str, node: Node, value: Tensor) -> np.ndarray:
    dim, channels = place_of(evidence, group, node)
    slices = value.movedim(dim, 1).flatten(2).mean(2) if value.ndim > 2 else value.movedim(dim, 1)
    own, size = torch.from_numpy(channels >= 0), len(evidence.analysis.atoms[group])
    total = torch.zeros(len(slices), size).index_add(1, torch.from_numpy(channels)[own], slices[:, own])
    return total.numpy()


def _describe(job: Job, row: Mapping[str, Any], activations: np.ndarray, images: Tensor) -> dict[str, Any]:
    rows = []
    for channel in _choose_channels(row):
        order = np.argsort(-activations[:, channel], kind="stable")[:INPUTS]
        rows.append(
            {
                "channel": channel,
                "score": row["scores"][channel],
                "inputs": [int(place) for place in order],
                "activations": [float(activations[place, channel]) for place in order],
            }
        )
    return {"channels": rows, "picture": _draw(job, row["group"], rows, images)}


def _draw(job: Job, group: str, rows: Sequence[Mapping[str, Any]], images: Tensor) -> str | None:
    """Write the pictures; None where matplotlib is not here."""
    try:
        from edgeprune.report.contact_sheet import draw_contact_sheet
        from edgeprune.report.pictures import render_png
    except MissingExtra as exc:
        job.detail(f"no pictures: {exc}")
        return None
    name = f"{FOLDER}/{re.sub(r'[^A-Za-z0-9._-]', '_', group)}.png"
    lines = [
        (f"{group}:{row['channel']}, score {row['score']:.3g}", images[row["inputs"]].numpy(), row["activations"])
        for row in rows
    ]
    title = f"{group}: inputs that excited channels most that were cut"
    write_atomic(job.run.path(name), render_png(draw_contact_sheet(lines, title)))
    return name
