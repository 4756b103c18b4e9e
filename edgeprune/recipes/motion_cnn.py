"""A 1-D convolutional net that tells shoulder exercises apart by a smartwatch's motion, from a trained checkpoint.

It is judged on two people it never saw. Copy this file with `edgeprune recipes copy motion-cnn` and change what
differs for you.
"""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeprune.recipes.data import CHECKPOINTS, Batches, load_motion
from edgeprune.recipes.networks import MotionCNN

CHECKPOINT = CHECKPOINTS / "motion_cnn.safetensors"
MEAN = torch.tensor([0.0, 0.4, -0.15, 0.0, 0.0, 0.0]).view(6, 1)
STD = torch.tensor([0.9, 0.5, 0.55, 1.0, 2.5, 1.05]).view(6, 1)

finetune = {"epochs": 20, "learning_rate": 0.05}


def normalise(windows: Tensor) -> Tensor:
    """Signals `[N, 6, 128]` to about zero mean and unit deviation by channel."""
    return (windows - MEAN) / STD


def jitter(windows: Tensor) -> Tensor:
    """Scale each channel of each window by about 15 % and add noise: other arms, other watches."""
    return windows * (1 + 0.15 * torch.randn(len(windows), 6, 1)) + 0.05 * torch.randn_like(windows)


def model() -> nn.Module:
    """The trained net."""
    net = MotionCNN()
    net.load_state_dict(load_file(CHECKPOINT))
    return net


def example_input() -> Tensor:
    """One window of 2.56 s, as the deployed net will get it."""
    return torch.zeros(1, 6, 128)


def train_data() -> Batches:
    """Windows of eight people, shuffled and jittered."""
    data = load_motion()
    return Batches(normalise(data["train_x"]), data["train_y"], 128, shuffle=True, augment=jitter)


def eval_data() -> Batches:
    """Windows of two other people."""
    data = load_motion()
    return Batches(normalise(data["test_x"]), data["test_y"], 500)


def calibration_data() -> Batches:
    """512 training windows, as they are, evenly over people and exercises."""
    data = load_motion()
    rows = torch.linspace(0, len(data["train_x"]) - 1, 512).long()
    return Batches(normalise(data["train_x"][rows]), data["train_y"][rows], 128)
