"""Small nets for the tests of export, traced as the pipeline does it."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor, nn

torch.set_num_threads(1)


class OddNet(nn.Module):
    """Channel counts as pruning leaves them: 3 -> 7 -> 5 and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 7, 3, 2, 1, bias=False), nn.BatchNorm2d(7), nn.ReLU())
        self.body = nn.Conv2d(7, 7, 3, 1, 1)
        self.point = nn.Conv2d(7, 5, 1)
        self.classifier = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(self.point(torch.relu(self.body(x) + x)))
        return self.classifier(torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def traced(net: nn.Module, example: Tensor) -> nn.Module:
    """An eval-mode graph with a dynamic batch, batch-norm statistics settled."""
    twice = example.expand(2, *example.shape[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(net.eval(), (twice,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        return exported.module()


def seeded(net: type[nn.Module]) -> nn.Module:
    """The net with weights, and batch-norm statistics, from a fixed seed."""
    torch.manual_seed(0)
    made = net()
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.05, 0.2)
    return made


def normal(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """`count` rows of standard normal float32 values."""
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


ODD_SHAPE = (3, 16, 16)
