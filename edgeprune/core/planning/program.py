"""A mixed-integer program under construction, and its solution by HiGHS (`scipy.optimize.milp`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from edgeprune.core.latency.correction import Correction
from edgeprune.core.planning.limits import TOTALS, Costs
from edgeprune.errors import PlanError

LATENCY, MEGAVALUES = "latency", "megavalues"
NOTHING = Costs()
RELATIVE_GAP = 1e-3
SECONDS = 60.0
INFEASIBLE = 2
"""The status with which `milp` says that no values meet the constraints."""


@dataclass(frozen=True)
class Price:
    """What a layer adds to a net's latency in ms, and to the values that it moves, in millions."""

    latency_ms: float = 0.0
    megavalues: float = 0.0


FREE = Price()


class Program:
    """Variables, constraints and the two cost vectors of a mixed-integer program under construction."""

    def __init__(self) -> None:
        self._loss: list[float] = []
        self._sums: dict[str, list[float]] = {name: [] for name in (LATENCY, MEGAVALUES, *TOTALS)}
        self._binary: list[bool] = []
        self._rows: list[dict[int, float]] = []
        self._sides: list[tuple[float, float]] = []
        self._reserve: tuple[int, int] | None = None
        self.widths: dict[tuple[str, int], int] = {}

    @property
    def loss(self) -> np.ndarray:
        """What each variable adds to the loss."""
        return np.array(self._loss)

    @property
    def latency(self) -> np.ndarray:
        """What each variable adds to the latency in ms."""
        return np.array(self._sums[LATENCY])

    def variable(self, loss: float = 0.0, price: Price = FREE, costs: Costs = NOTHING, binary: bool = False) -> int:
        """A new variable, from 0 to 1; gives its number."""
        self._loss.append(loss)
        self._sums[LATENCY].append(price.latency_ms)
        self._sums[MEGAVALUES].append(price.megavalues)
        for name in TOTALS:
            self._sums[name].append(getattr(costs, name))
        self._binary.append(binary)
        return len(self._loss) - 1

    def require_equal(self, row: dict[int, float], side: float) -> None:
        """The sum of the row's variables, each times its factor, is `side`."""
        self._rows.append(row)
        self._sides.append((side, side))

    def require_at_most(self, row: dict[int, float], side: float) -> None:
        """The sum of the row's variables, each times its factor, does not exceed `side`."""
        self._rows.append(row)
        self._sides.append((-np.inf, side))

    def reserved(self) -> int:
        """A variable: the share of the memory that is kept free at every step, none at first."""
        if self._reserve is None:
            self._reserve = self.variable(), len(self._rows)
            self.require_equal({self._reserve[0]: 1.0}, 0.0)
        return self._reserve[0]

    def reserve(self, share: float) -> None:
        """Keep so much of the memory free at every step, as a share of it."""
        if self._reserve is not None:
            self._sides[self._reserve[1]] = (share, share)

    def charge_beyond(self, correction: Correction, whole_megavalues: float) -> None:
        """Charge for what a net moves beyond the caches: a variable, the share of what the whole net moves there."""
        most = whole_megavalues - correction.cached_megavalues
        is_charged = correction.per_megavalue_ms > 0 and most > 0
        if is_charged:
            moved = {index: value for index, value in enumerate(self._sums[MEGAVALUES]) if value}
            share = self.variable(price=Price(correction.per_megavalue_ms * most))
            self.require_at_most({**moved, share: -most}, correction.cached_megavalues)

    def forbid(self, widths: Mapping[str, int]) -> None:
        """Rule out one choice."""
        self.require_at_most({self.widths[item]: 1.0 for item in widths.items()}, len(widths) - 1)

    def minimise(self, cost: np.ndarray, caps: Mapping[str, float]) -> tuple[np.ndarray, float] | None:
        """Solve with each sum at most its cap, those without a sum left out; None when proven infeasible."""
        if any(limit <= 0 for limit in caps.values()):
            return None
        low, high = np.array(self._sides, dtype=float).T
        solution = milp(
            cost / (np.abs(cost).max() or 1.0),
            constraints=[LinearConstraint(self._matrix(), low, high), *self._cap(caps)],
            integrality=np.array(self._binary, dtype=int),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": RELATIVE_GAP, "time_limit": SECONDS},
        )
        if solution.status == INFEASIBLE:
            return None
        if solution.x is None:
            raise PlanError(
                f"the planner gave up after {SECONDS:g} s: {solution.message}; use fewer widths (a larger step)"
            )
        return solution.x, float(solution.mip_gap or 0.0)

    def _cap(self, caps: Mapping[str, float]) -> Iterator[LinearConstraint]:
        """Each sum at most its cap, both as shares of the cap, so that all rows have numbers of one magnitude."""
        for name, limit in caps.items():
            has_sum, is_finite = name in self._sums, np.isfinite(limit)
            if has_sum and is_finite:
                row = csr_array(np.array(self._sums[name])[None, :] / limit)
                yield LinearConstraint(row, -np.inf, 1.0)

    def _matrix(self) -> csr_array:
        entries = [(row, column, value) for row, terms in enumerate(self._rows) for column, value in terms.items()]
        rows, columns, values = zip(*entries, strict=True)
        return csr_array((values, (rows, columns)), shape=(len(self._rows), len(self._loss)))

    def read_widths(self, values: np.ndarray) -> dict[str, int]:
        """The widths that a solution has chosen, by group."""
        return {group: width for (group, width), index in self.widths.items() if values[index] > 0.5}
