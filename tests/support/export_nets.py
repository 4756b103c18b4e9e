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


class Separable(nn.Module):
    """Dense, depthwise, pointwise; a ReLU6, which nothing may be raised through; and a tensor that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.deep = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.point, self.capped = nn.Conv2d(6, 5, 1), nn.Conv2d(5, 7, 1)
        self.left, self.right = nn.Conv2d(7, 9, 3, 2, 1), nn.Conv2d(7, 9, 1, 2)
        with torch.no_grad():
            self.dense.weight.mul_(torch.logspace(-2, 1, 6).view(6, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.point(torch.relu(self.deep(torch.relu(self.dense(x))))))
        x = torch.relu(self.capped(x))
        return (torch.relu(self.left(x)) + self.right(x)).mean((2, 3))


class TinyViT(nn.Module):
    """A transformer of one block: 16 patches of width 30, three heads of 10, a hidden layer of 61."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 30, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 16, 30) * 0.1)
        self.norm1, self.norm2 = nn.LayerNorm(30), nn.LayerNorm(30)
        self.qkv, self.project = nn.Linear(30, 90), nn.Linear(30, 30)
        self.wide, self.narrow = nn.Linear(30, 61), nn.Linear(61, 30)
        self.classifier = nn.Linear(30, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        q, k, v = self.qkv(self.norm1(x)).reshape(-1, 16, 3, 3, 10).permute(2, 0, 3, 1, 4)
        heads = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.project(heads.transpose(1, 2).reshape(-1, 16, 30))
        x = x + self.narrow(nn.functional.gelu(self.wide(self.norm2(x))))
        return self.classifier(x.mean(1))


class GruNet(nn.Module):
    """A recurrent net of 13 units over 8 steps of 6 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(6, 13, batch_first=True)
        self.classifier = nn.Linear(13, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.recurrent(x)[0][:, -1])


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
    model = net()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.05, 0.2)
    return model


def normal(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """`count` rows of standard normal float32 values."""
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


ODD_SHAPE = (3, 16, 16)
