"""Streams: tensors of a float file that carry the same channels, as those that a shortcut adds up do.

A channel can be raised in all tensors of a stream at once: in the layers that write it, and taken back in those that
read it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.core.quantizing.rounding import equalising_steps, raise_by
from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.quantizing.observe import find_peaks, run_rows
from edgeprune.exporting.quantizing.weights import Changes, Node, WeightLayer, read_layers, read_nodes, read_outputs

CHANNELWISE = {
    *("Relu", "LeakyRelu", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool"),
    *("ReduceMean", "Reshape", "Flatten"),
    *("RELU", "LEAKY_RELU", "MAX_POOL_2D", "AVERAGE_POOL_2D", "PAD"),
    *("MEAN", "RESHAPE"),
}
"""Operators of both formats that are positively homogeneous and keep channels apart: means and reshapes only where
their result still has as many channels."""
SUMS = {"Add", "ADD"}
RECTIFIERS = {"Relu"}
"""Operators that runtimes fuse into what writes their input, so that this is not rounded."""

Raises = Mapping[str, np.ndarray]
"""Name of a stream to the steps by which each of its channels is raised."""


@dataclass(frozen=True)
class Stream:
    """Layers that write the channels, layers that read them, and the tensors that hold them, where these are rounded.

    `axis` is where tensors of three and more dimensions have their channels; others have them last.
    """

    writers: tuple[WeightLayer, ...]
    readers: tuple[WeightLayer, ...]
    tensors: tuple[str, ...]
    axis: int

    @property
    def name(self) -> str:
        """The weights of the first layer that writes it."""
        return self.writers[0].weight


def find_streams(path: Path) -> tuple[Stream, ...]:
    """Streams of a float file that nothing but layers, sums and CHANNELWISE operators touch, and only inside the file.

    The layers of a stream share their weights with no others.
    """
    nodes, layers = read_nodes(path), {layer.name: layer for layer in read_layers(path)}
    find, blocked = _join_tensors(nodes, layers, read_outputs(path))
    kinds = defaultdict[str, set[str]](set)
    for node in nodes:
        for name in node.inputs:
            kinds[name].add(node.kind)
    fused = {name for name, readers in kinds.items() if readers <= RECTIFIERS}
    parts = defaultdict[str, tuple[list[WeightLayer], list[WeightLayer], list[str]]](lambda: ([], [], []))
    for node in nodes:
        written = node.outputs[0]
        if written not in fused:
            parts[find(written)][2].append(written)
        if (layer := layers.get(node.name)) is not None:
            parts[find(written)][0].append(layer)
            parts[find(layer.source)][1].append(layer)
    shared = Counter(name for layer in layers.values() for name in (layer.weight, layer.bias) if name)
    return tuple(
        Stream(tuple(writers), tuple(reading), tuple(tensors), _find_axis(writers))
        for root, (writers, reading, tensors) in parts.items()
        if root not in blocked and writers and reading and _is_uniform(writers, reading, shared)
    )


def _join_tensors(
    nodes: Sequence[Node], layers: Collection[str], outputs: Collection[str]
) -> tuple[Callable[[str], str], set[str]]:
    """What finds the tensor that stands for a stream, and those that stand for streams which cannot be raised."""
    parents: dict[str, str] = {}

    def find(name: str) -> str:
        while (parent := parents.get(name, name)) != name:
            name = parent
        return name

    computed, blocked = {name for node in nodes for name in node.outputs}, set(outputs)
    for node in nodes:
        if not node.homogeneous:
            blocked |= set(node.outputs)
        if node.name in layers:
            continue
        if node.kind in SUMS and set(node.inputs) <= computed:
            joined: Collection[str] = node.inputs
        elif node.kind in CHANNELWISE:
            joined = node.inputs[:1]
        else:
            joined, blocked = (), blocked | {*node.inputs, *node.outputs}
        for name in joined:
            parents[find(name)] = find(node.outputs[0])
    return find, {find(name) for name in blocked}


def _find_axis(writers: Sequence[WeightLayer]) -> int:
    return next((layer.axis for layer in writers if layer.window), -1)


def _is_uniform(writers: Sequence[WeightLayer], readers: Sequence[WeightLayer], shared: Mapping[str, int]) -> bool:
    """Whether all layers have the same channels, and their weights for themselves."""
    alone = all(shared[name] == 1 for layer in writers for name in (layer.weight, layer.bias) if name)
    alone = alone and all(shared[layer.weight] == 1 for layer in readers)
    plain = all(layer.groups in (1, len(layer.weights)) for layer in readers)
    counts = {len(layer.weights) for layer in writers} | {len(_by_input(layer, layer.weights)) for layer in readers}
    return alone and plain and len(counts) == 1


def choose_raises(path: Path, streams: Sequence[Stream], rows: np.ndarray) -> Raises:
    """By how much to raise the channels of each stream, from the largest magnitudes for `rows` `[N, ...]` of the file.

    A stream with a tensor of another shape is left out: a reshape or a mean has mixed its channels.

    Raises:
        ExportError: the file does not run.
    """
    axes = {name: stream.axis for stream in streams for name in stream.tensors}
    peaks: dict[str, np.ndarray] = {}
    ranks: dict[str, int] = {}
    with foreign("calibration", path):
        for values in run_rows(path, rows):
            for name, axis in axes.items():
                peaks[name] = np.maximum(peaks.get(name, 0), find_peaks(values[name], axis))
                ranks[name] = values[name].ndim
    return {
        stream.name: equalising_steps(np.stack([peaks[name] for name in stream.tensors]))
        for stream in streams
        if {len(peaks[name]) for name in stream.tensors} == {len(stream.writers[0].weights)}
        and {ranks[name] for name in stream.tensors} in ({2}, {3}, {4}, {2, 4})
    }


def equalise(streams: Sequence[Stream], raises: Raises) -> Changes:
    """Weights and biases that raise channels where a stream is written, and take it back where it is read."""
    state: dict[str, np.ndarray] = {}

    def change_(name: str, stored: np.ndarray) -> np.ndarray:
        return state.setdefault(name, stored.copy())

    for stream in streams:
        if stream.name not in raises:
            continue
        factors = raise_by(raises[stream.name])
        for layer in stream.writers:
            weights = change_(layer.weight, layer.weights)
            weights *= _along_first(factors, weights.ndim)
            if layer.biases is not None:
                biases = change_(layer.bias, layer.biases)
                biases *= factors
        for layer in stream.readers:
            read = _by_input(layer, change_(layer.weight, layer.weights))
            read /= _along_first(factors, read.ndim)
    return state


def _by_input(layer: WeightLayer, weights: np.ndarray) -> np.ndarray:
    """A view of the weights with the channels that they read in front."""
    return weights if layer.groups > 1 else np.moveaxis(weights, 1, 0)


def _along_first(factors: np.ndarray, dimensions: int) -> np.ndarray:
    return factors.reshape(-1, *[1] * (dimensions - 1))
