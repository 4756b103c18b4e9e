"""Autoencoder of machine sounds, the anomaly detection of MLPerf Tiny; data: `$EDGEPRUNE_DATA/ad`, else made inputs.

It is judged by how well its error tells clips of broken machines from those of whole ones. Copy this file with
`edgeprune recipes copy ad-autoencoder` and change what differs for you.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.core.metric import Metric
from edgeprune.recipes.data import Batches
from edgeprune.recipes.networks import Autoencoder
from edgeprune.recipes.tiny_data import TinyData, load_tiny, train

EPOCHS = 100
SIZE = 640

preprocessing = "log-mel energies in 128 bands of 5 frames of 64 ms, 32 ms apart, at 16 kHz, one frame after the other"
finetune = {"epochs": 20, "learning_rate": 0.01, "distillation": 0.0}


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean square of what comes back wrong; targets are the inputs, whether the clip is broken, and its number."""
    return nn.functional.mse_loss(outputs, targets[:, :SIZE])


def find_auc(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Area under the ROC curve of the clips, scored by the mean error of their rows: 0.5 by chance, 1 at best."""
    errors = ((outputs - targets[:, :SIZE]) ** 2).mean(1)
    clips, rows = np.unique(targets[:, SIZE + 1], return_inverse=True)
    scores = np.bincount(rows, errors, len(clips)) / np.bincount(rows, minlength=len(clips))
    broken = np.bincount(rows, targets[:, SIZE], len(clips)) > 0
    lower = scores[~broken][None] - scores[broken][:, None]
    return float(np.mean((lower < 0) + 0.5 * (lower == 0))) if lower.size else float("nan")


@cache
def _data() -> TinyData:
    return load_tiny("ad", (SIZE,), 2, columns=2)


metric = _data().judge(Metric("AUC", find_auc, better="higher"))


def _batches(part: str, size: int, shuffle: bool = False, first: int | None = None) -> Batches:
    plain = _data().batches(part, size, shuffle, first)
    return Batches(plain.inputs, torch.cat([plain.inputs, plain.targets], 1), size, shuffle)


def model() -> nn.Module:
    """The net, trained now; on made inputs as it was drawn."""
    net = Autoencoder()
    return net if _data().made else train(net, train_data(), EPOCHS, loss, "ad-autoencoder")


def example_input() -> Tensor:
    """Five frames, as the deployed net will get them."""
    return torch.zeros(1, SIZE)


def train_data() -> Batches:
    """Rows of whole machines, shuffled."""
    return _batches("train", 512, shuffle=True)


def eval_data() -> Batches:
    """Rows of test clips, whole and broken."""
    return _batches("test", 512)


def calibration_data() -> Batches:
    """Up to 2,048 training rows."""
    return _batches("train", 512, first=2048)
