"""Nets whose memory is planned: with shortcuts, depthwise layers, concatenations, linear layers alone, one axis."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


class Shortcut(nn.Module):
    """A residual block at full size, and one that halves it, as in ResNet-8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = (
            nn.Conv2d(3, 16, 3, 1, 1),
            nn.Conv2d(16, 12, 3, 1, 1),
            nn.Conv2d(12, 16, 3, 1, 1),
        )
        self.down, self.up, self.side = nn.Conv2d(16, 24, 3, 2, 1), nn.Conv2d(24, 20, 3, 1, 1), nn.Conv2d(16, 20, 1, 2)
        self.head = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.stem(x))
        x = relu(x + self.outer(relu(self.inner(x))))
        x = relu(self.side(x) + self.up(relu(self.down(x))))
        return self.head(x.mean((2, 3)))


class Inverted(nn.Module):
    """Expand, depthwise, project, with a sum over two blocks, as in MobileNetV2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.expand, self.project = (
            nn.ModuleList(nn.Conv2d(*ends, 1) for _ in range(2)) for ends in ((16, 48), (48, 16))
        )
        self.depthwise = nn.ModuleList(nn.Conv2d(48, 48, 3, 1, 1, groups=48) for _ in range(2))
        self.last, self.head = nn.Conv2d(16, 32, 1), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.relu6(self.stem(x))
        for expand, depthwise, project in zip(self.expand, self.depthwise, self.project, strict=True):
            x = x + project(relu(depthwise(relu(expand(x)))))
        return self.head(relu(self.last(x)).mean((2, 3)))


class Concatenated(nn.Module):
    """Two paths side by side, and their input beside these."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 20, 1), nn.Conv2d(16, 12, 3, 1, 1)
        self.joined, self.head = nn.Conv2d(48, 24, 3, 2, 1), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.stem(x))
        x = torch.cat([relu(self.left(x)), relu(self.right(x)), x], 1)
        return self.head(relu(self.joined(x)).mean((2, 3)))


class Autoencoder(nn.Sequential):
    """Linear layers alone."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 64)
        )


class OneAxis(nn.Module):
    """A 1-D CNN with a pool and a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 16, 5, 1, 2), nn.Conv1d(16, 24, 3, 1, 1)
        self.pool, self.head = nn.MaxPool1d(4), nn.Linear(24 * 8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.second(relu(self.first(x))))
        return self.head(torch.flatten(self.pool(x), 1))


MEMORY_NETS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "shortcut": (Shortcut, (3, 16, 16)),
    "inverted": (Inverted, (3, 16, 16)),
    "concatenated": (Concatenated, (3, 16, 16)),
    "autoencoder": (Autoencoder, (64,)),
    "one axis": (OneAxis, (3, 32)),
}
"""By name, with the shape of one input."""
