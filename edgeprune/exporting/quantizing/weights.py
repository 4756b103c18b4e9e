"""The weights of a float file: read with what surrounds them, and written back changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.core.latency.layers import LayerShape, Window, describe_window
from edgeprune.exporting.formats import look_inside


@dataclass(frozen=True)
class PaddedWindow:
    """What a convolution reads at a place: one number for each spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    def describe(self, channels: tuple[int, int], groups: int, size: tuple[int, ...]) -> LayerShape:
        """The shape of the convolution on an input of so many places."""
        axes = zip(size, self.kernel, self.stride, self.dilation, self.before, self.after, strict=True)
        output = tuple(
            (length + before + after - (width - 1) * step - 1) // stride + 1
            for length, width, stride, step, before, after in axes
        )
        window = Window(self.kernel, self.stride, self.dilation, groups)
        return describe_window("conv", channels, (size, output), window)


@dataclass(frozen=True)
class WeightLayer:
    """A layer with stored weights: `weights` is `[O, I / groups, *kernel]` or `[O, I]`, `biases` `[O]`.

    It reads the tensor `source`, whose channels are on `axis`. `weight` and `bias` name the stored tensors, which
    layers may share; `window` is None for a linear layer.
    """

    name: str
    source: str
    weight: str
    bias: str
    weights: np.ndarray
    biases: np.ndarray | None
    groups: int = 1
    window: PaddedWindow | None = None
    axis: int = -1


@dataclass(frozen=True)
class Node:
    """An operator of a file: `name` is unique, `operator` is as the format has it.

    `homogeneous`: what is fused into it, if anything, is a ReLU.
    """

    name: str
    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    operator: Any
    homogeneous: bool = True


Changes = Mapping[str, np.ndarray]
"""Name of a stored tensor to its new content, weights laid out as in :class:`WeightLayer`."""


def read_layers(path: Path) -> tuple[WeightLayer, ...]:
    """Convolutions and linear layers of a float file with stored weights, in order."""
    return look_inside(path).read_layers(path)


def read_nodes(path: Path) -> tuple[Node, ...]:
    """All operators of a file in order."""
    return look_inside(path).read_nodes(path)


def read_outputs(path: Path) -> tuple[str, ...]:
    """Names of the tensors that a file gives."""
    return look_inside(path).read_outputs(path)


def change_weights(path: Path, changes: Changes) -> bytes:
    """The file with other content in some of its stored tensors."""
    return look_inside(path).change_weights(path, changes)


def keep_owned(layers: Sequence[WeightLayer], nodes: Sequence[Node]) -> tuple[WeightLayer, ...]:
    """The layers whose weights nothing else uses."""
    uses = Counter(name for node in nodes for name in node.inputs)
    owned = Counter(name for layer in layers for name in (layer.weight, layer.bias))
    return tuple(
        layer for layer in layers if all(uses[name] == owned[name] for name in (layer.weight, layer.bias) if name)
    )
