"""The loop of plan and measurement: cut nets are measured untrained until one lies just within the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
class Tried:
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


def fit_to_budget(problem: Problem, nets: Sequence[MeasuredNet], goal: Goal, measure: Measure) -> list[Tried]:
    """Plan, measure, correct, plan again: every plan that was tried, in order.

    After each measurement the correction is learned anew from it too, what it was still off by is expected of the next
    plan, and a plan that was tried is ruled out. It ends with a net within ACCEPTED, when no plan of less loss than the
    best one that fits is predicted to be within the budget, or after TRIES.

    Raises:
        InfeasibleBudget: proven by the predictions that no widths meet the budget, before anything was measured.
    """
    tried, aim_ms = list[Tried](), goal.first_aim * goal.budget_ms
    while len(tried) < TRIES:
        choice = _choose(problem, aim_ms, tried)
        if choice is None:
            break
        measured_ms = measure(choice)
        tried.append(Tried(choice, measured_ms, measured_ms / goal.budget_ms))
        if tried[-1].fits and tried[-1].share >= ACCEPTED[0]:
            break
        problem = _correct(problem, nets, tried)
        aim_ms = AIM * goal.budget_ms * predict_ms(problem, choice.widths) / measured_ms
    return tried


def say_next(share: float) -> str:
    """What follows from a net that takes this share of the budget, for people; nothing where it is accepted."""
    if share > ACCEPTED[1]:
        return "; that is too slow: planning again"
    return "; room is left: looking for a plan of less loss" if share < ACCEPTED[0] else ""


def choose_fitting(tried: Sequence[Tried]) -> Tried:
    """The plan of least loss whose net is within the budget; the fastest where none is."""
    fitting = [one for one in tried if one.fits]
    if fitting:
        return min(fitting, key=lambda one: one.choice.loss_increase)
    return min(tried, key=lambda one: one.share)


def _choose(problem: Problem, aim_ms: float, tried: Sequence[Tried]) -> Choice | None:
    """The best plan not yet tried; None where none is better than the best that fits."""
    try:
        choice = choose_widths(problem, aim_ms, [one.choice.widths for one in tried])
    except InfeasibleBudget:
        if not tried:
            raise
        return None
    best = choose_fitting(tried) if tried else None
    return None if best and best.fits and choice.loss_increase >= best.choice.loss_increase else choice


def _correct(problem: Problem, nets: Sequence[MeasuredNet], tried: Sequence[Tried]) -> Problem:
    if not nets or problem.table is None:
        return problem
    found = [describe_net(problem.table, problem.layers, one.choice.widths, one.measured_ms) for one in tried]
    return replace(problem, correction=fit_correction([*nets, *found * WEIGHT]))
