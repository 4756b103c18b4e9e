"""Weights of one-layer probes: random, determined by the layer's shape, the same layer in float and in int8."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.latency.layers import LayerShape

INPUT_SCALE = 4 / 255
"""Real value of one step of a quantized input: inputs span 0 to 4, as after a ReLU."""
OUTPUT_SCALE = 16 / 255
"""Real value of one step of a quantized output: outputs span 0 to 16, all that such weights and inputs give."""
WEIGHT_LIMIT = 63
"""Largest integer weight: two products with uint8 inputs then fit 16 bits, so kernels that add pairs never saturate."""


@dataclass(frozen=True)
class ProbeWeights:
    """Integers and scales of one layer; weights are `[cout, cin / groups, *kernel]`, all else is `[cout]`."""

    integers: NDArray[np.int8]
    scales: NDArray[np.float32]
    bias_integers: NDArray[np.int32]
    input_scale: float = INPUT_SCALE

    def take(self, first: int, count: int) -> ProbeWeights:
        """Those of so many output channels."""
        channels = slice(first, first + count)
        return replace(
            self,
            integers=self.integers[channels],
            scales=self.scales[channels],
            bias_integers=self.bias_integers[channels],
        )

    def turn(self) -> ProbeWeights:
        """The same with every axis of the kernel in reverse order."""
        return replace(self, integers=np.flip(self.integers, tuple(range(2, self.integers.ndim))))

    @property
    def bias_scales(self) -> NDArray[np.float32]:
        """Real value of one step of each bias: an accumulator's step."""
        return np.asarray(self.scales * np.float32(self.input_scale), dtype=np.float32)

    @property
    def weights(self) -> NDArray[np.float32]:
        """The weights as real numbers."""
        return self.integers * self.scales.reshape(-1, *(1,) * (self.integers.ndim - 1))

    @property
    def bias(self) -> NDArray[np.float32]:
        """The bias as real numbers."""
        return np.asarray(self.bias_integers * self.bias_scales, dtype=np.float32)


def make_weights(shape: LayerShape) -> ProbeWeights:
    """Weights of a conv or linear layer, the same for the same shape, finite and never denormal.

    Their variance is `2 / fan_in`, or up to four times less: each output channel has its own scale.
    Source: He et al., "Delving Deep into Rectifiers", 2015.
    """
    generator = np.random.default_rng(zlib.crc32(repr(shape).encode()))
    fan_in = shape.cin // shape.groups * prod(shape.kernel)
    kernel = () if shape.op == "linear" else shape.kernel
    size = (shape.cout, shape.cin // shape.groups, *kernel)
    largest = sqrt(6 / fan_in) * generator.uniform(0.5, 1, shape.cout)
    return ProbeWeights(
        generator.integers(-WEIGHT_LIMIT, WEIGHT_LIMIT, size, dtype=np.int8, endpoint=True),
        np.asarray(largest / WEIGHT_LIMIT, dtype=np.float32),
        generator.integers(-1000, 1000, shape.cout, dtype=np.int32, endpoint=True),
    )
