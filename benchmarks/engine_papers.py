"""Networks written from their papers, for the engine to prune: MTCNN's three stages and CREPE."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACE_OUTPUTS = (2, 4, 10)
"""Face or not, box, five landmarks (Zhang et al., 2016)."""
CREPE_FILTERS = (32, 4, 4, 4, 8, 16)
"""Filters of the six convolutions in units of the capacity: 32 in the paper's net, 4 in its authors' "tiny" one."""
CREPE_PITCHES = 360


class FaceHeads(nn.Module):
    """What every stage of MTCNN says: a probability of a face, a box and landmarks."""

    def __init__(self, layer: type[nn.Conv2d | nn.Linear], width: int) -> None:
        super().__init__()
        size = (1,) if layer is nn.Conv2d else ()
        self.face, self.box, self.landmarks = (layer(width, outputs, *size) for outputs in FACE_OUTPUTS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`[N, width, ...]` to `[N, 2, ...]`, `[N, 4, ...]`, `[N, 10, ...]`."""
        return self.face(x).softmax(1), self.box(x), self.landmarks(x)


def _step(cin: int, cout: int, kernel: int, pool: int = 0) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(cin, cout, kernel), nn.PReLU(cout)]
    return layers + [nn.MaxPool2d(pool, 2, ceil_mode=True)] * bool(pool)


def p_net() -> nn.Module:
    """MTCNN's proposal net: 12x12 to one place, any larger image to a map of places (Zhang et al., 2016, fig. 2)."""
    trunk = [*_step(3, 10, 3, 2), *_step(10, 16, 3), *_step(16, 32, 3)]
    return nn.Sequential(*trunk, FaceHeads(nn.Conv2d, 32))


def r_net() -> nn.Module:
    """MTCNN's refinement net, 24x24 (Zhang et al., 2016, fig. 2)."""
    trunk = [*_step(3, 28, 3, 3), *_step(28, 48, 3, 3), *_step(48, 64, 2)]
    return nn.Sequential(*trunk, nn.Flatten(), nn.Linear(576, 128), nn.PReLU(128), FaceHeads(nn.Linear, 128))


def o_net() -> nn.Module:
    """MTCNN's output net, 48x48 (Zhang et al., 2016, fig. 2)."""
    trunk = [*_step(3, 32, 3, 3), *_step(32, 64, 3, 3), *_step(64, 64, 3, 2), *_step(64, 128, 2)]
    return nn.Sequential(*trunk, nn.Flatten(), nn.Linear(1152, 256), nn.PReLU(256), FaceHeads(nn.Linear, 256))


class Crepe(nn.Module):
    """Pitch from 1024 samples at 16 kHz: six convolutions and 360 sigmoids (Kim et al., 2018, sec. 2)."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        widths = [1, *(capacity * filters for filters in CREPE_FILTERS)]
        later = (nn.Conv1d(cin, cout, 64, padding="same") for cin, cout in pairwise(widths[1:]))
        self.convolutions = nn.ModuleList([nn.Conv1d(1, widths[1], 512, stride=4, padding=254), *later])
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths[1:])
        self.pitches = nn.Linear(4 * widths[-1], CREPE_PITCHES)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 1024]` to `[N, 360]`."""
        x = x[:, None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.dropout(F.max_pool1d(norm(convolution(x).relu()), 2), 0.25, self.training)
        return self.pitches(x.flatten(1)).sigmoid()


PAPERS = {
    "MTCNN P-Net": (p_net, torch.randn(1, 3, 48, 64)),
    "MTCNN R-Net": (r_net, torch.randn(1, 3, 24, 24)),
    "MTCNN O-Net": (o_net, torch.randn(1, 3, 48, 48)),
    "CREPE tiny": (lambda: Crepe(4), torch.randn(1, 1024)),
    "CREPE full": (lambda: Crepe(32), torch.randn(1, 1024)),
}
"""A constructor and an example by name."""
