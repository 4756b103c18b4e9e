"""Weights made ready for rounding: rounded to spare a layer's output, biases corrected, layers equalised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DAMPING = 0.01
"""Share of the mean second moment added to each (Frantar et al. 2022)."""
STEPS_PER_OCTAVE = 4
MOST_STEPS = 8
"""Channels are raised by powers of 2 ** (1 / STEPS_PER_OCTAVE), four times at most: a digit says how far."""


@dataclass(frozen=True)
class Moments:
    """What a layer reads, over its patches: `mean` is `[groups, K]`, `second` (not central) `[groups, K, K]`.

    K is the number of weights of an output channel.
    """

    mean: np.ndarray
    second: np.ndarray


def round_weights(weights: np.ndarray, moments: Moments, levels: int) -> np.ndarray:
    """Weights `[O, ...]` on the grid of one scale per output channel, -levels to levels, of little output error.

    One column is rounded after the other, and what this does to the output is made good by the columns still to come
    (Frantar et al., "GPTQ", 2022; after Hassibi and Stork, "Optimal Brain Surgeon", 1993). The largest weight of a
    channel keeps its value, so that whoever quantizes the result finds the same scale.
    """
    groups, size = moments.mean.shape
    grouped = weights.reshape(groups, -1, size).astype(np.float64)
    rounded = [_round_group(rows, second, levels) for rows, second in zip(grouped, moments.second, strict=True)]
    return np.stack(rounded).reshape(weights.shape).astype(weights.dtype)


def _round_group(rows: np.ndarray, second: np.ndarray, levels: int) -> np.ndarray:
    size = len(second)
    damped = second + np.eye(size) * max(DAMPING * float(np.trace(second)) / size, np.finfo(np.float64).tiny)
    order = np.argsort(-np.diag(damped), kind="stable")
    upper = np.linalg.cholesky(np.linalg.inv(damped[order][:, order])).T
    largest = np.abs(rows).max(axis=1)
    scales = np.where(largest > 0, largest, 1.0) / levels
    pinned = np.abs(rows[:, order]).argmax(axis=1)
    pending, signs = rows[:, order], np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])
    rounded = np.empty_like(pending)
    for column in range(size):
        steps = np.clip(np.round(pending[:, column] / scales), -levels, levels)
        rounded[:, column] = np.where(pinned == column, signs * levels, steps) * scales
        error = (pending[:, column] - rounded[:, column]) / upper[column, column]
        pending[:, column + 1 :] -= np.outer(error, upper[column, column + 1 :])
    result = np.empty_like(rounded)
    result[:, order] = np.where(largest[:, None] > 0, rounded, 0)
    return result


def round_to_nearest(weights: np.ndarray, levels: int) -> np.ndarray:
    """Weights `[O, ...]` on the grid of one scale per output channel, each on its nearest point."""
    largest = np.abs(weights).reshape(len(weights), -1).max(axis=1)
    scales = (np.where(largest > 0, largest, 1) / levels).reshape(-1, *[1] * (weights.ndim - 1))
    return np.asarray(np.clip(np.round(weights / scales), -levels, levels) * scales, weights.dtype)


def shift_of_outputs(weights: np.ndarray, rounded: np.ndarray, moments: Moments) -> np.ndarray:
    """By how much rounding moves the mean of each output channel: `[O]`, to be taken off the bias.

    Nagel et al., "Data-free quantization", 2019, section 4.2, with the mean of the input as it was observed.
    """
    groups, size = moments.mean.shape
    error = (rounded.astype(np.float64) - weights).reshape(groups, -1, size)
    return np.asarray(np.einsum("gok,gk->go", error, moments.mean).reshape(-1))


def equalising_steps(peaks: np.ndarray) -> np.ndarray:
    """How far to raise each channel, `[C]` integers, from the largest magnitudes seen in them, `[tensors, C]`.

    One scale holds a whole tensor, so that a quiet channel is held in few of its values. Halfway (in decibels) to the
    loudest is best here, in the tensor where that is nearest: further up, what exceeds the values seen is clipped in
    every channel at once. At most MOST_STEPS, for channels that were hardly ever seen to do anything; a dead channel
    stays (after Nagel et al. 2019, section 4.1, who level the weights on either side; those have a scale per channel
    here).
    """
    octaves = np.log2(peaks.astype(np.float64), out=np.full(peaks.shape, np.inf), where=peaks > 0)
    loudest = np.max(octaves, axis=1, where=peaks > 0, initial=-np.inf)
    missing = np.min(loudest[:, None] - octaves, axis=0, where=peaks > 0, initial=np.inf)
    steps = np.clip(np.round(missing / 2 * STEPS_PER_OCTAVE), 0, MOST_STEPS)
    return np.where((peaks > 0).any(axis=0), steps, 0).astype(np.int64)


def raise_by(steps: np.ndarray) -> np.ndarray:
    """Factors of so many steps."""
    return np.asarray(2.0 ** (steps / STEPS_PER_OCTAVE))
