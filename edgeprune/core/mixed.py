"""Mixed precision: which layers of an int8 net stay in float, chosen exactly.

The noise that each layer's quantization adds to the output is measured; noises of single layers add up. What layers
cost in float and in int8, and what a layer and one that reads it cost together beside that (a conversion where their
precisions differ), is known too. The cheapest choice within limits on the noise and on the cost is a small
mixed-integer program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp

from edgeprune.errors import ExportError

LARGEST = 1e4
"""What the largest cost is scaled to, so that the solver's absolute gap of 1e-6 is far below a tie."""
TIE = 1e-2
"""Cost of a float layer on that scale: ties go to int8."""
INFEASIBLE = 2
"""How the solver says that there is no choice within the limits."""

PairCosts = tuple[tuple[float, float], tuple[float, float]]
"""By whether the first and the second layer stay in float: `costs[first][second]`."""


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer, the noise power that its quantization adds to the output, and what it costs in float and in int8."""

    name: str
    noise: float
    float_cost: float = 0.0
    int8_cost: float = 0.0


@dataclass(frozen=True)
class Link:
    """Two layers by their place, the second reading from the first, and what the pair costs beside what each costs."""

    first: int
    second: int
    costs: PairCosts


@dataclass(frozen=True)
class MixedProblem:
    """Layers in order and their links; no choice may cost more than `budget`."""

    layers: tuple[QuantizedLayer, ...]
    links: tuple[Link, ...]
    budget: float = inf

    def cost(self, floats: Sequence[bool]) -> float:
        """What a choice costs; `floats` says for each layer whether it stays in float."""
        chosen = zip(self.layers, floats, strict=True)
        layers = sum(layer.float_cost if in_float else layer.int8_cost for layer, in_float in chosen)
        return layers + sum(link.costs[floats[link.first]][floats[link.second]] for link in self.links)

    def noise(self, floats: Sequence[bool]) -> float:
        """Noise power at the output."""
        return sum(layer.noise for layer, chosen in zip(self.layers, floats, strict=True) if not chosen)


def choose_floats(problem: MixedProblem, noise: float) -> tuple[bool, ...] | None:
    """The cheapest choice of layers that stay in float with so much noise at most, proven; ties go to int8.

    None where no choice with so little noise is within the budget, proven too.

    Raises:
        ExportError: the solver gave up.
    """
    solved = _solve(problem, noise)
    if solved.status == INFEASIBLE:
        return None
    if solved.x is None:
        raise ExportError(f"mixed precision: no choice of float layers: {solved.message}")
    return tuple(bool(value > 0.5) for value in solved.x[: len(problem.layers)])


def _solve(problem: MixedProblem, noise: float) -> OptimizeResult:
    """Variables: for each layer whether it is in float, for each link whether both are."""
    count, links = len(problem.layers), problem.links
    costs, base = _linearise(problem)
    scale = LARGEST / (np.abs(costs).max() or 1.0)
    ties = np.array([TIE] * count + [0.0] * len(links))
    both = np.zeros((3 * len(links), count + len(links)))
    for row, link in enumerate(links):
        both[3 * row, [count + row, link.first]] = 1, -1
        both[3 * row + 1, [count + row, link.second]] = 1, -1
        both[3 * row + 2, [link.first, link.second, count + row]] = 1, 1, -1
    noises = np.array([layer.noise for layer in problem.layers])
    loudest = float(noises.max()) or 1.0
    kept = np.concatenate([noises / loudest, np.zeros(len(links))])[None]
    limits = [
        LinearConstraint(both, ub=np.array([0.0, 0.0, 1.0] * len(links))),
        LinearConstraint(kept, lb=(noises.sum() - noise) / loudest),
    ]
    if isfinite(problem.budget):
        limits.append(LinearConstraint(costs[None] * scale, ub=(problem.budget - base) * scale))
    return milp(
        costs * scale + ties,
        constraints=limits,
        integrality=np.array([1] * count + [0] * len(links)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )


def _linearise(problem: MixedProblem) -> tuple[np.ndarray, float]:
    """What each variable adds to the cost, and the cost of all in int8."""
    costs = np.zeros(len(problem.layers) + len(problem.links))
    for index, layer in enumerate(problem.layers):
        costs[index] = layer.float_cost - layer.int8_cost
    for index, link in enumerate(problem.links, len(problem.layers)):
        (none, second), (first, both) = link.costs
        costs[link.first] += first - none
        costs[link.second] += second - none
        costs[index] = both - first - second + none
    return costs, problem.cost([False] * len(problem.layers))
