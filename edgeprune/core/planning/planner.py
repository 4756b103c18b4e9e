"""The planner: widths that minimise the predicted rise of the loss within a latency budget and other limits, proven.

A layer's latency depends on its input and output channels together, so the choice is a multiple-choice knapsack
with pairs. It is solved exactly as a mixed-integer program (HiGHS through `scipy.optimize.milp`): a binary for
each group and width; for each layer a weight for each combination of its groups' widths, tied to the binaries by
its marginals, which makes it the indicator of the chosen combination. A layer fed by a concatenation of many groups
follows its total input channels as an exact piecewise-linear function instead. Parameters, bytes of weights and
multiply-accumulates are sums over the same weights; a combination that needs too much memory has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import NoReturn

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from edgeprune.core.latency.correction import Correction
from edgeprune.core.latency.layers import Layer, LayerShape
from edgeprune.core.latency.table import LatencyTable
from edgeprune.core.planning.candidates import input_knots, is_joint, joint_choices, output_choices, shape_at_knot
from edgeprune.core.planning.limits import SIZES, TOTALS, UNITS, Costs, Limits, allowed_widths, count_costs, count_layer
from edgeprune.errors import InfeasibleBudget, PlanError

LATENCY, MEGAVALUES = "latency", "megavalues"
NOTHING = Costs()
RELATIVE_GAP = 1e-3
TIE = 1e-6
"""Weight of width in the objective, as a share of the largest loss: ties go to the wider layer."""
SECONDS = 60.0
INFEASIBLE = 2
"""The status with which `milp` says that no values meet the constraints."""


@dataclass(frozen=True)
class Price:
    """What a layer adds to a net's latency in ms, and to the values that it moves, in millions."""

    latency_ms: float = 0.0
    megavalues: float = 0.0


FREE = Price()


@dataclass(frozen=True)
class Problem:
    """What to choose from: `loss[group][width]` is the predicted rise of the loss (>= 0, 0 at full width).

    Without a table latency does not matter, and a plan is made within the other limits alone.
    """

    layers: tuple[Layer, ...]
    loss: Mapping[str, Mapping[int, float]]
    table: LatencyTable | None = None
    correction: Correction = Correction()
    limits: Limits = Limits()

    @cached_property
    def widths(self) -> dict[str, list[int]]:
        """Widths to choose from by group, ascending.

        Raises:
            PlanError: the limits name an unknown group, or leave no width of one.
        """
        return allowed_widths(self.loss, self.limits)

    @cached_property
    def largest_loss(self) -> float:
        """The largest predicted rise of the loss on offer, 1 where none rises."""
        return max((max(losses.values()) for losses in self.loss.values()), default=0.0) or 1.0

    def price(self, shape: LayerShape) -> Price:
        """What a layer adds to the net's latency, and to what it moves."""
        latency_ms = 0.0 if self.table is None else self.table.price_ms(shape, self.correction)
        return Price(latency_ms, shape.megavalues)


@dataclass(frozen=True)
class Choice:
    """The chosen widths with what they are predicted to cost; `gap` is the proven relative distance to the optimum."""

    widths: dict[str, int]
    loss_increase: float
    latency_ms: float
    gap: float


def choose_widths(problem: Problem, budget_ms: float, forbidden: Iterable[Mapping[str, int]] = ()) -> Choice:
    """The widths of least predicted loss within `budget_ms` of predicted latency (infinite: any) and the limits.

    None of the `forbidden` choices is given.

    Raises:
        InfeasibleBudget: proven that no widths meet the budget and the limits; names the one and its best figure.
        PlanError: a layer depends on its groups in a way that cannot be planned, or no solution in time.
    """
    program = _build_program(problem)
    for widths in forbidden:
        program.forbid(widths)
    choice = _solve(problem, program, budget_ms)
    if choice is None:
        fastest = find_fastest(problem)
        beside = " within " + _list_limits(problem.limits) if problem.limits.given else ""
        raise InfeasibleBudget(
            f"no widths meet {budget_ms:.4g} ms: the narrowest choice{beside} is predicted at "
            f"{fastest.latency_ms:.4g} ms; raise --latency-ms (or lower --speedup), or allow narrower widths"
        )
    return choice


def _list_limits(limits: Limits) -> str:
    return ", ".join(f"{limit:,} {UNITS[name]}" for name, limit in limits.given.items())


def _solve(problem: Problem, program: _Program, budget_ms: float) -> Choice | None:
    """The optimum; None when the budget and the limits are proven infeasible."""
    return _minimise(problem, program, program.loss, budget_ms - problem.correction.offset_ms)


def _minimise(problem: Problem, program: _Program, cost: np.ndarray, latency_ms: float) -> Choice | None:
    """The choice of least cost of its variables, with so much latency at most; None when proven infeasible.

    The solver lets a limit be exceeded by a millionth; a choice that does so is forbidden and another one sought.
    """
    caps = {**problem.limits.given, LATENCY: latency_ms}
    while (solved := program.minimise(cost, caps)) is not None:
        choice = _choice(problem, program, *solved)
        if not problem.limits.find_exceeded(_count(problem, choice.widths)):
            return choice
        program.forbid(choice.widths)
    return None


def _count(problem: Problem, widths: Mapping[str, int]) -> Costs:
    return count_costs(problem.layers, widths, problem.limits.precision)


def trace_front(problem: Problem, count: int) -> list[Choice]:
    """The best choices at `count` budgets, evenly from the whole net's latency down to the lowest that can be reached.

    Each is optimal for its budget; equal choices are given once. From slow and faithful to fast and lossy.
    """
    whole = predict_ms(problem, {group: widths[-1] for group, widths in problem.widths.items()})
    fastest = find_fastest(problem)
    budgets = np.linspace(whole, fastest.latency_ms, count)[:-1]
    program = _build_program(problem)
    solved = [_solve(problem, program, float(budget)) for budget in budgets]
    front = [choice for choice in solved if choice is not None]
    last = _solve(problem, program, fastest.latency_ms * (1 + RELATIVE_GAP)) or fastest
    by_widths = {tuple(choice.widths.items()): choice for choice in (*front, last)}
    return list(by_widths.values())


def find_fastest(problem: Problem) -> Choice:
    """The widths of least predicted latency within the limits, whatever they cost in loss.

    Raises:
        InfeasibleBudget: proven that no widths meet the limits; names the first that none meet and its best figure.
    """
    program = _build_program(problem)
    fastest = _minimise(problem, program, program.latency, np.inf)
    if fastest is None:
        _refuse(problem)
    return fastest


def _refuse(problem: Problem) -> NoReturn:
    """Name a limit that no widths meet: all that is limited grows with every width, so the narrowest net settles it."""
    least = _count(problem, {group: widths[0] for group, widths in problem.widths.items()})
    for name in problem.limits.find_exceeded(least):
        raise InfeasibleBudget(
            f"no widths meet {problem.limits.given[name]:,} {UNITS[name]}: the narrowest choice has "
            f"{getattr(least, name):,}; raise this limit, or allow narrower widths"
        )
    raise PlanError("the planner found no widths at all; every group needs at least one width")


def predict_ms(problem: Problem, widths: Mapping[str, int]) -> float:
    """Predicted latency in ms of the net with these widths; 0 without a table."""
    if problem.table is None:
        return 0.0
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
        self._sums: dict[str, list[float]] = {name: [] for name in (LATENCY, MEGAVALUES, *TOTALS)}
        self._binary: list[bool] = []
        self._rows: list[dict[int, float]] = []
        self._sides: list[tuple[float, float]] = []
        self.widths: dict[tuple[str, int], int] = {}

    @property
    def loss(self) -> np.ndarray:
        return np.array(self._loss)

    @property
    def latency(self) -> np.ndarray:
        return np.array(self._sums[LATENCY])

    def variable(self, loss: float = 0.0, price: Price = FREE, costs: Costs = NOTHING, binary: bool = False) -> int:
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
        return {group: width for (group, width), index in self.widths.items() if values[index] > 0.5}


def _build_program(problem: Problem) -> _Program:
    program = _Program()
    for group in problem.widths:
        _add_group(program, problem, group)
    fixed = {group: widths[0] for group, widths in problem.widths.items() if len(widths) == 1}
    for layer in problem.layers:
        _add_layer(program, problem, layer.bind(fixed))
    widest = {group: widths[-1] for group, widths in problem.widths.items()}
    program.charge_beyond(problem.correction, sum(layer.at(widest).megavalues for layer in problem.layers))
    return program


def _add_group(program: _Program, problem: Problem, group: str) -> None:
    """A binary for each width of a group, exactly one of them chosen."""
    widths, loss = problem.widths[group], problem.loss[group]
    for width in widths:
        tie = TIE * problem.largest_loss * (1 - width / max(loss))
        program.widths[group, width] = program.variable(loss[width] + tie, binary=True)
    program.require_equal({program.widths[group, width]: 1.0 for width in widths}, 1)


def _add_layer(program: _Program, problem: Problem, layer: Layer) -> None:
    missing = sorted(layer.depends_on - problem.widths.keys())
    if missing:
        raise PlanError(f"layer {layer.name!r} depends on group {missing[0]!r}, which has no widths to choose from")
    if is_joint(layer, problem.widths):
        _add_joint(program, problem, layer)
    else:
        _add_piecewise(program, problem, layer)


def _weigh(program: _Program, problem: Problem, layer: Layer, shape: LayerShape) -> int | None:
    """A weight for the layer at a shape; None where it would need too much memory."""
    costs, most = count_layer(layer, shape, problem.limits.precision), problem.limits.activation_bytes
    needs_too_much = most is not None and costs.activation_bytes > most
    return None if needs_too_much else program.variable(price=problem.price(shape), costs=costs)


def _add_joint(program: _Program, problem: Problem, layer: Layer) -> None:
    """One weight for each combination of widths; its marginals are the groups' binaries."""
    groups = sorted(layer.depends_on)
    marginals: dict[int, dict[int, float]] = {
        program.widths[group, width]: {} for group in groups for width in problem.widths[group]
    }
    weights = {}
    for chosen in joint_choices(layer, problem.widths):
        weight = _weigh(program, problem, layer, layer.at(chosen))
        if weight is None:
            continue
        weights[weight] = 1.0
        for item in chosen.items():
            marginals[program.widths[item]][weight] = 1.0
    if not groups:
        program.require_equal(weights, 1)
    for binary, own in marginals.items():
        program.require_equal({**own, binary: -1.0}, 0)


def _add_piecewise(program: _Program, problem: Problem, layer: Layer) -> None:
    """Latency over the total input channels, for each width of the one group on the output side.

    One segment between two knots is chosen. Only the knots that it touches have weight, and the weighted mean of these
    knots is the total.
    """
    _check_piecewise(layer)
    knots = input_knots(layer, problem.widths)
    segments = [program.variable(binary=True) for _ in pairwise(knots)]
    program.require_equal(dict.fromkeys(segments, 1.0), 1)
    by_output = [_add_knots(program, problem, layer, output) for output in output_choices(layer, problem.widths)]
    by_knot = list(zip(*by_output, strict=True))
    for place, weights in enumerate(by_knot):
        touching = segments[max(place - 1, 0) : place + 1]
        program.require_at_most({**dict.fromkeys(weights, 1.0), **dict.fromkeys(touching, -1.0)}, 0)
    total = {weight: float(knot) for knot, weights in zip(knots, by_knot, strict=True) for weight in weights}
    inputs = _sum_inputs(program, problem, layer)
    program.require_equal({**total, **{binary: -width for binary, width in inputs.items()}}, layer.cin.constant)
    _limit_activations(program, problem, layer)


def _check_piecewise(layer: Layer) -> None:
    """Reject a layer whose input is no sum of widths, or whose output hangs on several groups or on its input's."""
    input_is_sum = all(len(groups) == 1 for _, groups in layer.cin.terms)
    sides_are_apart = not layer.sides & layer.cin.groups
    if len(layer.sides) > 1 or not input_is_sum or not sides_are_apart:
        raise PlanError(
            f"layer {layer.name!r} depends on too many groups at once: {', '.join(sorted(layer.depends_on))}"
        )


def _add_knots(program: _Program, problem: Problem, layer: Layer, output: Mapping[str, int]) -> list[int]:
    """One weight for each knot; they sum to one where this output width is the chosen one, else to zero.

    A layer whose output no group decides over has but one output width, which is always the chosen one.
    """
    shapes = [shape_at_knot(layer, knot, output) for knot in input_knots(layer, problem.widths)]
    counted = [(shape, count_layer(layer, shape, problem.limits.precision)) for shape in shapes]
    weights = [program.variable(price=problem.price(shape), costs=costs) for shape, costs in counted]
    total = dict.fromkeys(weights, 1.0)
    if output:
        program.require_equal({**total, **{program.widths[item]: -1.0 for item in output.items()}}, 0)
    else:
        program.require_equal(total, 1)
    return weights


def _sum_inputs(program: _Program, problem: Problem, layer: Layer) -> dict[int, float]:
    """What each width of each group adds to the layer's input channels, by binary."""
    return {
        program.widths[group, width]: float(factor * width)
        for factor, (group,) in layer.cin.terms
        for width in problem.widths[group]
    }


def _limit_activations(program: _Program, problem: Problem, layer: Layer) -> None:
    """Input and output of a layer that is fed by many groups, as a sum over their widths."""
    most = problem.limits.activation_bytes
    if most is None:
        return
    shape, value_bytes = layer.shape, SIZES[problem.limits.precision].activation
    input_bytes, output_bytes = value_bytes * prod(shape.size), value_bytes * prod(shape.output_size)
    row = {binary: width * input_bytes for binary, width in _sum_inputs(program, problem, layer).items()}
    always = layer.cin.constant * input_bytes
    for output in output_choices(layer, problem.widths):
        bytes_out = layer.cout.at(output) * output_bytes
        if output:
            row |= {program.widths[item]: float(bytes_out) for item in output.items()}
        else:
            always += bytes_out
    program.require_at_most({binary: size / most for binary, size in row.items()}, (most - always) / most)
