"""Noise and corruption of inputs, after Hendrycks and Dietterich ("Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019), with their seeds fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Inputs = NDArray[Any]
Corrupt = Callable[[Inputs, float], Inputs]

SEVERITIES = (1, 3, 5)
GAUSSIAN_NOISE, GAUSSIAN_BLUR = (0.04, 0.08, 0.10), (0.4, 0.7, 1.0)
BRIGHTNESS, CONTRAST = (0.05, 0.15, 0.30), (0.75, 0.40, 0.15)
"""Of the severities 1, 3 and 5 in CIFAR-10-C (Hendrycks' make_cifar_c.py): noise and brightness as shares of the range
of values, sigma of the blur in pixels of a 32x32 image, contrast as a factor."""
BLUR_SIZE = 32
NOISE_SHARES, LOST_SHARES = (0.1, 0.3, 0.5), (0.05, 0.1, 0.2)
"""Of signals: noise as a share of each channel's deviation, and the share of samples that are lost. Sensors have no
standard set; these go from what a calibrated one shows to one that is loose."""
SEED = 14


def corrupt_images(images: Inputs, value_range: tuple[float, float]) -> Iterator[tuple[str, int, Inputs]]:
    """Name, severity and images `[N, C, H, W]`; values stay within the range."""
    low, high = value_range
    kinds: dict[str, tuple[Corrupt, tuple[float, ...]]] = {
        "noise": (lambda x, share: x + _noise(x) * share * (high - low), GAUSSIAN_NOISE),
        "blur": (_blur, GAUSSIAN_BLUR),
        "brightness": (lambda x, share: x + share * (high - low), BRIGHTNESS),
        "contrast": (lambda x, factor: _centre(x) + factor * (x - _centre(x)), CONTRAST),
    }
    for name, (corrupt, strengths) in kinds.items():
        for severity, strength in zip(SEVERITIES, strengths, strict=True):
            yield name, severity, np.clip(corrupt(images, strength), low, high).astype(images.dtype)


def corrupt_signals(signals: Inputs, deviation: Inputs) -> Iterator[tuple[str, int, Inputs]]:
    """Name, severity and signals `[N, C, T]` or features `[N, F]`; `deviation` is that of each channel, `[C]` or `[F]`.

    A lost sample reads as the one before it; a lost feature as zero deviation: its mean over these inputs.
    """
    scale = deviation.reshape(1, -1, *(1,) * (signals.ndim - 2))
    for severity, share in zip(SEVERITIES, NOISE_SHARES, strict=True):
        yield "noise", severity, (signals + share * scale * _noise(signals)).astype(signals.dtype)
    for severity, share in zip(SEVERITIES, LOST_SHARES, strict=True):
        yield "lost samples", severity, _lose(signals, share)


def corrupt(inputs: Inputs, everything: Inputs) -> Iterator[tuple[str, int, Inputs]]:
    """The set that fits the inputs, with the range and the deviations of `everything`; none for integers."""
    if not np.issubdtype(inputs.dtype, np.floating) or inputs.ndim < 2:
        return
    if inputs.ndim == 4:
        yield from corrupt_images(inputs, (float(everything.min()), float(everything.max())))
    else:
        others = tuple(axis for axis in range(inputs.ndim) if axis != 1)
        yield from corrupt_signals(inputs, everything.std(axis=others))


def _noise(inputs: Inputs) -> Inputs:
    return np.random.default_rng(SEED).standard_normal(inputs.shape)


def _blur(images: Inputs, sigma: float) -> Inputs:
    own = sigma * max(images.shape[2:]) / BLUR_SIZE
    return np.asarray(gaussian_filter(images, (0, 0, own, own)))


def _centre(images: Inputs) -> Inputs:
    return np.asarray(images.mean(axis=(2, 3), keepdims=True))


def _lose(signals: Inputs, share: float) -> Inputs:
    """Lose whole samples, all channels at once, as a bus does; of features, single ones."""
    generator = np.random.default_rng(SEED)
    if signals.ndim == 2:
        lost = generator.random(signals.shape) < share
        return np.where(lost, signals.mean(axis=0, keepdims=True), signals).astype(signals.dtype)
    length = signals.shape[-1]
    lost = generator.random((len(signals), length)) < share
    source = np.maximum.accumulate(np.where(lost, 0, np.arange(length)), axis=1)
    places = source.reshape(len(signals), *(1,) * (signals.ndim - 2), length)
    return np.take_along_axis(signals, np.broadcast_to(places, signals.shape), axis=-1)
