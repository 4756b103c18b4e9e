"""Estimated profiles: a physical model of what a layer costs on a board that is not at hand.

After the roofline (Williams et al. 2009), with few parameters: multiply-accumulates at a share of the core's
documented peak, by kind of kernel and with channels rounded up to the vector tile; beside them the bytes moved, at a
share of the documented memory bandwidth or from the cache; and an overhead for each layer. Every parameter carries a
spread, so every figure carries an interval. What is estimated serves planning; it never stands for a measurement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import exp, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.latency import ESTIMATED, LatencyPoint, LatencyTable, Prediction, TableKey
from edgeprune.core.layers import TRANSPOSED, LayerShape
from edgeprune.errors import ProfileError

KERNELS = ("conv3x3", "conv", "pointwise", "depthwise", "linear")
"""Kinds of kernel with an efficiency each; `conv3x3` has stride 1, where runtimes may use Winograd's algorithm."""
PARAMETERS = (*KERNELS, "grouped", "depth3x3", "memory", "cache", "overhead_us", "parallel", "speed")
"""Efficiencies (shares of the documented peak; above 1 where an algorithm saves multiplications) and a factor on them
for grouped convolutions; input channels at which a 3x3 kernel spends half its time on transforms; share of the
documented memory bandwidth, at most 1; activation bytes a cycle; microseconds a layer and thread; what each further
core adds, as a share of the first, at most 1; and a factor on the whole."""
VALUE_BYTES = {"fp32": 4, "int8": 1}
TILE = 8
"""Output channels that the kernels of common runtimes compute at once on Arm."""
SHORT_SUM = 16.0
"""Length of a sum of products at which half the time goes to starting and storing it."""
NORMAL_90 = 1.645
"""Half the width of a normal distribution's central 90 %, in standard deviations."""
MINIMUM_MS = 1e-6


Array = NDArray[np.float64]


@dataclass(frozen=True)
class Core:
    """Documented facts of the cores that a profile is for, each of which `sources` names.

    `macs_per_cycle` is the peak of one core at the profile's precision; `cache_kib` the largest cache that these
    cores share (a core's own second level where they share none).
    """

    name: str
    clock_ghz: float
    macs_per_cycle: float
    cores: int
    cache_kib: float
    memory_gb_s: float


@dataclass(frozen=True)
class Parameter:
    """A positive figure and its spread, the standard deviation of its logarithm."""

    value: float
    spread: float


@dataclass(frozen=True)
class EstimatedProfile:
    """Estimated latency by layer shape for one kind of board, runtime, precision and thread count.

    Takes the place of a :class:`~edgeprune.core.latency.LatencyTable` where a plan is made without a device.
    `layer_spread` and `net_spread` are what the model itself misses, as standard deviations of the logarithm.
    """

    board: str
    runtime: str
    precision: str
    threads: int
    core: Core
    parameters: Mapping[str, Parameter]
    layer_spread: float
    net_spread: float
    conditions: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ESTIMATED

    @property
    def key(self) -> TableKey:
        """What it stands for; no device has this name, so no measured table is ever merged with it."""
        return TableKey(f"{self.board} (estimated)", self.runtime, "unknown", self.precision, self.threads)

    @cached_property
    def _known(self) -> dict[LayerShape, Prediction]:
        return {}

    @cached_property
    def _points(self) -> Array:
        """Logarithms of the parameters: as they are, then each moved by its spread. Shape (1 + n, n)."""
        logs = log_values(self.parameters)
        return np.vstack([logs, logs + np.diag([self.parameters[name].spread for name in PARAMETERS])])

    def predict(self, shape: LayerShape) -> Prediction:
        """Estimated latency of a layer with its 90 % interval.

        Raises:
            ProfileError: an operator that the model does not know.
        """
        if shape not in self._known:
            times = times_ms(Work.of([shape], self), self._points, self)
            self._known[shape] = _predict(times[:, 0], self.layer_spread)
        return self._known[shape]

    def predict_net(self, shapes: Iterable[LayerShape]) -> Prediction:
        """Estimated latency of a net made of these layers; errors of a parameter are shared by all its layers."""
        times = times_ms(Work.of(list(shapes), self), self._points, self).sum(axis=1)
        return _predict(times, self.net_spread)

    def tabulate(self, shapes: Iterable[LayerShape]) -> LatencyTable:
        """A latency table of these shapes, of origin "estimated"."""
        points = []
        for shape in sorted(set(shapes)):
            found = self.predict(shape)
            points.append(LatencyPoint(shape, found.latency_ms, found.low_ms, found.high_ms))
        return LatencyTable(self.key, tuple(points), ESTIMATED, self.conditions)


def _predict(times: Array, spread: float) -> Prediction:
    """The first of `times` with an interval; the others are it with one parameter each moved by its spread."""
    middle = max(float(times[0]), MINIMUM_MS)
    moves = np.log(np.maximum(times[1:], MINIMUM_MS) / middle)
    reach = exp(NORMAL_90 * float(np.hypot(np.linalg.norm(moves), spread)))
    return Prediction(middle, middle / reach, middle * reach, ESTIMATED)


@dataclass(frozen=True)
class Work:
    """What layers ask of a board: multiply-accumulates by kind of kernel, bytes of weights and of activations.

    `kernel` is an index into `KERNELS`, for layers without multiply-accumulates of no meaning. `starts` is the cost
    of starting sums in multiply-accumulates, for 3x3 kernels a multiple of it that is a parameter.
    """

    kernel: NDArray[np.intp]
    grouped: NDArray[np.bool_]
    macs: Array
    starts: Array
    weight_bytes: Array
    activation_bytes: Array

    @classmethod
    def of(cls, shapes: Sequence[LayerShape], profile: EstimatedProfile) -> Work:
        """Count the work of layers at the profile's precision.

        Raises:
            ProfileError: an operator that the model does not know.
        """
        rows = [_count(shape, profile) for shape in shapes]
        kernels, macs, starts, weights, activations = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        size = VALUE_BYTES[profile.precision]
        return cls(
            np.array(kernels, dtype=np.intp),
            np.array([1 < shape.groups < shape.cin for shape in shapes]),
            np.array(macs, dtype=float),
            np.array(starts, dtype=float),
            size * np.array(weights, dtype=float),
            size * np.array(activations, dtype=float),
        )


def _count(shape: LayerShape, profile: EstimatedProfile) -> tuple[int, float, float, float, float]:
    """Kind of kernel, multiply-accumulates, what starting their sums is worth, weights, values read and written."""
    read = shape.cin * prod(shape.size)
    if shape.op == "add":
        return 0, 0.0, 0.0, 0.0, 2.0 * read + shape.cout * prod(shape.size)
    written = shape.cout * prod(shape.output_size)
    places = prod(shape.size if shape.op == TRANSPOSED else shape.output_size)
    if shape.op == "pool":
        return 0, 0.0, 0.0, 0.0, float(read + written)
    kernel = KERNELS.index(find_kernel(shape, profile.key.describe()))
    summed = shape.cin // shape.groups * prod(shape.kernel)
    channels = shape.cout if shape.groups == shape.cin else shape.cout // shape.groups
    padded = -(-channels // TILE) * TILE * shape.cout // channels
    short = {"conv3x3": prod(shape.kernel), "depthwise": 0.0}.get(KERNELS[kernel], SHORT_SUM)
    sums = float(padded * places)
    return kernel, summed * sums, short * sums, float(summed * shape.cout), float(read + written)


def find_kernel(shape: LayerShape, where: str) -> str:
    """The kind of kernel that computes a layer.

    Raises:
        ProfileError: an operator that the model does not know.
    """
    if shape.op == "linear":
        return "linear" if prod(shape.size) == 1 else "pointwise"
    if shape.op not in ("conv", TRANSPOSED):
        raise ProfileError(
            f"estimated profile ({where}): operator {shape.op!r} of {shape.describe()!r} is unknown; "
            "known are add, conv, linear, pool, transposed; measure this layer on the board instead"
        )
    if shape.groups > 1 and shape.groups == shape.cin:
        return "depthwise"
    if prod(shape.kernel) == 1:
        return "pointwise"
    winograd = shape.op == "conv" and set(shape.kernel) == {3} and set(shape.stride) == {1} and not shape.dilation
    return "conv3x3" if winograd else "conv"


def times_ms(work: Work, logs: Array, profile: EstimatedProfile) -> Array:
    """Latency in ms of each layer, for each row of logarithms of the parameters. Shape (rows, layers).

    Times of computing and of moving data add up: the cores that this is for overlap little of them, and the sum
    fitted published rows no worse than the maximum or the root of squares did.
    """
    core, settings = profile.core, np.exp(logs)
    values = dict(zip(PARAMETERS, settings.T[:, :, None], strict=True))
    efficiency = settings[:, work.kernel] * np.where(work.grouped, values["grouped"], 1)
    threads = min(profile.threads, core.cores)
    team = 1 + (threads - 1) * np.minimum(values["parallel"], 1)
    starts = work.starts * np.where(work.kernel == KERNELS.index("conv3x3"), values["depth3x3"], 1)
    compute = (work.macs + starts) / (core.clock_ghz * 1e6 * core.macs_per_cycle * efficiency * team)
    spilled = np.clip(work.activation_bytes / (core.cache_kib * 1024) - 0.5, 0, 1)
    far = (work.weight_bytes + spilled * work.activation_bytes) / (
        core.memory_gb_s * 1e6 * np.minimum(values["memory"], 1)
    )
    near = (1 - spilled) * work.activation_bytes / (core.clock_ghz * 1e6 * values["cache"] * team)
    total: Array = (compute + far + near + values["overhead_us"] * threads / 1e3) / values["speed"]
    return total


def log_values(parameters: Mapping[str, Parameter]) -> Array:
    """Logarithms of the values, in the order of `PARAMETERS`."""
    logs: Array = np.log([parameters[name].value for name in PARAMETERS])
    return logs
