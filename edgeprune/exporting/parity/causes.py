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
    wanted, found = reference.astype(np.float64), other.astype(np.float64)
    for find in CAUSES:
        if cause := find(wanted, found, first_axis):
            return cause
    return UNKNOWN


def find_lost_channels(reference: np.ndarray, other: np.ndarray) -> str:
    """Channels that one scale for a whole tensor cannot hold, as others dwarf them; empty where it is not so."""
    wanted, error = reference.astype(np.float64), other.astype(np.float64) - reference
    for axis in range(1, wanted.ndim):
        others = tuple(i for i in range(wanted.ndim) if i != axis)
        power, noise = (wanted**2).mean(axis=others), (error**2).mean(axis=others)
        alive = power > 0
        lost = alive & (noise * 10 ** (LOST_DB / 10) > power)
        if alive.any() and LOST_SHARE <= lost.sum() / alive.sum() < 1:
            ratio = float(np.sqrt(power.max() / np.median(power[lost])))
            return (
                f"channel {_list(np.flatnonzero(lost))} of {len(power)} is lost: another is {ratio:.3g} times as large"
            )
    return ""


def _find_short_float(wanted: np.ndarray, found: np.ndarray, _: int) -> str:
    """One side held in 16 bits where the other is not, and apart by no more than that makes."""
    if min(len(np.unique(wanted)), len(np.unique(found))) <= FEW_VALUES:
        return ""
    for name, cast, bits, least in SHORT_FLOATS:
        short = [bool((cast(side) == side).all()) for side in (wanted, found)]
        apart = np.abs(found - wanted) > ROUNDINGS * (2.0**-bits * np.abs(wanted) + least)
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


def _find_scale(wanted: np.ndarray, found: np.ndarray, _: int) -> str:
    if wanted.size < 3 or wanted.std() == 0 or found.std() == 0:
        return ""
    gain, shift = np.polyfit(wanted.ravel(), found.ravel(), 1)
    if abs(gain) < 1e-6 or not _is_better(wanted, found, (found - shift) / gain):
        return ""
    if abs(gain - 1) > 0.05:
        return f"wrong scale: {gain:.3g} times the float values"
    return f"wrong zero point: shifted by {shift:.3g}"


def _find_dead(wanted: np.ndarray, found: np.ndarray, first_axis: int) -> str:
    for axis in range(first_axis, wanted.ndim):
        others = tuple(i for i in range(wanted.ndim) if i != axis)
        alive, left = wanted.std(axis=others) + abs(wanted.mean(axis=others)), np.ptp(found, axis=others)
        dead = np.flatnonzero((left == 0) & (wanted.std(axis=others) > 0) & (alive > 1e-3 * alive.max()))
        if wanted.shape[axis] > 1 and 0 < len(dead) < wanted.shape[axis]:
            return f"dead channel {_list(dead)} of {wanted.shape[axis]}"
    return ""


def _find_channel_scale(wanted: np.ndarray, found: np.ndarray, first_axis: int) -> str:
    for axis in range(first_axis, wanted.ndim):
        others = tuple(i for i in range(wanted.ndim) if i != axis)
        if wanted.shape[axis] == 1 or not others:
            continue
        power = (wanted**2).sum(axis=others, keepdims=True)
        gains = (wanted * found).sum(axis=others, keepdims=True) / np.maximum(power, np.finfo(np.float64).tiny)
        gains[abs(gains) < 1e-6] = 1.0
        wrong = np.flatnonzero(abs(gains - 1) > 0.1)
        if len(wrong) and _is_better(wanted, found, found / gains):
            shown = ", ".join(f"{gain:.3g}" for gain in gains.ravel()[wrong[:4]])
            return f"wrong scale in channel {_list(wrong)} of {wanted.shape[axis]}: {shown} times the float values"
    return ""


def _find_clipping(wanted: np.ndarray, found: np.ndarray, _: int) -> str:
    low, high = float(found.min()), float(found.max())
    margin = 0.01 * float(np.ptp(wanted))
    above, below = wanted > high + margin, wanted < low - margin
    share, stopped = (
        float((above | below).mean()),
        (above & (found >= high - margin)) | (below & (found <= low + margin)),
    )
    if share < 1e-3 or stopped.mean() < share / 2:
        return ""
    reach = f"[{wanted.min():.3g}, {wanted.max():.3g}]"
    return f"clipped range: holds [{low:.3g}, {high:.3g}], the float values reach {reach}, {share:.1%} are cut off"


def _find_layout(wanted: np.ndarray, found: np.ndarray, first_axis: int) -> str:
    for order in permutations(range(first_axis, wanted.ndim)):
        axes = (*range(first_axis), *order)
        if axes != tuple(range(wanted.ndim)):
            turned = found.transpose(axes)
            if turned.shape == wanted.shape and _is_better(wanted, found, turned):
                return f"swapped layout: axes {axes}"
    if first_axis == 0 and wanted.size > 8:
        like = measure_sqnr_db(np.sort(wanted, axis=None), np.sort(found, axis=None))
        if like >= SAME_VALUES_DB:
            return "swapped layout: the same values in another order"
    return ""


def _find_saturation(wanted: np.ndarray, found: np.ndarray, _: int) -> str:
    size = abs(wanted)
    large, usual = size >= np.quantile(size, 0.99), size <= np.quantile(size, 0.9)
    gains = [float((wanted * found)[part].sum() / max((wanted**2)[part].sum(), 1e-30)) for part in (large, usual)]
    if gains[1] > 0.8 and gains[0] < 0.85 * gains[1]:
        return (
            f"saturation: the largest values come out at {gains[0]:.2f} of the float ones, the others at {gains[1]:.2f}"
        )
    return ""


def _find_coarse_step(wanted: np.ndarray, found: np.ndarray, _: int) -> str:
    steps = len(np.unique(found))
    if steps <= FEW_VALUES and len(np.unique(wanted)) > 4 * steps:
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


def _is_better(wanted: np.ndarray, found: np.ndarray, mended: np.ndarray) -> bool:
    return measure_sqnr_db(wanted, mended) >= measure_sqnr_db(wanted, found) + BETTER_DB


def _list(channels: np.ndarray) -> str:
    shown = ", ".join(map(str, channels[:4]))
    return shown + (f" and {len(channels) - 4} more" if len(channels) > 4 else "")
