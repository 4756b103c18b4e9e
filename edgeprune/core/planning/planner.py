"""The planner: widths that minimise the predicted rise of the loss within a latency budget and other limits, proven.

A layer's latency depends on its input and output channels together, so the choice is a multiple-choice knapsack
with pairs. It is solved exactly as a mixed-integer program (HiGHS through `scipy.optimize.milp`): a binary for
each group and width; for each layer a weight for each combination of its groups' widths, tied to the binaries by
its marginals, which makes it the indicator of the chosen combination. A layer fed by a concatenation of many groups
follows its total input channels as an exact piecewise-linear function instead. Parameters, bytes of weights and
multiply-accumulates are sums over the same weights; a combination that needs too much memory has none. The memory of
an interpreter is a constraint for each step of the net: what is alive there fits. The arena that it lays out may be
larger than the most of these sums, so each plan is laid out as it does, and one that does not fit is ruled out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from math import prod
from typing import NoReturn

import numpy as np

from edgeprune.core.cost import say_cost, say_option
from edgeprune.core.latency.correction import Correction
from edgeprune.core.latency.layers import Extent, Layer, LayerShape
from edgeprune.core.latency.table import LatencyTable
from edgeprune.core.memory.arena import round_up
from edgeprune.core.memory.steps import drop_covered
from edgeprune.core.planning.candidates import input_knots, is_joint, joint_choices, output_choices, shape_at_knot
from edgeprune.core.planning.limits import (
    SIZES,
    SRAM,
    UNITS,
    Costs,
    Limits,
    allowed_widths,
    count_costs,
    count_layer,
)
from edgeprune.core.planning.program import LATENCY, RELATIVE_GAP, Price, Program
from edgeprune.errors import InfeasibleBudget, PlanError

TIE = 1e-6
"""Weight of width in the objective, as a share of the largest loss: ties go to the wider layer."""
FRAGMENTED = 20
"""Plans that are ruled out one by one as their laid-out arena does not fit; after that some memory is kept free."""
FREE_STEP = 1 / 64
"""How finely it is looked for how much of the memory has to be kept free."""


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
        beside = f" within {problem.limits.describe()}" if problem.limits.describe() else ""
        raise InfeasibleBudget(
            f"no widths meet {say_cost(budget_ms)}: the narrowest choice{beside} is predicted at "
            f"{say_cost(fastest.latency_ms)}; raise {say_option(fastest.latency_ms).partition(' ')[0]} (or lower "
            "--speedup), or allow narrower widths"
        )
    return choice


def _solve(problem: Problem, program: Program, budget_ms: float) -> Choice | None:
    """The optimum; None when the budget and the limits are proven infeasible."""
    return _minimise(problem, program, program.loss, budget_ms - problem.correction.offset_ms)


def _minimise(problem: Problem, program: Program, cost: np.ndarray, latency_ms: float) -> Choice | None:
    """The choice of least cost of its variables, with so much latency at most; None when proven infeasible.

    The solver lets a limit be exceeded by a millionth; a choice that does so is forbidden and another one sought. So is
    one whose activations do not fit once they are laid out, FRAGMENTED times; then the best of those with some memory
    kept free is taken, and its gap tells how far it may be from the optimum.
    """
    caps, tries = {**problem.limits.given, LATENCY: latency_ms}, 0
    while (solved := program.minimise(cost, caps)) is not None:
        choice = _choice(problem, program, *solved)
        is_within = not problem.limits.find_exceeded(_count(problem, choice.widths))
        if is_within and problem.limits.fits_arena(choice.widths):
            return choice
        _rule_out(problem, program, choice, is_within)
        tries += is_within
        if tries == FRAGMENTED:
            return _leave_free(problem, program, cost, caps, choice.loss_increase)
    return None


def _rule_out(problem: Problem, program: Program, choice: Choice, is_within: bool) -> None:
    """Rule out one choice; where only its laid-out arena does not fit, all that have the same arena."""
    arena = problem.limits.arena
    groups = arena.memory.groups if arena is not None and is_within else choice.widths.keys()
    program.forbid({group: width for group, width in choice.widths.items() if group in groups})


def _leave_free(
    problem: Problem, program: Program, cost: np.ndarray, caps: Mapping[str, float], proven: float
) -> Choice | None:
    """The best choice whose arena fits among the optima for so much of the memory, by bisection of how much is free.

    `proven` is the loss that none that fits can go below. What is None here was not proven infeasible.
    """
    best, too_little, enough = None, 0.0, 1.0
    while enough - too_little > FREE_STEP:
        share = (too_little + enough) / 2
        program.reserve(share)
        solved = program.minimise(cost, caps)
        choice = None if solved is None else _choice(problem, program, *solved)
        is_within = choice is not None and not problem.limits.find_exceeded(_count(problem, choice.widths))
        if choice is not None and not (is_within and problem.limits.fits_arena(choice.widths)):
            _rule_out(problem, program, choice, is_within)
            too_little = share
            continue
        enough = share
        if choice is not None and (best is None or choice.loss_increase < best.loss_increase):
            best = choice
    program.reserve(0.0)
    if best is None:
        return None
    gap = 1 - proven / best.loss_increase if best.loss_increase else 0.0
    return replace(best, gap=max(best.gap, gap))


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
    narrowest, arena = {group: widths[0] for group, widths in problem.widths.items()}, problem.limits.arena
    least = _count(problem, narrowest)
    for name in problem.limits.find_exceeded(least):
        raise InfeasibleBudget(
            f"no widths meet {problem.limits.given[name]:,} {UNITS[name]}: the narrowest choice has "
            f"{getattr(least, name):,}; raise this limit, or allow narrower widths"
        )
    if arena is not None and arena.find_excess(narrowest) > 0:
        count, least_count = arena.memory.count(narrowest), arena.memory.count_least(narrowest)
        proof = "" if count == least_count else f", and no layout of it takes less than {least_count:,}"
        raise InfeasibleBudget(
            f"no widths meet {arena.most_bytes:,} {SRAM}: the narrowest choice needs {count:,}{proof}; it is "
            f"{arena.describe_excess(narrowest)}; raise this limit, or allow narrower widths"
        )
    raise PlanError("the planner found no widths at all; every group needs at least one width")


def predict_ms(problem: Problem, widths: Mapping[str, int]) -> float:
    """Predicted latency in ms of the net with these widths; 0 without a table."""
    if problem.table is None:
        return 0.0
    shapes = [layer.at(widths) for layer in problem.layers]
    return problem.table.predict_net(shapes, problem.correction).latency_ms


def _choice(problem: Problem, program: Program, values: np.ndarray, gap: float) -> Choice:
    widths = program.read_widths(values)
    loss = sum(problem.loss[group][width] for group, width in widths.items())
    return Choice(widths, loss, predict_ms(problem, widths), gap)


def _build_program(problem: Problem) -> Program:
    program = Program()
    for group in problem.widths:
        _add_group(program, problem, group)
    fixed = {group: widths[0] for group, widths in problem.widths.items() if len(widths) == 1}
    for layer in problem.layers:
        _add_layer(program, problem, layer.bind(fixed))
    widest = {group: widths[-1] for group, widths in problem.widths.items()}
    _limit_arena(program, problem, fixed)
    program.charge_beyond(problem.correction, sum(layer.at(widest).megavalues for layer in problem.layers))
    return program


def _add_group(program: Program, problem: Problem, group: str) -> None:
    """A binary for each width of a group, exactly one of them chosen."""
    widths, loss = problem.widths[group], problem.loss[group]
    for width in widths:
        tie = TIE * problem.largest_loss * (1 - width / max(loss))
        program.widths[group, width] = program.variable(loss[width] + tie, binary=True)
    program.require_equal({program.widths[group, width]: 1.0 for width in widths}, 1)


def _add_layer(program: Program, problem: Problem, layer: Layer) -> None:
    missing = sorted(layer.depends_on - problem.widths.keys())
    if missing:
        raise PlanError(f"layer {layer.name!r} depends on group {missing[0]!r}, which has no widths to choose from")
    if is_joint(layer, problem.widths):
        _add_joint(program, problem, layer)
    else:
        _add_piecewise(program, problem, layer)


def _weigh(program: Program, problem: Problem, layer: Layer, shape: LayerShape) -> int | None:
    """A weight for the layer at a shape; None where it would need too much memory."""
    costs, most = count_layer(layer, shape, problem.limits.precision), problem.limits.activation_bytes
    needs_too_much = most is not None and costs.activation_bytes > most
    return None if needs_too_much else program.variable(price=problem.price(shape), costs=costs)


def _add_joint(program: Program, problem: Problem, layer: Layer) -> None:
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


def _add_piecewise(program: Program, problem: Problem, layer: Layer) -> None:
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


def _add_knots(program: Program, problem: Problem, layer: Layer, output: Mapping[str, int]) -> list[int]:
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


def _sum_inputs(program: Program, problem: Problem, layer: Layer) -> dict[int, float]:
    """What each width of each group adds to the layer's input channels, by binary."""
    return {
        program.widths[group, width]: float(factor * width)
        for factor, (group,) in layer.cin.terms
        for width in problem.widths[group]
    }


def _limit_arena(program: Program, problem: Problem, fixed: Mapping[str, int]) -> None:
    """What is alive at each step, with what the interpreter needs beside it, fits into the memory."""
    arena = problem.limits.arena
    if arena is None:
        return
    overhead, most = (
        _weigh_bytes(program, problem, arena.memory.overhead_bytes.bind(fixed), exact=True),
        arena.most_bytes,
    )
    rows = {tensor: _weigh_bytes(program, problem, tensor.size_bytes.bind(fixed)) for tensor in arena.memory.tensors}
    for alive in drop_covered(arena.memory.alive):
        parts = [overhead, *(rows[tensor] for tensor in alive)]
        row, always = dict[int, float](), sum(constant for _, constant in parts)
        for part, _ in parts:
            for variable, size in part.items():
                row[variable] = row.get(variable, 0.0) + size / most
        program.require_at_most({**row, program.reserved(): 1.0}, (most - always) / most)


def _weigh_bytes(program: Program, problem: Problem, size: Extent, exact: bool = False) -> tuple[dict[int, float], int]:
    """A size in bytes as a sum over variables and a constant, aligned as an arena does (`exact`: not at all).

    A sum over several groups is left as it is, which is at most the aligned size.
    """
    groups, is_sum = sorted(size.groups), all(len(names) == 1 for _, names in size.terms)
    whole = (lambda value: value) if exact or (len(groups) > 1 and is_sum) else round_up
    if not groups:
        return {}, whole(size.constant)
    if len(groups) == 1:
        (group,) = groups
        return {
            program.widths[group, width]: float(whole(size.at({group: width}))) for width in problem.widths[group]
        }, 0
    if is_sum:
        row = dict[int, float]()
        for factor, (group,) in size.terms:
            for width in problem.widths[group]:
                binary = program.widths[group, width]
                row[binary] = row.get(binary, 0.0) + factor * width
        return row, size.constant
    weights = _add_combinations(program, problem, groups)
    return {weight: float(whole(size.at(chosen))) for weight, chosen in weights.items()}, 0


def _add_combinations(program: Program, problem: Problem, groups: Sequence[str]) -> dict[int, dict[str, int]]:
    """A weight for each combination of widths of some groups, which is the indicator of the chosen one."""
    offered = [problem.widths[group] for group in groups]
    weights = {program.variable(): dict(zip(groups, widths, strict=True)) for widths in product(*offered)}
    for group in groups:
        for width in problem.widths[group]:
            own = {weight: 1.0 for weight, chosen in weights.items() if chosen[group] == width}
            program.require_equal({**own, program.widths[group, width]: -1.0}, 0)
    return weights


def _limit_activations(program: Program, problem: Problem, layer: Layer) -> None:
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
