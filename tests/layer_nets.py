"""Small nets, one for each kind of operator that takes time, with an example of their input."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from graph_nets import Net
from torch import Tensor, nn

IMAGE, SERIES, VOLUME = (3, 17, 16), (6, 40), (2, 9, 8, 7)


def chain(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


def causal(net: Net, x: Tensor) -> Tensor:
    """A temporal convolutional network: each layer sees the past only (Bai et al. 2018)."""
    x = torch.relu(net.a(F.pad(x, (2, 0))))
    x = torch.relu(x + net.b(F.pad(x, (8, 0))))
    return net.head(x[:, :, -1])


def padded_twice(net: Net, x: Tensor) -> Tensor:
    """Padding that two layers read is that of both; padding with another value than zero stays by itself."""
    x = net.a(x)
    wide = F.pad(x, (1, 1, 1, 1))
    return net.b(wide) + net.c(wide) + net.d(F.pad(x, (1, 1, 1, 1), value=1.0))


WINDOWS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dilated": (chain(nn.Conv2d(3, 8, 3, dilation=2), nn.Conv2d(8, 6, 3, stride=2, dilation=(1, 2), padding=1)), IMAGE),
    "dilated_same": (chain(nn.Conv2d(3, 8, 3, padding="same", dilation=2), nn.Conv2d(8, 6, (1, 3), dilation=2)), IMAGE),
    "even_same": (chain(nn.Conv2d(3, 8, (2, 4), padding="same"), nn.Conv2d(8, 6, 2, stride=2)), IMAGE),
    "causal": (
        lambda: Net(causal, a=nn.Conv1d(6, 8, 3), b=nn.Conv1d(8, 8, 3, dilation=4), head=nn.Linear(8, 3)),
        SERIES,
    ),
    "padded_unevenly": (chain(nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 6, 1)), IMAGE),
    "padded_twice": (
        lambda: Net(
            padded_twice,
            a=nn.Conv2d(3, 8, 1),
            b=nn.Conv2d(8, 6, 3),
            c=nn.Conv2d(8, 6, 3, padding=1, dilation=2),
            d=nn.Conv2d(8, 6, 3),
        ),
        IMAGE,
    ),
    "stride_beyond_kernel": (chain(nn.Conv2d(3, 8, 1, stride=4), nn.Conv2d(8, 6, 2, stride=3)), IMAGE),
    "transposed": (
        chain(
            nn.Conv2d(3, 8, 3),
            nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1),
            nn.ConvTranspose2d(6, 6, 2, stride=2),
            nn.ConvTranspose2d(6, 4, 3, padding=1, dilation=2),
        ),
        IMAGE,
    ),
    "transposed_series": (
        chain(nn.Conv1d(6, 8, 4, stride=2), nn.ConvTranspose1d(8, 4, 5, stride=3, padding=1), nn.ReLU()),
        SERIES,
    ),
    "transposed_in_groups": (
        chain(
            nn.Conv2d(3, 8, 3),
            nn.ConvTranspose2d(8, 12, 2, stride=2, groups=4),
            nn.ConvTranspose2d(12, 12, 3, groups=12),
        ),
        IMAGE,
    ),
    "in_groups": (
        chain(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.Conv2d(8, 12, (1, 3), groups=4)),
        IMAGE,
    ),
    "volume": (
        chain(
            nn.Conv3d(2, 4, 3, padding=1),
            nn.Conv3d(4, 6, (1, 3, 2), dilation=(1, 2, 1)),
            nn.ConvTranspose3d(6, 2, 2, 2),
        ),
        VOLUME,
    ),
}
"""Convolutions by name: a constructor and the shape of an input without its batch."""
