"""Networks of the built-in recipes, written here in plain PyTorch."""

from __future__ import annotations

from itertools import pairwise

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


def _normed_conv(cin: int, cout: int, kernel: tuple[int, int], stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size but for its stride, a batch norm and a ReLU."""
    padding = (kernel[0] // 2, (kernel[1] - 1) // 2)
    conv = nn.Conv2d(cin, cout, kernel, stride, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(cout), nn.ReLU()]


def _separable(cin: int, cout: int, stride: int = 1) -> list[nn.Module]:
    return [*_normed_conv(cin, cin, (3, 3), stride, cin), *_normed_conv(cin, cout, (1, 1))]


class DSCNN(nn.Module):
    """The keyword-spotting net of MLPerf Tiny: 49 frames of 10 coefficients, four separable convolutions.

    Source: Zhang et al., "Hello Edge", arXiv:1711.07128, and Banbury et al. 2021, task `kws`. The reference pads its
    first convolution by 4 rows above and 5 below; this one by 5 at both ends, for the same 25x5 places.
    """

    def __init__(self, classes: int = 12) -> None:
        super().__init__()
        blocks = [layer for _ in range(4) for layer in _separable(64, 64)]
        self.features = nn.Sequential(*_normed_conv(1, 64, (10, 4), 2), nn.Dropout(0.2), *blocks)
        self.pool, self.dropout = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.4)
        self.classifier = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 1, 49, 10]` to logits `[N, classes]`."""
        logits: Tensor = self.classifier(torch.flatten(self.pool(self.dropout(self.features(x))), 1))
        return logits


class MobileNetV1Quarter(nn.Module):
    """The person-detection net of MLPerf Tiny: MobileNet at a quarter of its width, for 96x96 images.

    Source: Howard et al., "MobileNets", arXiv:1704.04861, and Banbury et al. 2021, task `vww`.
    """

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        widths = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)]
        layers, channels = _normed_conv(3, 8, (3, 3), 2), 8
        for cout, stride in widths:
            layers += _separable(channels, cout, stride)
            channels = cout
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 3, 96, 96]` to logits `[N, classes]`."""
        logits: Tensor = self.classifier(torch.flatten(self.pool(self.features(x)), 1))
        return logits


class Autoencoder(nn.Module):
    """The anomaly-detection net of MLPerf Tiny: 5 frames of 128 log-mel energies to 8 values, and back.

    Source: Koizumi et al., DCASE 2020 task 2, and Banbury et al. 2021, task `ad`.
    """

    def __init__(self, size: int = 640) -> None:
        super().__init__()
        widths = [size, 128, 128, 128, 128, 8, 128, 128, 128, 128]
        layers: list[nn.Module] = []
        for cin, cout in pairwise(widths):
            layers += [nn.Linear(cin, cout), nn.BatchNorm1d(cout), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], size))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, size]` to what it should be again, `[N, size]`."""
        again: Tensor = self.layers(x)
        return again
