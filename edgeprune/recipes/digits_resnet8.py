"""ResNet-8 on scikit-learn's handwritten digits at 32x32: needs no download and trains on the spot in seconds.

Copy this file with `edgeprune recipes copy digits-resnet8` and change what differs for you.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from edgeprune.recipes.data import Batches, load_digits
from edgeprune.recipes.networks import ResNet8

EPOCHS = 12
PEAK_LEARNING_RATE = 0.1
LOG = logging.getLogger("edgeprune")

labels = [str(digit) for digit in range(10)]
finetune = {"epochs": 12, "learning_rate": 0.05}


def model() -> nn.Module:
    """The net, trained now."""
    net = ResNet8(in_channels=1)
    data = train_data()
    optimizer = torch.optim.SGD(net.parameters(), lr=PEAK_LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, EPOCHS * len(data))
    for epoch in range(1, EPOCHS + 1):
        losses = []
        for images, labels in data:
            loss = nn.functional.cross_entropy(net(images.contiguous(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        mean = sum(losses) / len(losses)
        LOG.info("digits-resnet8: training the baseline, epoch %d of %d, loss %.3f", epoch, EPOCHS, mean)
    return net


def example_input() -> Tensor:
    """One input, as the deployed net will get it."""
    return torch.zeros(1, 1, 32, 32)


def train_data() -> Batches:
    """1,347 images, shuffled and shifted by up to two pixels."""
    data = load_digits()
    return Batches(data["train_x"], data["train_y"], 75, shuffle=True, augment=shift)


def eval_data() -> Batches:
    """450 images that the training never sees."""
    data = load_digits()
    return Batches(data["test_x"], data["test_y"], 150)


def calibration_data() -> Batches:
    """512 training images, as they are."""
    data = load_digits()
    return Batches(data["train_x"][:512], data["train_y"][:512], 128)


def shift(images: Tensor) -> Tensor:
    """Move a batch `[N, 1, 32, 32]` by up to two pixels; the border is filled with the background."""
    down, right = torch.randint(0, 5, (2,)).tolist()
    padded = nn.functional.pad(images, (2, 2, 2, 2), value=-1.0)
    return padded[:, :, down : down + 32, right : right + 32]
