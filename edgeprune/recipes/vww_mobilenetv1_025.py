"""MobileNetV1 0.25 on person or no person, the visual-wake-words task of MLPerf Tiny; data: `$EDGEPRUNE_DATA/vww`.

Without such data on made inputs. Copy this file with `edgeprune recipes copy vww-mobilenetv1-025` and change what
differs for you.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from edgeprune.recipes.data import Batches
from edgeprune.recipes.load import TOP1_ACCURACY
from edgeprune.recipes.networks import MobileNetV1Quarter
from edgeprune.recipes.tiny_data import TinyData, load_tiny, train

EPOCHS = 50

labels = ["no person", "person"]
preprocessing = "RGB from 0 to 255, 96x96: x / 255"
finetune = {"epochs": 20, "learning_rate": 0.02}


@cache
def _data() -> TinyData:
    return load_tiny("vww", (3, 96, 96), 2)


metric = _data().judge(TOP1_ACCURACY)


def model() -> nn.Module:
    """The net, trained now; on made inputs as it was drawn."""
    net = MobileNetV1Quarter()
    if _data().made:
        return net
    return train(net, train_data(), EPOCHS, nn.functional.cross_entropy, "vww-mobilenetv1-025")


def example_input() -> Tensor:
    """One image, as the deployed net will get it."""
    return torch.zeros(1, 3, 96, 96)


def train_data() -> Batches:
    """Training images, shuffled."""
    return _data().batches("train", 32, shuffle=True)


def eval_data() -> Batches:
    """Test images."""
    return _data().batches("test", 100)


def calibration_data() -> Batches:
    """Up to 512 training images."""
    return _data().batches("train", 32, first=512)
