"""Networks of the built-in recipes, written here in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        changed = stride != 1 or cin != cout
        self.shortcut = nn.Conv2d(cin, cout, 1, stride) if changed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`[N, cin, H, W]` to `[N, cout, H/stride, W/stride]`."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet8(nn.Module):
    """The image-classification net of MLPerf Tiny: 32x32 input, three residual blocks of 16, 32, 64 channels.

    Source: Banbury et al., "MLPerf Tiny Benchmark", 2021, task `ic`.
    """

    def __init__(self, in_channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(ResidualBlock(16, 16, 1), ResidualBlock(16, 32, 2), ResidualBlock(32, 64, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, in_channels, 32, 32]` to logits `[N, classes]`."""
        logits: Tensor = self.classifier(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))
        return logits


class MotionCNN(nn.Module):
    """A 1-D convolutional net for windows of inertial samples: separable convolutions after a strided stem."""

    def __init__(self, in_channels: int = 6, classes: int = 7) -> None:
        super().__init__()
        widths = [(48, 64, 2), (64, 96, 2), (96, 96, 1)]
        layers: list[nn.Module] = [nn.Conv1d(in_channels, 48, 7, 2, 3, bias=False), nn.BatchNorm1d(48), nn.ReLU()]
        for cin, cout, stride in widths:
            layers += [
                nn.Conv1d(cin, cin, 5, stride, 2, groups=cin, bias=False),
                nn.BatchNorm1d(cin),
                nn.ReLU(),
                nn.Conv1d(cin, cout, 1, bias=False),
                nn.BatchNorm1d(cout),
                nn.ReLU(),
            ]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(96, classes)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, in_channels, T]` to logits `[N, classes]`."""
        logits: Tensor = self.classifier(self.dropout(torch.flatten(self.pool(self.features(x)), 1)))
        return logits
