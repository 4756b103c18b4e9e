"""A net of four layers on handwritten digits at 16x16: small enough for tests, wide enough to be worth pruning."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from edgeprune.recipes.data import Batches

finetune = {"epochs": 2, "learning_rate": 0.01}
labels = [f"digit {digit}" for digit in range(10)]
preprocessing = "grey from 0 to 16: x / 16, nearest neighbours from 8x8 to 16x16"


def _digits() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    return nn.functional.interpolate(images, 16), torch.tensor(digits.target)


def train_data() -> Batches:
    images, labels = _digits()
    return Batches(images[:1200], labels[:1200], 64, shuffle=True)


def eval_data() -> Batches:
    images, labels = _digits()
    return Batches(images[1200:1500], labels[1200:1500], 100)


def calibration_data() -> Batches:
    images, labels = _digits()
    return Batches(images[:128], labels[:128], 64)


def model() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        for images, labels in train_data():
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
    return net
