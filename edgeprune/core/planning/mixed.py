"""Mixed precision: which layers of an int8 net stay in float, chosen exactly.

The noise that each layer's quantization adds to the output is measured; noises of single layers add up. What layers
cost in float and in int8, and what a layer and one that reads it cost together beside that (a conversion where their
precisions differ), is known too. The cheapest choice within limits on the noise and on the cost is a small
mixed-integer program.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp

from edgeprune.core.planning.limits import SIZES
from edgeprune.errors import ExportError

FLOAT, INT8 = SIZES["fp32"], SIZES["int8"]
LARGEST = 1e4
"""What the largest cost is scaled to, so that the solver's absolute gap of 1e-6 is far below a tie."""
TIE = 1e-2
"""Cost of a float layer on that scale: ties go to int8."""
INFEASIBLE = 2
"""How the solver says that there is no choice within the limits."""


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer, the noise power that its quantization adds to the output, and what it costs in float and in int8.

    `weights` is how many it holds, `values` how many activations it reads and writes.
    """

    name: str
    noise: float
    float_cost: float = 0.0
    int8_cost: float = 0.0
    weights: int = 0
    values: int = 0


@dataclass(frozen=True)
class Merge:
    """Operators that several layers feed together, such as a sum: in float where all of these layers are."""

    layers: frozenset[int]
    float_cost: float = 0.0
    int8_cost: float = 0.0


@dataclass(frozen=True)
class Output:
    """What a part gives to those that read it, by their places, and what that costs beside what the parts cost.

    `in_float` where it and all its readers are in float; `rounded` where it is and not all of them are, as what it
    gives is then rounded once; where it is in int8 two costs for each reader, that of one in int8 and of one in float.
    """

    writer: int
    readers: tuple[int, ...]
    in_float: float
    rounded: float
    int8: tuple[tuple[float, float], ...]

    def cost(self, parts: Sequence[bool]) -> float:
        """The cost where those of the `parts` that are True are in float."""
        reading = [parts[reader] for reader in self.readers]
        if parts[self.writer]:
            return self.in_float if all(reading) else self.rounded
        return sum(costs[is_float] for costs, is_float in zip(self.int8, reading, strict=True))


@dataclass(frozen=True)
class MixedProblem:
    """Parts of a net in order, layers before merges, and what they give.

    No choice may cost more than `budget`, make the file larger than in int8 by more than `room_bytes`, or let a layer
    read and write more than `most_activation_bytes`.
    """

    layers: tuple[QuantizedLayer, ...]
    outputs: tuple[Output, ...] = ()
    budget: float = inf
    merges: tuple[Merge, ...] = ()
    room_bytes: float = inf
    most_activation_bytes: float = inf

    @property
    def parts(self) -> tuple[QuantizedLayer | Merge, ...]:
        """In the order of their places."""
        return (*self.layers, *self.merges)

    def cost(self, floats: Sequence[bool]) -> float:
        """What a choice costs; `floats` says for each layer whether it stays in float."""
        states = (*floats, *(all(floats[layer] for layer in merge.layers) for merge in self.merges))
        pairs = zip(self.parts, states, strict=True)
        own = sum(part.float_cost if in_float else part.int8_cost for part, in_float in pairs)
        return own + sum(output.cost(states) for output in self.outputs)

    def added_bytes(self, floats: Sequence[bool]) -> int:
        """By how much the weights that stay in float make the file larger."""
        more = FLOAT.weight - INT8.weight
        return sum(more * layer.weights for layer, in_float in zip(self.layers, floats, strict=True) if in_float)

    def activation_bytes(self, floats: Sequence[bool]) -> int:
        """The most that any one layer reads and writes."""
        pairs = zip(self.layers, floats, strict=True)
        return max((layer.values * (FLOAT if in_float else INT8).activation for layer, in_float in pairs), default=0)

    def may_float(self, layer: QuantizedLayer) -> bool:
        """Whether its activations are within the limit in float."""
        return layer.values * FLOAT.activation <= self.most_activation_bytes

    def noise(self, floats: Sequence[bool]) -> float:
        """Noise power at the output."""
        return sum(layer.noise for layer, in_float in zip(self.layers, floats, strict=True) if not in_float)


def choose_floats(problem: MixedProblem, noise: float) -> tuple[bool, ...] | None:
    """The cheapest choice of layers that stay in float with so much noise at most, proven; ties go to int8.

    None where no choice with so little noise is within the budget and the other limits, proven too.

    Raises:
        ExportError: the solver gave up.
    """
    solution = _solve(problem, noise)
    if solution.status == INFEASIBLE:
        return None
    if solution.x is None:
        raise ExportError(f"mixed precision: the solver gave up ({solution.message}); ship int8 or fp32")
    return tuple(bool(value > 0.5) for value in solution.x[: len(problem.layers)])


def _solve(problem: MixedProblem, noise: float) -> OptimizeResult:
    """Variables: whether each layer, each merge, and all of each set of parts that a cost depends on, is in float."""
    count, (together, costs) = len(problem.layers), _linearise(problem)
    others = len(costs) - count
    base = problem.cost([False] * count)
    scale = LARGEST / (np.abs(costs).max() or 1.0)
    ties = np.array([TIE] * count + [0.0] * others)
    rows = [row for index, parts in enumerate(together, count) for row in _hold_together(index, parts, len(costs))]
    noises = np.array([layer.noise for layer in problem.layers])
    loudest = float(noises.max()) or 1.0
    spared = np.concatenate([noises / loudest, np.zeros(others)])[None]
    limits = [LinearConstraint(spared, lb=(noises.sum() - noise) / loudest)]
    if rows:
        limits.append(LinearConstraint(np.array([row for row, _ in rows]), ub=np.array([most for _, most in rows])))
    if isfinite(problem.budget):
        limits.append(LinearConstraint(costs[None] * scale, ub=(problem.budget - base) * scale))
    if isfinite(problem.room_bytes):
        added = np.array([problem.added_bytes(np.arange(count) == index) for index in range(count)] + [0] * others)
        most = float(added.max()) or 1.0
        limits.append(LinearConstraint(added[None] / most, ub=problem.room_bytes / most))
    return milp(
        costs * scale + ties,
        constraints=limits,
        integrality=np.array([1] * count + [0] * others),
        bounds=Bounds(0, [*(float(problem.may_float(layer)) for layer in problem.layers), *[1.0] * others]),
        options={"mip_rel_gap": 0.0},
    )


def _linearise(problem: MixedProblem) -> tuple[list[frozenset[int]], np.ndarray]:
    """Sets of parts that are in float together or not, and what each variable adds to the cost of all in int8.

    The first sets are the merges. A reader in float costs something only where its writer is not in float.
    """
    together = [merge.layers for merge in problem.merges]
    costs = [part.float_cost - part.int8_cost for part in problem.parts]

    def add(parts: frozenset[int], cost: float) -> None:
        together.append(parts)
        costs.append(cost)

    for output in problem.outputs:
        costs[output.writer] += output.rounded - sum(alone for alone, _ in output.int8)
        add(frozenset({output.writer, *output.readers}), output.in_float - output.rounded)
        for reader, (alone, converted) in zip(output.readers, output.int8, strict=True):
            costs[reader] += converted - alone
            add(frozenset({output.writer, reader}), alone - converted)
    return together, np.array(costs)


def _hold_together(index: int, parts: Collection[int], width: int) -> list[tuple[np.ndarray, float]]:
    """Rows and what they are at most, so that variable `index` is 1 where all `parts` are, and else 0."""
    rows = []
    for part in parts:
        row = np.zeros(width)
        row[[index, part]] = 1, -1
        rows.append((row, 0.0))
    last = np.zeros(width)
    last[list(parts)], last[index] = 1, -1
    return [*rows, (last, len(parts) - 1.0)]
