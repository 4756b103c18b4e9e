"""How much noise quantization adds to a signal."""

from __future__ import annotations

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
