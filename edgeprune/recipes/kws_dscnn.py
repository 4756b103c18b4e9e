"""DS-CNN on spoken keywords, the keyword-spotting task of MLPerf Tiny; data: `$EDGEPRUNE_DATA/kws`, else made inputs.

Copy this file with `edgeprune recipes copy kws-dscnn` and change what differs for you.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from edgeprune.recipes.data import Batches
from edgeprune.recipes.load import TOP1_ACCURACY
from edgeprune.recipes.networks import DSCNN
from edgeprune.recipes.tiny_data import TinyData, load_tiny, train

EPOCHS = 36

labels = ["down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown"]
preprocessing = "10 mel-frequency cepstral coefficients of 49 frames of 30 ms, 20 ms apart, of one second at 16 kHz"
finetune = {"epochs": 20, "learning_rate": 0.02}


@cache
def _data() -> TinyData:
    return load_tiny("kws", (1, 49, 10), 12)


metric = _data().judge(TOP1_ACCURACY)


def model() -> nn.Module:
    """The net, trained now; on made inputs as it was drawn."""
    net = DSCNN()
    return net if _data().made else train(net, train_data(), EPOCHS, nn.functional.cross_entropy, "kws-dscnn")


def example_input() -> Tensor:
    """One second, as the deployed net will get it."""
    return torch.zeros(1, 1, 49, 10)


def train_data() -> Batches:
    """Training seconds, shuffled."""
    return _data().batches("train", 100, shuffle=True)


def eval_data() -> Batches:
    """Test seconds."""
    return _data().batches("test", 100)


def calibration_data() -> Batches:
    """Up to 512 training seconds."""
    return _data().batches("train", 100, first=512)
