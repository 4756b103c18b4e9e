"""Mixed precision: which layers of an int8 net stay in float, chosen exactly.

The noise that each layer's quantization adds to the output is measured; noises of single layers add up. What a layer
costs more in float is known from latency tables, and each place where float and int8 meet costs a conversion. The
cheapest choice within a limit on the noise is a small mixed-integer program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from edgeprune.errors import ExportError

LARGEST = 1e4
"""What the largest cost is scaled to, so that the solver's absolute gap of 1e-6 is far below a tie."""
TIE = 1e-2
"""Cost of a float layer on that scale: ties go to int8."""


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer, the noise power that its quantization adds to the output, and what it costs more in float.

    `cost` is below 0 for a layer that is faster in float.
    """

    name: str
    noise: float
    cost: float = 0.0


@dataclass(frozen=True)
class MixedProblem:
    """Layers in order, the pairs of them that read from each other, and what a conversion between two costs."""

    layers: tuple[QuantizedLayer, ...]
    links: tuple[tuple[int, int], ...]
    conversion: float = 1.0

    def cost(self, floats: Sequence[bool]) -> float:
        """What a choice costs more than all in int8; `floats` says for each layer whether it stays in float."""
        layers = sum(layer.cost for layer, chosen in zip(self.layers, floats, strict=True) if chosen)
        return layers + self.conversion * sum(floats[one] != floats[other] for one, other in self.links)

    def noise(self, floats: Sequence[bool]) -> float:
        """Noise power at the output."""
        return sum(layer.noise for layer, chosen in zip(self.layers, floats, strict=True) if not chosen)


def choose_floats(problem: MixedProblem, noise: float) -> tuple[bool, ...]:
    """The cheapest choice of layers that stay in float with so much noise at most, proven; ties go to int8.

    Raises:
        ExportError: the solver gave up.
    """
    count, links = len(problem.layers), problem.links
    largest = max(problem.conversion, *(abs(layer.cost) for layer in problem.layers)) or 1.0
    scale = LARGEST / largest
    costs = [layer.cost * scale + TIE for layer in problem.layers] + [problem.conversion * scale] * len(links)
    differ = np.zeros((2 * len(links), count + len(links)))
    for row, (one, other) in enumerate(links):
        for side, sign in enumerate((1, -1)):
            differ[2 * row + side, [one, other, count + row]] = sign, -sign, -1
    noises = np.array([layer.noise for layer in problem.layers])
    loudest = float(noises.max()) or 1.0
    kept = np.concatenate([noises / loudest, np.zeros(len(links))])[None]
    solved = milp(
        costs,
        constraints=[
            LinearConstraint(differ, ub=0.0),
            LinearConstraint(kept, lb=(noises.sum() - noise) / loudest),
        ],
        integrality=np.array([1] * count + [0] * len(links)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if solved.x is None:
        raise ExportError(f"mixed precision: no choice of float layers: {solved.message}")
    return tuple(bool(value > 0.5) for value in solved.x[:count])
