"""The loop of plan and measurement: cut nets are measured untrained until one lies just within the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgeprune.core.cost import MS, find_cost_unit
from edgeprune.core.latency.correction import MeasuredNet, fit_correction
from edgeprune.core.latency.table import describe_net
from edgeprune.core.planning.planner import Choice, Problem, choose_widths, predict_ms
from edgeprune.errors import InfeasibleBudget

AIM = 0.965
"""Plans aim at this share of the budget, so that the measuring noise does not decide."""
ACCEPTED = (0.94, 0.985)
"""A net measured within these shares of the budget is accepted as it is; what is left to it is what a measurement of
another session may differ by."""
TRIES = 8
WEIGHT = 3
"""A net measured near the budget counts so many times as one of random widths."""

Measure = Callable[[Choice], float]
"""Latency in ms of a net of the chosen widths, comparable with those that the correction was learned from."""


@dataclass(frozen=True)
class Trial:
    """A plan and what its net took: `share` of the budget, measured."""

    choice: Choice
    measured_ms: float
    share: float

    @property
    def fits(self) -> bool:
        """Whether it is within the budget, with room for noise."""
        return self.share <= ACCEPTED[1]


@dataclass(frozen=True)
class Goal:
    """The budget in ms, and the share of it that the first plan aims at."""

    budget_ms: float
    first_aim: float = AIM


def fit_to_budget(problem: Problem, nets: Sequence[MeasuredNet], goal: Goal, measure: Measure) -> list[Trial]:
    """Plan, measure, correct, plan again: every plan that was tried, in order.

    After each measurement the correction is learned anew from it too, what it was still off by is expected of the next
    plan, and a plan that was tried is ruled out. It ends with a net within ACCEPTED, when no plan of less loss than the
    best one that fits is predicted to be within the budget, or after TRIES.

    Raises:
        InfeasibleBudget: proven by the predictions that no widths meet the budget, before anything was measured.
    """
    trials, aim_ms = list[Trial](), goal.first_aim * goal.budget_ms
    while len(trials) < TRIES:
        choice = _choose(problem, aim_ms, trials)
        if choice is None:
            break
        measured_ms = measure(choice)
        trials.append(Trial(choice, measured_ms, measured_ms / goal.budget_ms))
        if trials[-1].fits and trials[-1].share >= ACCEPTED[0]:
            break
        problem, aim_ms = recreate_goal(problem, nets, goal, trials)
    return trials


def recreate_goal(
    problem: Problem, nets: Sequence[MeasuredNet], goal: Goal, trials: Sequence[Trial]
) -> tuple[Problem, float]:
    """What the plan was made by that was tried after these, in ms: the problem as corrected then, and its cap."""
    if not trials:
        return problem, goal.first_aim * goal.budget_ms
    corrected, last = _correct(problem, nets, trials), trials[-1]
    return corrected, AIM * goal.budget_ms * predict_ms(corrected, last.choice.widths) / last.measured_ms


def say_next(share: float) -> str:
    """What follows from a net that takes this share of the budget, for people; nothing where it is accepted."""
    if share > ACCEPTED[1]:
        return f"; that is too {'slow' if find_cost_unit() == MS else 'many'}: planning again"
    return "; room is left: looking for a plan of less loss" if share < ACCEPTED[0] else ""


def choose_fitting(trials: Sequence[Trial]) -> Trial:
    """The plan of least loss whose net is within the budget; the fastest where none is."""
    fitting = [trial for trial in trials if trial.fits]
    if fitting:
        return min(fitting, key=lambda trial: trial.choice.loss_increase)
    return min(trials, key=lambda trial: trial.share)


def _choose(problem: Problem, aim_ms: float, trials: Sequence[Trial]) -> Choice | None:
    """The best plan not yet tried; None where none is better than the best that fits."""
    try:
        choice = choose_widths(problem, aim_ms, [trial.choice.widths for trial in trials])
    except InfeasibleBudget:
        if not trials:
            raise
        return None
    best = choose_fitting(trials) if trials else None
    return None if best and best.fits and choice.loss_increase >= best.choice.loss_increase else choice


def _correct(problem: Problem, nets: Sequence[MeasuredNet], trials: Sequence[Trial]) -> Problem:
    if not nets or problem.table is None:
        return problem
    trial_nets = [
        describe_net(problem.table, problem.layers, trial.choice.widths, trial.measured_ms) for trial in trials
    ]
    return replace(problem, correction=fit_correction([*nets, *trial_nets * WEIGHT]))
