"""Data of the MLPerf Tiny recipes: a folder of the user's, or made inputs that say nothing of accuracy.

No registry carries speech commands, COCO or ToyADMOS, so the user brings them: `$EDGEPRUNE_DATA/TASK/train.npz` and
`test.npz`, each with arrays `x` and `y` (docs/recipes.md says what they hold). Without that folder a recipe runs on
noise: sizes, memory and latency are those of the net all the same, and no gate on its accuracy passes.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.core.metric import Metric
from edgeprune.errors import RecipeError
from edgeprune.recipes.data import Batches

FOLDER = "EDGEPRUNE_DATA"
"""The environment variable that names the user's folder of data sets."""
MADE_TRAIN, MADE_TEST, MADE_CLIP = 256, 128, 4
"""How many inputs are made, and how many rows a made clip has; little work, as nothing can be learnt from them."""
LEARNING_RATE = 1e-3
"""Of Adam, as the reference trains its nets (Banbury et al. 2021)."""
LOG = logging.getLogger("edgeprune")
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class TinyData:
    """One task's data: `train_x [N, *shape]`, `train_y`, `test_x`, `test_y`; `made`: they are noise."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    made: bool

    def judge(self, metric: Metric) -> Metric:
        """The metric, in doubt where the inputs are made."""
        doubt = "the inputs are made, as $EDGEPRUNE_DATA names no data: the quality means nothing"
        return replace(metric, doubt=doubt) if self.made else metric

    def batches(self, part: str, size: int = 64, shuffle: bool = False, first: int | None = None) -> Batches:
        """Batches of the part "train" or "test", of its first inputs only where a number is given."""
        inputs, targets = getattr(self, f"{part}_x"), getattr(self, f"{part}_y")
        return Batches(inputs[:first], targets[:first], size, shuffle=shuffle)


def load_tiny(task: str, shape: tuple[int, ...], classes: int, columns: int = 0) -> TinyData:
    """The data of a task from `$EDGEPRUNE_DATA/TASK`, or made inputs where that is not set.

    Targets are class numbers below `classes`, or, with `columns`, rows of so many numbers.

    Raises:
        RecipeError: the folder is named and a file is missing, cannot be read, or holds other arrays.
    """
    named = os.environ.get(FOLDER, "")
    if not named:
        LOG.warning("%s: made inputs, as $%s is not set: its quality means nothing", task, FOLDER)
        return _make(shape, classes, columns)
    folder = Path(named).expanduser() / task
    parts = [_read(folder / f"{part}.npz", shape, classes, columns) for part in ("train", "test")]
    return TinyData(*parts[0], *parts[1], made=False)


def _make(shape: tuple[int, ...], classes: int, columns: int) -> TinyData:
    generator = torch.Generator().manual_seed(0)
    parts = [_make_part(count, shape, classes, columns, generator) for count in (MADE_TRAIN, MADE_TEST)]
    return TinyData(*parts[0], *parts[1], made=True)


def _make_part(
    count: int, shape: tuple[int, ...], classes: int, columns: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    clips = torch.arange(count) // MADE_CLIP
    rows = torch.stack([clips % classes, clips], 1).float()
    return torch.randn(count, *shape, generator=generator), rows if columns else torch.arange(count) % classes


def _read(path: Path, shape: tuple[int, ...], classes: int, columns: int) -> tuple[Tensor, Tensor]:
    wanted = f"arrays x [N, {', '.join(map(str, shape))}] of floats and y [N{f', {columns}' if columns else ''}]"
    remedy = f"docs/recipes.md says how to make it; without ${FOLDER} the recipe runs on made inputs"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs, targets = np.asarray(arrays["x"], np.float32), np.asarray(arrays["y"])
    except FileNotFoundError as exc:
        raise RecipeError(f"{path}: no such file; expected {wanted}; {remedy}") from exc
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as exc:
        raise RecipeError(f"{path}: cannot be read: {exc}; expected {wanted}; {remedy}") from exc
    rows = (len(inputs), columns) if columns else (len(inputs),)
    if inputs.shape[1:] != shape or targets.shape != rows or not len(inputs) or not np.isfinite(inputs).all():
        found = f"x {list(inputs.shape)}, y {list(targets.shape)}"
        raise RecipeError(f"{path}: found {found}, or values that are not finite; expected {wanted}; {remedy}")
    if columns:
        return torch.from_numpy(inputs), torch.from_numpy(np.asarray(targets, np.float32))
    if not np.issubdtype(targets.dtype, np.integer) or targets.min() < 0 or targets.max() >= classes:
        raise RecipeError(f"{path}: y: expected class numbers from 0 to {classes - 1}; {remedy}")
    return torch.from_numpy(inputs), torch.from_numpy(np.asarray(targets, np.int64))


def train(net: nn.Module, batches: Batches, epochs: int, loss: Loss, name: str) -> nn.Module:
    """Train a net by Adam over one cosine."""
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    for epoch in range(1, epochs + 1):
        losses = []
        for inputs, targets in batches:
            value = loss(net(inputs), targets)
            optimizer.zero_grad()
            torch.autograd.backward(value)
            optimizer.step()
            schedule.step()
            losses.append(value.item())
        LOG.info("%s: training, epoch %d of %d, loss %.3f", name, epoch, epochs, sum(losses) / len(losses))
    return net
