"""How much noise quantization adds to a signal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SQNR_LIMIT_DB = 300.0
"""Stands for "identical" (and negated, for noise without any signal), as JSON has no infinity."""


def measure_sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal-to-quantization-noise ratio of `other`, of the same shape, within +-SQNR_LIMIT_DB."""
    signal = reference.astype(np.float64)
    power, noise = float((signal**2).sum()), float(((other.astype(np.float64) - signal) ** 2).sum())
    if noise == 0.0:
        return SQNR_LIMIT_DB
    if power == 0.0:
        return -SQNR_LIMIT_DB
    return float(np.clip(10 * np.log10(power / noise), -SQNR_LIMIT_DB, SQNR_LIMIT_DB))


CONSTANT = 0.01
"""A channel that varies by less than this share of its size is taken for a constant, and held against its size."""
SILENT = 1e-7
"""A channel that is so much smaller than the largest one carries nothing that float32 holds beside it."""
LEAST_VALUES = 8
"""A channel of fewer values has no variation to speak of."""


@dataclass(frozen=True)
class Channel:
    """A channel of an output (axis 0 counts the rows), and how far what varies in it stands above the noise there."""

    axis: int
    index: int
    count: int
    sqnr_db: float

    def describe(self) -> str:
        """For people: which, and how well it is held."""
        return f"channel {self.index} of {self.count} (axis {self.axis}) keeps {self.sqnr_db:.1f} dB at its own scale"


def find_weakest_channel(reference: np.ndarray, other: np.ndarray) -> Channel | None:
    """The channel of `[N, C, ...]` or `[N, ..., C]` whose own variation is held worst; None where there are no two.

    A channel's scale is its standard deviation over rows and places: noise that is small beside other channels, or
    beside an offset that all rows have, may be all that is left of it.
    """
    axes = {1, reference.ndim - 1} if reference.ndim > 1 else set()
    channels = [_find_weakest(reference.astype(np.float64), other.astype(np.float64), axis) for axis in sorted(axes)]
    return min(
        (channel for channel in channels if channel is not None), key=lambda channel: channel.sqnr_db, default=None
    )


def _find_weakest(reference: np.ndarray, other: np.ndarray, axis: int) -> Channel | None:
    count = reference.shape[axis]
    if count < 2 or reference.size < LEAST_VALUES * count:
        return None
    others = tuple(dim for dim in range(reference.ndim) if dim != axis)
    size, varies = np.sqrt((reference**2).mean(others)), reference.std(others)
    noise = np.sqrt(((other - reference) ** 2).mean(others))
    mask = (size > SILENT * size.max()) & (noise > 0)
    if not mask.any():
        return None
    scale = np.where(varies >= CONSTANT * size, varies, size)
    ratios = np.full(count, np.inf)
    ratios[mask] = 20 * np.log10(scale[mask] / noise[mask])
    index = int(ratios.argmin())
    return Channel(axis, index, count, float(np.clip(ratios[index], -SQNR_LIMIT_DB, SQNR_LIMIT_DB)))
