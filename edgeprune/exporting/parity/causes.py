"""Why two arrays that should be equal are not: the likely cause, from their values alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np

from edgeprune.core.quantizing.sqnr import measure_sqnr_db

BETTER_DB = 10.0
"""A cause is believed where undoing it brings the arrays closer by this much."""
SAME_VALUES_DB = 33.0
"""Sorted weights that agree to this are the same weights: 7 bits leave 38 dB, other weights of like spread 30 dB."""


UNKNOWN = "noise of no known shape: other weights, another operator, or too few bits"
LOST_DB = 6.0
"""A channel with less is noise."""
LOST_SHARE = 0.1
"""Of the channels that carry anything: fewer lost ones do not explain a bad layer after them."""


def find_cause(reference: np.ndarray, other: np.ndarray, first_axis: int) -> str:
    """The likely reason why `other` differs from `reference`, in words; axes from `first_axis` on may be channels."""
    if reference.shape != other.shape:
        return f"shape {list(other.shape)} instead of {list(reference.shape)}"
    expected, actual = reference.astype(np.float64), other.astype(np.float64)
    for find in CAUSES:
        if cause := find(expected, actual, first_axis):
            return cause
    return UNKNOWN


def find_lost_channels(reference: np.ndarray, other: np.ndarray) -> str:
    """Channels that one scale for a whole tensor cannot hold, as others dwarf them; empty where it is not so."""
    expected, error = reference.astype(np.float64), other.astype(np.float64) - reference
    for axis in range(1, expected.ndim):
        others = tuple(i for i in range(expected.ndim) if i != axis)
        power, noise = (expected**2).mean(axis=others), (error**2).mean(axis=others)
        alive = power > 0
        lost = alive & (noise * 10 ** (LOST_DB / 10) > power)
        if alive.any() and LOST_SHARE <= lost.sum() / alive.sum() < 1:
            ratio = float(np.sqrt(power.max() / np.median(power[lost])))
            return (
                f"channel {_list(np.flatnonzero(lost))} of {len(power)} is lost: another is {ratio:.3g} times as large"
            )
    return ""


def _find_short_float(expected: np.ndarray, actual: np.ndarray, _: int) -> str:
    """One side held in 16 bits where the other is not, and apart by no more than that makes."""
    if min(len(np.unique(expected)), len(np.unique(actual))) <= FEW_VALUES:
        return ""
    for name, cast, bits, least in SHORT_FLOATS:
        short = [bool((cast(side) == side).all()) for side in (expected, actual)]
        apart = np.abs(actual - expected) > ROUNDINGS * (2.0**-bits * np.abs(expected) + least)
        if short[0] != short[1] and apart.mean() < 0.01:
            side = "reference is" if short[0] else "values are"
            return f"the {side} in {name} ({bits} bits, nothing below {least:.1g}), the others in float32"
    return ""


def _to_float16(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float64)


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Cut to the upper half of a float32, which is all that a bfloat16 has."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32).astype(np.float64)


SHORT_FLOATS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray], int, float], ...] = (
    ("bfloat16", _to_bfloat16, 8, 2.0**-133),
    ("float16", _to_float16, 11, 2.0**-24),
)
"""Name, cast, bits of a value and the least one above zero of floats in 16 bits."""
ROUNDINGS = 16
"""In units of the last place: how far a layer's output is off where all before it was rounded too."""
FEW_VALUES = 32


def _find_scale(expected: np.ndarray, actual: np.ndarray, _: int) -> str:
    if expected.size < 3 or expected.std() == 0 or actual.std() == 0:
        return ""
    gain, shift = np.polyfit(expected.ravel(), actual.ravel(), 1)
    if abs(gain) < 1e-6 or not _is_better(expected, actual, (actual - shift) / gain):
        return ""
    if abs(gain - 1) > 0.05:
        return f"wrong scale: {gain:.3g} times the float values"
    return f"wrong zero point: shifted by {shift:.3g}"


def _find_dead(expected: np.ndarray, actual: np.ndarray, first_axis: int) -> str:
    for axis in range(first_axis, expected.ndim):
        others = tuple(i for i in range(expected.ndim) if i != axis)
        alive, spread = expected.std(axis=others) + abs(expected.mean(axis=others)), np.ptp(actual, axis=others)
        dead = np.flatnonzero((spread == 0) & (expected.std(axis=others) > 0) & (alive > 1e-3 * alive.max()))
        if expected.shape[axis] > 1 and 0 < len(dead) < expected.shape[axis]:
            return f"dead channel {_list(dead)} of {expected.shape[axis]}"
    return ""


def _find_channel_scale(expected: np.ndarray, actual: np.ndarray, first_axis: int) -> str:
    for axis in range(first_axis, expected.ndim):
        others = tuple(i for i in range(expected.ndim) if i != axis)
        if expected.shape[axis] == 1 or not others:
            continue
        power = (expected**2).sum(axis=others, keepdims=True)
        gains = (expected * actual).sum(axis=others, keepdims=True) / np.maximum(power, np.finfo(np.float64).tiny)
        gains[abs(gains) < 1e-6] = 1.0
        wrong = np.flatnonzero(abs(gains - 1) > 0.1)
        if len(wrong) and _is_better(expected, actual, actual / gains):
            shown = ", ".join(f"{gain:.3g}" for gain in gains.ravel()[wrong[:4]])
            return f"wrong scale in channel {_list(wrong)} of {expected.shape[axis]}: {shown} times the float values"
    return ""


def _find_clipping(expected: np.ndarray, actual: np.ndarray, _: int) -> str:
    low, high = float(actual.min()), float(actual.max())
    margin = 0.01 * float(np.ptp(expected))
    above, below = expected > high + margin, expected < low - margin
    share, stopped = (
        float((above | below).mean()),
        (above & (actual >= high - margin)) | (below & (actual <= low + margin)),
    )
    if share < 1e-3 or stopped.mean() < share / 2:
        return ""
    reach = f"[{expected.min():.3g}, {expected.max():.3g}]"
    return f"clipped range: holds [{low:.3g}, {high:.3g}], the float values reach {reach}, {share:.1%} are cut off"


def _find_layout(expected: np.ndarray, actual: np.ndarray, first_axis: int) -> str:
    for order in permutations(range(first_axis, expected.ndim)):
        axes = (*range(first_axis), *order)
        if axes != tuple(range(expected.ndim)):
            turned = actual.transpose(axes)
            if turned.shape == expected.shape and _is_better(expected, actual, turned):
                return f"swapped layout: axes {axes}"
    if first_axis == 0 and expected.size > 8:
        like = measure_sqnr_db(np.sort(expected, axis=None), np.sort(actual, axis=None))
        if like >= SAME_VALUES_DB:
            return "swapped layout: the same values in another order"
    return ""


def _find_saturation(expected: np.ndarray, actual: np.ndarray, _: int) -> str:
    size = abs(expected)
    large, usual = size >= np.quantile(size, 0.99), size <= np.quantile(size, 0.9)
    gains = [float((expected * actual)[part].sum() / max((expected**2)[part].sum(), 1e-30)) for part in (large, usual)]
    if gains[1] > 0.8 and gains[0] < 0.85 * gains[1]:
        return (
            f"saturation: the largest values come out at {gains[0]:.2f} of the float ones, the others at {gains[1]:.2f}"
        )
    return ""


def _find_coarse_step(expected: np.ndarray, actual: np.ndarray, _: int) -> str:
    steps = len(np.unique(actual))
    if steps <= FEW_VALUES and len(np.unique(expected)) > 4 * steps:
        return f"scale too coarse: only {steps} distinct values"
    return ""


CAUSES: tuple[Callable[[np.ndarray, np.ndarray, int], str], ...] = (
    _find_short_float,
    _find_dead,
    _find_scale,
    _find_channel_scale,
    _find_coarse_step,
    _find_clipping,
    _find_layout,
    _find_saturation,
)
"""Tried in this order: the first that explains the difference is taken."""


def _is_better(expected: np.ndarray, actual: np.ndarray, mended: np.ndarray) -> bool:
    return measure_sqnr_db(expected, mended) >= measure_sqnr_db(expected, actual) + BETTER_DB


def _list(channels: np.ndarray) -> str:
    shown = ", ".join(map(str, channels[:4]))
    return shown + (f" and {len(channels) - 4} more" if len(channels) > 4 else "")
