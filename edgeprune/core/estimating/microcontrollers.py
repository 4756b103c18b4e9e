"""Estimated profiles of microcontrollers: prices in cycles at a target's clock, asked as those of other boards are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeprune.core.estimating.cycles import CyclePrices, CycleTable
from edgeprune.core.estimating.estimate import tabulate
from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.latency.table import ESTIMATED, LatencyTable, Prediction, TableKey
from edgeprune.errors import ProfileError

CORE = re.compile(r"Cortex-M\d+\+?|ESP32-S3")
CLOCKS = ("cpu_mhz", "clock_mhz")
"""Names that a target's fact of the clock may have."""
ESP32 = "ESP32-S3"
INT8 = "int8"
NO_RESULT_OF_C = "no result of generated C was published; taken as TensorFlow Lite Micro with the same kernels"


@dataclass(frozen=True)
class CycleProfile:
    """Prices in cycles at a clock, in ms: asked as an :class:`~edgeprune.core.estimating.estimate.EstimatedProfile`."""

    board: str
    runtime: str
    prices: CyclePrices
    clock_mhz: float
    conditions: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ESTIMATED

    @property
    def key(self) -> TableKey:
        """What it stands for; no device has this name, so no measured table is ever merged with it."""
        return TableKey(f"{self.board} (estimated)", self.runtime, "unknown", INT8, 1)

    def predict(self, shape: LayerShape) -> Prediction:
        """Estimated latency of a layer; its 90 % interval is that of whole nets.

        Raises:
            ProfileError: an operator that is in no published net.
        """
        return self.predict_net([shape])

    def predict_net(self, shapes: Iterable[LayerShape]) -> Prediction:
        """Estimated latency of a net with its 90 % interval.

        Raises:
            ProfileError: an operator that is in no published net.
        """
        return Prediction(*self.prices.estimate(shapes).at(self.clock_mhz), ESTIMATED)

    def tabulate(self, shapes: Iterable[LayerShape]) -> LatencyTable:
        """A latency table of these shapes, of origin "estimated"."""
        return tabulate(self.predict, shapes, self.key, self.conditions)


@dataclass(frozen=True)
class Microcontroller:
    """A kind of board with a core that cycles were published of."""

    board: str
    description: str
    core: str
    clock_mhz: float
    table: CycleTable
    baseline_precision: str = INT8
    """What the unpruned net is estimated in: published results are of int8 nets alone."""

    def choose(self, runtime: str, precision: str, threads: int) -> CycleProfile:
        """The profile of a target's runtime, or of one that was published.

        Raises:
            ProfileError: another precision, several threads, or no published results.
        """
        if precision != INT8 or threads != 1:
            raise ProfileError(
                f"estimated cycles of {self.board}: {precision} on {threads} thread(s); published results are of int8 "
                "nets on one core; give --precision int8 --threads 1"
            )
        prices = self.table.choose(self.core, choose_runtime(runtime, self.core))
        conditions = {"clock_mhz": self.clock_mhz, "basis": prices.basis, "submissions": list(prices.submissions)}
        return CycleProfile(self.board, runtime, prices, self.clock_mhz, conditions)


def choose_runtime(name: str, core: str) -> str:
    """The published runtime that stands for a target's: "tflm" and "c" run the kernels of the core's vendor."""
    if name in ("tflm", "c"):
        return "tflm-esp-nn" if core == ESP32 else "tflm"
    return name


def find_core(facts: Sequence[tuple[str, object]]) -> tuple[str, float] | None:
    """A microcontroller's core and its clock in MHz, by a target's facts (name, value); None where they name none."""
    cores = [match[0] for _, value in facts if (match := CORE.search(str(value)))]
    clocks = [float(value) for name, value in facts if name in CLOCKS and isinstance(value, int | float) and value > 0]
    return (cores[0], clocks[0]) if cores and clocks else None
