"""What flows through a float file for given inputs: histograms of every tensor, moments of what each layer reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.core.quantizing.ranges import BINS, Histogram, Range
from edgeprune.core.quantizing.rounding import Moments
from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.formats import Values, look_inside
from edgeprune.exporting.quantizing.weights import PaddedWindow, WeightLayer, read_nodes

COUNTED = 16384
"""Values of a tensor that are counted of each row, at places drawn once; the extremes are over all of them."""
TINY = 1e-30
"""Width of the histogram of a tensor that is always 0."""
ENDLESS = 1e8
"""Masks of attention hold minus infinity, the least float32 (as litert-torch writes it) or -1e9."""
PATCHES = 64
"""Places of a layer's input that its moments take from each row."""
MOST_WEIGHTS = 1536
"""An output channel with more weights has no moments: they would be a matrix of as many rows and columns."""


@dataclass(frozen=True)
class Observed:
    """Histograms by tensor; moments by stored weight tensor; ranges of the tensors that hold infinity, as masked scores
    do.
    """

    histograms: dict[str, Histogram]
    moments: dict[str, Moments]
    endless: dict[str, Range]


def observe(path: Path, rows: np.ndarray, layers: Sequence[WeightLayer]) -> Observed:
    """Run a float file on `rows` `[N, ...]` twice: for the extremes of each tensor, then for all else.

    Raises:
        ExportError: the file does not run.
    """
    with foreign("calibration", path):
        extremes = _find_extremes(run_rows(path, rows))
        endless = {name: ends for name, ends in extremes.items() if is_endless(ends)}
        counters = {name: _Counter(*ends) for name, ends in extremes.items() if name not in endless}
        summed: dict[str, _Sum] = {}
        for values in run_rows(path, rows):
            for name, counter in counters.items():
                counter.add(values[name])
            for layer in layers:
                if layer.weights[0].size <= MOST_WEIGHTS:
                    summed.setdefault(layer.weight, _Sum()).add(read_patches(layer, values[layer.source]))
    histograms = {name: counter.histogram for name, counter in counters.items()}
    return Observed(histograms, {name: total.moments for name, total in summed.items()}, endless)


def is_endless(ends: Range) -> bool:
    """Whether a range reaches to infinity, or to what stands for it: no 8 bits hold that beside anything else."""
    return not max(map(abs, ends)) < ENDLESS


def find_endless(path: Path, ranges: Mapping[str, Range]) -> tuple[str, ...]:
    """Operators that read or give infinity, by these ranges of a file's tensors: integers cannot hold it."""
    endless = {name for name, ends in ranges.items() if is_endless(ends)}
    if not endless:
        return ()
    return tuple(node.name for node in read_nodes(path) if not endless.isdisjoint((*node.inputs, *node.outputs)))


def observe_extremes(path: Path, rows: np.ndarray) -> dict[str, Range]:
    """Lowest and highest value (and 0) of every tensor of a float file for `rows` `[N, ...]`.

    Raises:
        ExportError: the file does not run.
    """
    with foreign("calibration", path):
        return _find_extremes(run_rows(path, rows))


def count_values(path: Path, row: np.ndarray) -> int:
    """Values in all float tensors of a file for one row.

    Raises:
        ExportError: the file does not run.
    """
    with foreign("calibration", path):
        (values,) = run_rows(path, row[None])
        return sum(value.size for value in values.values())


def run_rows(path: Path, rows: np.ndarray) -> Iterator[Values]:
    """Every float tensor of a file for each row in turn; valid until the next row."""
    return look_inside(path).run_rows(path, rows)


def _find_extremes(runs: Iterable[Values]) -> dict[str, Range]:
    extremes: dict[str, Range] = {}
    for values in runs:
        for name, value in values.items():
            if value.size:
                low, high = extremes.get(name, (0.0, 0.0))
                extremes[name] = (min(low, float(value.min())), max(high, float(value.max())))
    return extremes


class _Counter:
    """Counts values into the bins of a histogram."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.counts = np.zeros(BINS, np.int64)
        self.places: np.ndarray | None = None

    def add(self, value: np.ndarray) -> None:
        flat = value.reshape(-1)
        if flat.size > COUNTED:
            if self.places is None:
                self.places = np.random.default_rng(0).integers(flat.size, size=COUNTED)
            flat = flat[self.places]
        scale = BINS / max(self.high - self.low, TINY)
        bins = ((flat - self.low) * scale).astype(np.int64)
        self.counts += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)

    @property
    def histogram(self) -> Histogram:
        return Histogram(self.low, self.high, self.counts)


class _Sum:
    """Sums up moments."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Any = 0.0
        self.second: Any = 0.0

    def add(self, patches: np.ndarray) -> None:
        self.count += len(patches)
        grouped = patches.transpose(1, 0, 2).astype(np.float64)
        self.first = self.first + grouped.sum(axis=1)
        self.second = self.second + grouped.transpose(0, 2, 1) @ grouped

    @property
    def moments(self) -> Moments:
        return Moments(self.first / self.count, self.second / self.count)


def find_peaks(value: np.ndarray, axis: int) -> np.ndarray:
    """Largest magnitude of each channel, of a tensor that has them on `axis`; last, where it has two dimensions."""
    channel_axis = axis % value.ndim if value.ndim > 2 else value.ndim - 1
    others = tuple(dimension for dimension in range(value.ndim) if dimension != channel_axis)
    return np.asarray(np.maximum(value.max(others), -value.min(others)))


def read_patches(layer: WeightLayer, value: np.ndarray) -> np.ndarray:
    """What a layer's weights are multiplied with at some places of its input: `[places, groups, K]`."""
    value = np.moveaxis(value, layer.axis, 1) if layer.window else value.reshape(-1, value.shape[-1])
    if layer.window is None:
        return value[_draw(len(value)), None]
    patches = _unfold(value[0], layer.window)
    return patches.reshape(len(patches), layer.groups, -1)


def _unfold(value: np.ndarray, window: PaddedWindow) -> np.ndarray:
    """Some patches `[places, C, *kernel]` of `[C, *spatial]`."""
    padded = np.pad(value, [(0, 0), *zip(window.before, window.after, strict=True)])
    axes = tuple(range(1, padded.ndim))
    reach = tuple((k - 1) * d + 1 for k, d in zip(window.kernel, window.dilation, strict=True))
    views = np.lib.stride_tricks.sliding_window_view(padded, reach, axes)
    patches = views[tuple(slice(None, None, step) for step in (1, *window.stride, *window.dilation))]
    places = np.moveaxis(patches, 0, len(axes))  # [*places, C, *kernel], a view
    shape = places.shape[: len(axes)]
    return np.asarray(places[np.unravel_index(_draw(int(np.prod(shape))), shape)])


@cache
def _draw(count: int) -> np.ndarray:
    """Numbers of the places that are taken of so many, the same every time."""
    return np.random.default_rng(0).permutation(count)[:PATCHES]
