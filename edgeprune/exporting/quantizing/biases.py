"""Biases of static integer files that are beyond their integers, made to fit.

A bias is held in steps of its layer's input scale times its channel's weight scale. Where next to nothing flows into a
layer, or the weights of a channel are as good as zero, as masks and weight decay leave them, that step is so small that
the bias is beyond 32 bits: ai-edge-quantizer clips it, ONNX Runtime's quantizer leaves sums no room beside it, and the
channel is lost. The weights of such a channel get a larger scale here, as TFLite's own converter has it. It costs
nothing that could be seen: beside a bias of 2^30 steps the products of K 8-bit weights make up K / 2^15 of it at most,
and what their coarser rounding changes is less than K / 2^15 of a step of the 8-bit output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LARGEST = {4: 2**30, 8: 2**40}
"""Most steps of a bias by its bytes: half of what 32 bits hold; TFLite's 16-bit kernels lose those from 2^46 on."""
CLIPPED = {4: 2**30, 8: 2**31 - 1}
"""From so many steps on a bias is looked at: those held in 64 bits are clipped to 32 by the quantizer."""


@dataclass(frozen=True)
class IntegerLayer:
    """A layer of an integer file: its input's scale, the scale of each output channel's weights (or one), its bias.

    `weight` and `bias` say where these are in the file; `steps` is the bias as it is held.
    """

    name: str
    input_scale: float
    weight: Any
    scales: np.ndarray
    bias: Any
    steps: np.ndarray

    @property
    def overflows(self) -> bool:
        """Whether the bias is clipped, or leaves no room for a sum."""
        return bool((np.abs(self.steps.astype(np.float64)) >= CLIPPED[self.steps.itemsize]).any())

    def least_scales(self, biases: np.ndarray) -> np.ndarray:
        """The least scales of the weights that let these biases fit."""
        least = np.abs(biases.astype(np.float64)) / (self.input_scale * LARGEST[self.steps.itemsize])
        return np.broadcast_to(least if self.scales.size > 1 else least.max(), self.scales.shape)

    def hold(self, biases: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """These biases in steps, with these scales of the weights."""
        return np.asarray(np.rint(biases.astype(np.float64) / (self.input_scale * scales)), self.steps.dtype)


def widen_scales(layers: Sequence[IntegerLayer], biases: Mapping[str, np.ndarray]) -> dict[Any, np.ndarray]:
    """Larger scales by weight, where the biases of its layers (by their name) do not fit; layers may share weights."""
    tight = {layer.weight for layer in layers if layer.overflows and layer.name in biases}
    widened: dict[Any, np.ndarray] = {}
    for layer in layers:
        if layer.weight in tight and layer.name in biases:
            scales = widened.get(layer.weight, layer.scales)
            widened[layer.weight] = np.maximum(scales, layer.least_scales(biases[layer.name])).astype(np.float32)
    return widened


def coarsen(values: np.ndarray, scales: np.ndarray, widened: np.ndarray, axis: int) -> np.ndarray:
    """Integer weights for larger scales; channels are on `axis`, where there are several scales."""
    shape = [1] * values.ndim
    shape[axis if scales.size > 1 else 0] = scales.size
    return np.asarray(np.rint(values * (scales.astype(np.float64) / widened).reshape(shape)), np.int8)
