"""The networks that planning is tried on, written from their papers in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from edgeprune.recipes.networks import ResidualBlock, ResNet8

INVERTED = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats and first stride of MobileNetV2's stages (Sandler et al. 2018, table 2)."""
LITE0 = (
    *((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3)),
    *((6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)),
)
"""The same and the kernel, of EfficientNet-B0's stages (Tan and Le 2019, table 1)."""
SMALL = (
    *((3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1)),
    *((5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1)),
    *((5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1), (5, 288, 96, True, True, 2)),
    *((5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1)),
)
"""Kernel, hidden and outer channels, squeeze-and-excitation, hard-swish, stride of MobileNetV3-Small's blocks."""
SEPARABLE = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""Channels and stride of MobileNet's separable layers (Howard et al. 2017, table 1)."""


def _conv(cin: int, cout: int, kernel: int | tuple[int, int] = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size (up to the stride), and its batch norm."""
    axes = (kernel, kernel) if isinstance(kernel, int) else kernel
    pad = (axes[0] // 2, axes[1] // 2)
    return [nn.Conv2d(cin, cout, axes, stride, pad, groups=groups, bias=False), nn.BatchNorm2d(cout)]


def _active(*arguments: int) -> list[nn.Module]:
    return [*_conv(*arguments), nn.ReLU()]


def _separable(cin: int, cout: int, stride: int) -> list[nn.Module]:
    return [*_active(cin, cin, 3, stride, cin), *_active(cin, cout, 1)]


def _head(channels: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def resnet20() -> nn.Module:
    """ResNet-20 for 32x32 images (He et al. 2016, section 4.2); shortcuts are 1x1 convolutions where shapes change."""
    widths = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
    blocks = [ResidualBlock(cin, cout, 1 if cin == cout else 2) for cin, cout in pairwise(widths)]
    return nn.Sequential(*_active(3, 16), *blocks, *_head(64, 10))


def mobilenet_v1(share: float, classes: int) -> nn.Module:
    """MobileNet with `share` of its channels (Howard et al. 2017)."""
    cin, layers = int(32 * share), _active(3, int(32 * share), 3, 2)
    for cout, stride in SEPARABLE:
        layers += _separable(cin, int(cout * share), stride)
        cin = int(cout * share)
    return nn.Sequential(*layers, *_head(cin, classes))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; with a shortcut where the shape stays (Sandler et al. 2018)."""

    def __init__(self, cin: int, cout: int, stride: int, expansion: int, kernel: int = 3) -> None:
        super().__init__()
        hidden = cin * expansion
        expand = _active(cin, hidden, 1) if expansion > 1 else []
        filtered = _active(hidden, hidden, kernel, stride, hidden)
        self.layers = nn.Sequential(*expand, *filtered, *_conv(hidden, cout, 1))
        self.has_shortcut = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """`[N, cin, H, W]` to `[N, cout, H/stride, W/stride]`."""
        y: Tensor = self.layers(x)
        return x + y if self.has_shortcut else y


def _inverted(stages: Sequence[tuple[int, ...]]) -> nn.Module:
    cin, layers = 32, _active(3, 32, 3, 2)
    for expansion, cout, repeats, stride, *kernel in stages:
        for turn in range(repeats):
            layers.append(InvertedResidual(cin, cout, 1 if turn else stride, expansion, *kernel))
            cin = cout
    return nn.Sequential(*layers, *_active(cin, 1280, 1), *_head(1280, 1000))


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 (Sandler et al. 2018, table 2)."""
    return _inverted(INVERTED)


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0: B0 without squeeze-and-excitation, stem and head unscaled (Tan and Le 2019; Liu 2020)."""
    return _inverted(LITE0)


class SqueezeExcite(nn.Module):
    """Channels weighed by what their means say (Hu et al. 2018), with a hard sigmoid (Howard et al. 2019)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        layers = [
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
        ]
        self.gate = nn.Sequential(*layers, nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """`[N, channels, H, W]` to the same."""
        y: Tensor = x * self.gate(x)
        return y


class MobileBlock(nn.Module):
    """An inverted residual of MobileNetV3 (Howard et al. 2019)."""

    def __init__(self, cin: int, row: tuple[int, int, int, bool, bool, int]) -> None:
        super().__init__()
        kernel, hidden, cout, squeezes, hard, stride = row
        active = nn.Hardswish if hard else nn.ReLU
        layers = [*_conv(cin, hidden, 1), active()] if hidden != cin else []
        layers += [*_conv(hidden, hidden, kernel, stride, hidden)]
        layers += [SqueezeExcite(hidden, max(8, hidden // 32 * 8))] if squeezes else []
        self.layers = nn.Sequential(*layers, active(), *_conv(hidden, cout, 1))
        self.has_shortcut = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """`[N, cin, H, W]` to `[N, cout, H/stride, W/stride]`."""
        y: Tensor = self.layers(x)
        return x + y if self.has_shortcut else y


def mobilenet_v3_small() -> nn.Module:
    """MobileNetV3-Small (Howard et al. 2019, table 2)."""
    cin, layers = 16, [*_conv(3, 16, 3, 2), nn.Hardswish()]
    for row in SMALL:
        layers.append(MobileBlock(cin, row))
        cin = row[2]
    last = [*_conv(96, 576, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *last, nn.Linear(576, 1024), nn.Hardswish(), nn.Linear(1024, 1000))


class RegNetBlock(nn.Module):
    """A bottleneck of ratio 1 with a grouped convolution (Radosavovic et al. 2020)."""

    def __init__(self, cin: int, cout: int, stride: int, group: int) -> None:
        super().__init__()
        grouped = _active(cout, cout, 3, stride, cout // group)
        self.layers = nn.Sequential(*_active(cin, cout, 1), *grouped, *_conv(cout, cout, 1))
        self.shortcut = nn.Sequential(*(_conv(cin, cout, 1, stride) if stride > 1 or cin != cout else []))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, cin, H, W]` to `[N, cout, H/stride, W/stride]`."""
        return torch.relu(self.shortcut(x) + self.layers(x))


def regnet_x_002() -> nn.Module:
    """RegNetX-200MF: depths, widths and group width from table 6 of Radosavovic et al. 2020."""
    cin, layers = 32, _active(3, 32, 3, 2)
    for depth, cout in zip((1, 1, 4, 7), (24, 56, 152, 368), strict=True):
        for turn in range(depth):
            layers.append(RegNetBlock(cin, cout, 1 if turn else 2, 8))
            cin = cout
    return nn.Sequential(*layers, *_head(368, 1000))


def vgg_chain() -> nn.Module:
    """A plain chain of eight convolutions in VGG's manner for 32x32 images (Simonyan and Zisserman 2015)."""
    cin, layers = 3, []
    for cout in (32, 64, 128, 256):
        layers += [*_active(cin, cout), *_active(cout, cout), nn.MaxPool2d(2)]
        cin = cout
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10))


def signal_cnn() -> nn.Module:
    """A small net for six signals over 128 steps: three convolutions, a mean, a linear layer."""
    cin, layers = 6, list[nn.Module]()
    for cout, stride in ((32, 1), (48, 2), (64, 2)):
        layers += [nn.Conv1d(cin, cout, 5, stride, 2, bias=False), nn.BatchNorm1d(cout), nn.ReLU()]
        cin = cout
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 7))


def ds_cnn() -> nn.Module:
    """The keyword-spotting net of MLPerf Tiny, 49x10 features (Banbury et al. 2021; Zhang et al. 2017)."""
    stem = [nn.Conv2d(1, 64, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*stem, *(layer for _ in range(4) for layer in _separable(64, 64, 1)), *_head(64, 12))


class UNet(nn.Module):
    """A U-Net of three scales and 16, 32, 64 channels, sizes kept by padding (Ronneberger et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([self._two(3, 16), self._two(16, 32)])
        self.bottom = self._two(32, 64)
        self.grow = nn.ModuleList([nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)])
        self.up = nn.ModuleList([self._two(64, 32), self._two(32, 16)])
        self.last = nn.Conv2d(16, 2, 1)

    @staticmethod
    def _two(cin: int, cout: int) -> nn.Sequential:
        return nn.Sequential(*_active(cin, cout), *_active(cout, cout))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 3, H, W]` to `[N, 2, H, W]`; H and W are multiples of four."""
        skips = []
        for stage in self.down:
            skips.append(stage(x))
            x = nn.functional.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for grow, stage in zip(self.grow, self.up, strict=True):
            x = stage(torch.cat([skips.pop(), grow(x)], 1))
        logits: Tensor = self.last(x)
        return logits


class TransformerBlock(nn.Module):
    """Attention and two linear layers, each after a norm and beside a shortcut (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, tokens, width]` to the same."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class SmallViT(nn.Module):
    """A vision transformer of four blocks, width 128, four heads, for 64x64 images in 8x8 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 128, 8, 8)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 64, 128))
        self.blocks = nn.Sequential(*(TransformerBlock(128, 4) for _ in range(4)))
        self.norm, self.last = nn.LayerNorm(128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 3, 64, 64]` to `[N, 10]`."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.last(self.norm(self.blocks(tokens)).mean(1))
        return logits


NETWORKS = {
    "ResNet-8": (ResNet8, (1, 3, 32, 32)),
    "ResNet-20": (resnet20, (1, 3, 32, 32)),
    "MobileNetV1-0.25": (lambda: mobilenet_v1(0.25, 2), (1, 3, 96, 96)),
    "MobileNetV2": (mobilenet_v2, (1, 3, 224, 224)),
    "DS-CNN": (ds_cnn, (1, 1, 49, 10)),
    "U-Net": (UNet, (1, 3, 64, 64)),
    "SmallViT": (SmallViT, (1, 3, 64, 64)),
    "EfficientNet-Lite0": (efficientnet_lite0, (1, 3, 224, 224)),
    "SignalCNN": (signal_cnn, (1, 6, 128)),
    "VGG-chain": (vgg_chain, (1, 3, 32, 32)),
    "MobileNetV3-Small": (mobilenet_v3_small, (1, 3, 160, 160)),
    "RegNetX-002": (regnet_x_002, (1, 3, 224, 224)),
}
"""A constructor and the input's shape, by name."""
