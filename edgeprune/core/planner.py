"""The planner: widths that minimise the predicted rise of the loss within a latency budget, proven.

A layer's latency depends on its input and output channels together, so the choice is a multiple-choice knapsack
with pairs. It is solved exactly as a mixed-integer program (HiGHS through `scipy.optimize.milp`): a binary for
each group and width; for each layer a weight for each combination of its groups' widths, tied to the binaries by
its marginals, which makes it the indicator of the chosen combination. A layer fed by a concatenation of many groups
follows its total input channels as an exact piecewise-linear function instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from edgeprune.core.candidates import input_knots, is_joint, joint_choices, output_choices, shape_at_knot
from edgeprune.core.latency import Correction, LatencyTable
from edgeprune.core.layers import Layer, LayerShape
from edgeprune.errors import InfeasibleBudget, PlanError

RELATIVE_GAP = 1e-3
TIE = 1e-6
"""Weight of width in the objective, as a share of the largest loss: ties go to the wider layer."""
SECONDS = 60.0


@dataclass(frozen=True)
class Problem:
    """What to choose from: `loss[group][width]` is the predicted rise of the loss (>= 0, 0 at full width)."""

    layers: tuple[Layer, ...]
    loss: Mapping[str, Mapping[int, float]]
    table: LatencyTable
    correction: Correction = Correction()

    @property
    def widths(self) -> dict[str, list[int]]:
        """Widths on offer by group, ascending."""
        return {group: sorted(costs) for group, costs in self.loss.items()}

    def price_ms(self, shape: LayerShape) -> float:
        """What a layer adds to the net's latency."""
        return self.correction.layer_ms(shape, self.table.predict(shape).latency_ms)


@dataclass(frozen=True)
class Choice:
    """The chosen widths with what they are predicted to cost; `gap` is the proven relative distance to the optimum."""

    widths: dict[str, int]
    loss_increase: float
    latency_ms: float
    gap: float


def choose_widths(problem: Problem, budget_ms: float) -> Choice:
    """The widths of least predicted loss whose predicted latency is within `budget_ms`.

    Raises:
        InfeasibleBudget: proven that no widths meet the budget; names the lowest latency that can be reached.
        PlanError: a layer depends on its groups in a way that cannot be planned, or no solution in time.
    """
    found = _solve(problem, _build_program(problem), budget_ms)
    if found is None:
        fastest = find_fastest(problem)
        raise InfeasibleBudget(
            f"no widths meet {budget_ms:.4g} ms: the narrowest choice is predicted at {fastest.latency_ms:.4g} ms; "
            "raise --latency-ms (or lower --speedup), or allow narrower widths"
        )
    return found


def _solve(problem: Problem, program: _Program, budget_ms: float) -> Choice | None:
    """The optimum; None when the budget is proven infeasible."""
    limit = budget_ms - problem.correction.offset_ms
    solved = program.minimise(program.loss, program.latency, limit)
    return None if solved is None else _choice(problem, program, *solved)


def trace_front(problem: Problem, count: int) -> list[Choice]:
    """The best choices at `count` budgets, evenly from the whole net's latency down to the lowest that can be reached.

    Each is optimal for its budget; equal choices are given once. From slow and faithful to fast and lossy.
    """
    whole = predict_ms(problem, {group: widths[-1] for group, widths in problem.widths.items()})
    fastest = find_fastest(problem)
    budgets = np.linspace(whole, fastest.latency_ms, count)[:-1]
    program = _build_program(problem)
    found = [_solve(problem, program, float(budget)) for budget in budgets]
    front = [choice for choice in found if choice is not None]
    last = _solve(problem, program, fastest.latency_ms * (1 + RELATIVE_GAP)) or fastest
    return list({tuple(choice.widths.items()): choice for choice in (*front, last)}.values())


def find_fastest(problem: Problem) -> Choice:
    """The widths of least predicted latency, whatever they cost in loss."""
    program = _build_program(problem)
    solved = program.minimise(program.latency, program.latency, np.inf)
    if solved is None:
        raise PlanError("the planner found no widths at all; every group needs at least one width")
    return _choice(problem, program, *solved)


def predict_ms(problem: Problem, widths: Mapping[str, int]) -> float:
    """Predicted latency in ms of the net with these widths."""
    shapes = [layer.at(widths) for layer in problem.layers]
    return problem.table.predict_net(shapes, problem.correction).latency_ms


def _choice(problem: Problem, program: _Program, values: np.ndarray, gap: float) -> Choice:
    widths = program.read_widths(values)
    loss = sum(problem.loss[group][width] for group, width in widths.items())
    return Choice(widths, loss, predict_ms(problem, widths), gap)


class _Program:
    """Variables, constraints and the two cost vectors of a mixed-integer program under construction."""

    def __init__(self) -> None:
        self._loss: list[float] = []
        self._latency: list[float] = []
        self._binary: list[bool] = []
        self._rows: list[dict[int, float]] = []
        self._sides: list[tuple[float, float]] = []
        self.widths: dict[tuple[str, int], int] = {}

    @property
    def loss(self) -> np.ndarray:
        return np.array(self._loss)

    @property
    def latency(self) -> np.ndarray:
        return np.array(self._latency)

    def variable(self, loss: float = 0.0, latency: float = 0.0, binary: bool = False) -> int:
        self._loss.append(loss)
        self._latency.append(latency)
        self._binary.append(binary)
        return len(self._loss) - 1

    def require(self, row: dict[int, float], low: float, high: float) -> None:
        self._rows.append(row)
        self._sides.append((low, high))

    def minimise(self, cost: np.ndarray, latency: np.ndarray, limit: float) -> tuple[np.ndarray, float] | None:
        """Solve with the total latency at most `limit`; None when proven infeasible."""
        low, high = np.array(self._sides, dtype=float).T
        constraints = [LinearConstraint(self._matrix(), low, high)]
        if np.isfinite(limit):
            if limit <= 0:
                return None
            constraints.append(LinearConstraint(csr_array(latency[None, :] / limit), -np.inf, 1.0))
        found = milp(
            cost / (np.abs(cost).max() or 1.0),
            constraints=constraints,
            integrality=np.array(self._binary, dtype=int),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": RELATIVE_GAP, "time_limit": SECONDS},
        )
        if found.status == 2:
            return None
        if found.x is None:
            raise PlanError(
                f"the planner gave up after {SECONDS:g} s: {found.message}; use fewer widths (a larger step)"
            )
        return found.x, float(found.mip_gap or 0.0)

    def _matrix(self) -> csr_array:
        entries = [(row, column, value) for row, terms in enumerate(self._rows) for column, value in terms.items()]
        rows, columns, values = zip(*entries, strict=True)
        return csr_array((values, (rows, columns)), shape=(len(self._rows), len(self._loss)))

    def read_widths(self, values: np.ndarray) -> dict[str, int]:
        return {group: width for (group, width), index in self.widths.items() if values[index] > 0.5}


def _build_program(problem: Problem) -> _Program:
    program = _Program()
    largest = max((max(costs.values()) for costs in problem.loss.values()), default=0.0) or 1.0
    for group, costs in problem.loss.items():
        for width, loss in costs.items():
            tie = TIE * largest * (1 - width / max(costs))
            program.widths[group, width] = program.variable(loss=loss + tie, binary=True)
        program.require({program.widths[group, width]: 1.0 for width in costs}, 1, 1)
    fixed = {group: widths[0] for group, widths in problem.widths.items() if len(widths) == 1}
    for layer in problem.layers:
        _add_layer(program, problem, layer.bind(fixed))
    return program


def _add_layer(program: _Program, problem: Problem, layer: Layer) -> None:
    missing = sorted(layer.depends_on - problem.widths.keys())
    if missing:
        raise PlanError(f"layer {layer.name!r} depends on group {missing[0]!r}, which has no widths to choose from")
    if is_joint(layer, problem.widths):
        _add_joint(program, problem, layer)
    else:
        _add_piecewise(program, problem, layer)


def _add_joint(program: _Program, problem: Problem, layer: Layer) -> None:
    """One weight for each combination of widths; its marginals are the groups' binaries."""
    marginals: dict[int, dict[int, float]] = {}
    for chosen in joint_choices(layer, problem.widths):
        weight = program.variable(latency=problem.price_ms(layer.at(chosen)))
        if not chosen:
            program.require({weight: 1.0}, 1, 1)
        for item in chosen.items():
            marginals.setdefault(program.widths[item], {})[weight] = 1.0
    for binary, weights in marginals.items():
        program.require({**weights, binary: -1.0}, 0, 0)


def _add_piecewise(program: _Program, problem: Problem, layer: Layer) -> None:
    """Latency over the total input channels, for each width of the one group on the output side."""
    sides = layer.cout.groups | layer.groups.groups
    linear = all(len(names) == 1 for _, names in layer.cin.terms)
    if len(sides) > 1 or not linear or sides & layer.cin.groups:
        raise PlanError(
            f"layer {layer.name!r} depends on too many groups at once: {', '.join(sorted(layer.depends_on))}"
        )
    knots = input_knots(layer, problem.widths)
    segments = [program.variable(binary=True) for _ in pairwise(knots)]
    program.require(dict.fromkeys(segments, 1.0), 1, 1)
    total = {
        program.widths[group, width]: -float(factor * width)
        for factor, (group,) in layer.cin.terms
        for width in problem.widths[group]
    }
    by_knot: list[dict[int, float]] = [{} for _ in knots]
    for output in output_choices(layer, problem.widths):
        for weight, knot, weights in zip(_add_knots(program, problem, layer, output), knots, by_knot, strict=True):
            total[weight] = float(knot)
            weights[weight] = 1.0
    for index, weights in enumerate(by_knot):
        beside = [segments[near] for near in (index - 1, index) if 0 <= near < len(segments)]
        program.require({**weights, **dict.fromkeys(beside, -1.0)}, -np.inf, 0)
    program.require(total, layer.cin.constant, layer.cin.constant)


def _add_knots(program: _Program, problem: Problem, layer: Layer, output: Mapping[str, int]) -> list[int]:
    """One weight for each knot; they sum to one where this output width is the chosen one."""
    shapes = [shape_at_knot(layer, knot, output) for knot in input_knots(layer, problem.widths)]
    weights = [program.variable(latency=problem.price_ms(shape)) for shape in shapes]
    chosen = {program.widths[item]: -1.0 for item in output.items()}
    total = 0.0 if chosen else 1.0
    program.require({**dict.fromkeys(weights, 1.0), **chosen}, total, total)
    return weights
