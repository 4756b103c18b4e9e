"""Estimated profiles: a physical model of what a layer costs on a board that is not at hand.

After the roofline (Williams et al. 2009): multiply-accumulates at a share of the core's documented peak, by kind of
kernel; values that pools, additions and activations work on; bytes moved, at a share of the documented memory bandwidth
or from the cache; a cost of each operator, and of each inference. :mod:`edgeprune.core.estimating.work` counts what a
layer asks for, this module puts a price on it, and a latency is the sum of the products: the cores that this is for
overlap little, and the sum fitted published rows no worse than the maximum did. All precisions and thread counts of a
board and a runtime share their parameters. Every parameter carries a spread, so every figure carries an interval. What
is estimated serves planning; it never stands for a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import exp
from typing import Any

import numpy as np

from edgeprune.core.estimating.prior import PARAMETERS
from edgeprune.core.estimating.work import KERNELS, SIMPLE, TERMS, Array, Machine, count_work
from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.latency.table import ESTIMATED, LatencyPoint, LatencyTable, Prediction, TableKey
from edgeprune.errors import ProfileError

VALUE_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
"""Precisions of arithmetic and what a value takes in them."""
PLAIN_INT8 = 2
"""Multiply-accumulates of int8 for each of fp32 without dot products of bytes, which depthwise kernels do not use."""
WINOGRAD_SAVES = 81 / 16
"""Multiplications of a 3x3 convolution for each that Winograd's algorithm makes on tiles of 6x6, its largest in use."""
NORMAL_90 = 1.645
"""Half the width of a normal distribution's central 90 %, in standard deviations."""
MINIMUM_MS = 1e-6


@dataclass(frozen=True)
class Core:
    """Documented facts of the cores that a profile is for, each of which `sources` names.

    `macs_per_cycle` is the peak of one core by precision; `cache_kib` the largest cache that these cores share (a
    core's own second level where they share none).
    """

    name: str
    clock_ghz: float
    macs_per_cycle: Mapping[str, float]
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
    """Estimated latency by layer shape for one kind of board and runtime, asked at one precision and thread count.

    Takes the place of a :class:`~edgeprune.core.latency.table.LatencyTable` where a plan is made without a device.
    `winograd` says whether the runtime computes 3x3 convolutions by that algorithm. `layer_spread` and `net_spread` are
    what the model itself misses, as standard deviations of the logarithm; `stretch` is a factor on the width of the
    intervals, so that they hold what they should of rows that a fit had not seen. `weights_only` marks a profile that
    was calibrated on lists without pools, additions and activations, whose cost then is in that of the other layers.
    """

    board: str
    runtime: str
    core: Core
    parameters: Mapping[str, Parameter]
    layer_spread: float
    net_spread: float
    precision: str = "fp32"
    threads: int = 1
    winograd: bool = False
    stretch: float = 1.0
    weights_only: bool = False
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
    def _prices(self) -> Array:
        """Prices at the parameters as they are, then with each moved by its spread. Shape (1 + parameters, terms)."""
        logs = log_values(self.parameters)
        moved = logs + np.diag([self.parameters[name].spread for name in PARAMETERS])
        return price_terms(np.vstack([logs, moved]), self)

    def count(self, shapes: Sequence[LayerShape]) -> Array:
        """The work of layers at the profile's precision. Shape (layers, terms).

        Raises:
            ProfileError: an operator that the model does not know, or lists of another kind than it was calibrated on.
        """
        if self.weights_only and (other := next((shape for shape in shapes if not shape.has_weights), None)):
            raise ProfileError(
                f"estimated profile ({self.key.describe()}): was calibrated on lists of convolutions and linear layers "
                f"only, and this one holds {other.describe()!r}; calibrate again with complete lists"
            )
        values = self.core.cache_kib * 1024 / VALUE_BYTES[self.precision]
        return count_work(shapes, Machine(values, self.winograd), self.key.describe())

    def count_net(self, shapes: Sequence[LayerShape]) -> Array:
        """The work of one inference of a net. Shape (terms,).

        Raises:
            ProfileError: as :meth:`count`.
        """
        work: Array = self.count(shapes).sum(axis=0)
        work[TERMS.index("nets")] = 1
        return work

    def predict(self, shape: LayerShape) -> Prediction:
        """Estimated latency of a layer with its 90 % interval.

        Raises:
            ProfileError: as :meth:`count`.
        """
        if shape not in self._known:
            times = self._prices @ self.count([shape])[0]
            self._known[shape] = self._interval(times, self.layer_spread)
        return self._known[shape]

    def predict_net(self, shapes: Iterable[LayerShape]) -> Prediction:
        """Estimated latency of a net made of these layers; errors of a parameter are shared by all its layers.

        Raises:
            ProfileError: as :meth:`count`.
        """
        return self._interval(self._prices @ self.count_net(list(shapes)), self.net_spread)

    def _interval(self, times: Array, spread: float) -> Prediction:
        """The first of `times` with an interval; the others are it with one parameter each moved by its spread."""
        middle = max(float(times[0]), MINIMUM_MS)
        moves = np.log(np.maximum(times[1:], MINIMUM_MS) / middle)
        reach = exp(NORMAL_90 * self.stretch * float(np.hypot(np.linalg.norm(moves), spread)))
        return Prediction(middle, middle / reach, middle * reach, ESTIMATED)

    def tabulate(self, shapes: Iterable[LayerShape]) -> LatencyTable:
        """A latency table of these shapes, of origin "estimated"."""
        return tabulate(self.predict, shapes, self.key, self.conditions)


def tabulate(
    predict: Callable[[LayerShape], Prediction],
    shapes: Iterable[LayerShape],
    key: TableKey,
    conditions: Mapping[str, Any],
) -> LatencyTable:
    """A latency table of these shapes as they are predicted, each once, of origin "estimated"."""
    points = []
    for shape in sorted(set(shapes)):
        prediction = predict(shape)
        points.append(LatencyPoint(shape, prediction.latency_ms, prediction.low_ms, prediction.high_ms))
    return LatencyTable(key, tuple(points), ESTIMATED, conditions)


def price_terms(logs: Array, profile: EstimatedProfile) -> Array:
    """Milliseconds that one unit of each term costs, for each row of logarithms of the parameters. Shape (rows, terms).

    Raises:
        ProfileError: no peak of the core is documented at the profile's precision.
    """
    values = dict(zip(PARAMETERS, np.exp(logs).T, strict=True))
    prices = _price_kernels(values, profile) | _price_simple(values, profile) | _price_bytes(values, profile)
    prices["starts"] = values["starts"] * prices["pointwise"]
    prices["packing"] = values["packing"] * prices["pointwise"]
    kilocycles_per_ms = profile.core.clock_ghz * 1e3 * values["speed"]
    more = _threads(profile) - 1
    prices["calls"] = values["call_kcycles"] * (1 + more * values["sync"]) / kilocycles_per_ms
    prices["nets"] = values["net_kcycles"] / kilocycles_per_ms
    return np.stack([prices[term] for term in TERMS], axis=1)


def _threads(profile: EstimatedProfile) -> int:
    return min(profile.threads, profile.core.cores)


def _team(share: Array, profile: EstimatedProfile) -> Array:
    """What all threads do together for each unit that one does; each adds at most one."""
    team: Array = 1 + (_threads(profile) - 1) * np.minimum(share, 1)
    return team


def _price_kernels(values: Mapping[str, Array], profile: EstimatedProfile) -> dict[str, Array]:
    """A multiply-accumulate by kind of kernel: never below what the documented peak of the core allows."""
    peaks, precision = profile.core.macs_per_cycle, profile.precision
    if precision not in peaks:
        raise ProfileError(
            f"estimated profile ({profile.key.describe()}): {profile.core.name} has no documented peak at {precision}; "
            f"it has them at {', '.join(peaks)}"
        )
    prices = {}
    for kernel in KERNELS:
        share = values["efficiency"] * values.get(kernel, 1.0) * values["speed"]
        share = share * values.get(precision, 1.0)
        share = share * values.get(f"{precision}_{kernel}", 1.0)
        peak = peaks[precision]
        if (precision, kernel) == ("int8", "depthwise"):
            peak = min(peak, PLAIN_INT8 * peaks["fp32"])
        most = WINOGRAD_SAVES if kernel == "winograd" else 1.0
        parallel = values["parallel"] * values.get(f"parallel_{kernel}", 1.0)
        rate = profile.core.clock_ghz * 1e6 * peak * np.minimum(share, most)
        prices[kernel] = 1 / (rate * _team(parallel, profile))
    return prices


def _price_simple(values: Mapping[str, Array], profile: EstimatedProfile) -> dict[str, Array]:
    peaks = profile.core.macs_per_cycle
    lanes = peaks["fp16"] if profile.precision == "fp16" else peaks["fp32"]
    ratio = values["int8_simple"] if profile.precision == "int8" else 1.0
    team = _team(values["parallel"] * values["parallel_simple"], profile)
    rate = profile.core.clock_ghz * 1e6 * lanes * ratio * team * values["speed"]
    return {kind: 1 / (rate * values[kind]) for kind in SIMPLE}


def _price_bytes(values: Mapping[str, Array], profile: EstimatedProfile) -> dict[str, Array]:
    """A value that is moved; all cores together get no more than the documented bandwidth of the memory."""
    size, core = VALUE_BYTES[profile.precision], profile.core
    share = values["memory"] * _team(values["parallel_memory"], profile) * values["speed"]
    far = size / (core.memory_gb_s * 1e6 * np.minimum(share, 1))
    near = size / (core.clock_ghz * 1e6 * values["cache"] * _team(values["parallel"], profile) * values["speed"])
    return {"weights": far, "far": far, "near": near}


def log_values(parameters: Mapping[str, Parameter]) -> Array:
    """Logarithms of the values, in the order of `PARAMETERS`."""
    logs: Array = np.log([parameters[name].value for name in PARAMETERS])
    return logs
