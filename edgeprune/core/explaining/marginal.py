"""What would come back at one more step of the budget, and what would go at one less: the plan solved again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeprune.core.cost import say_cost
from edgeprune.core.explaining.curves import scale_limits
from edgeprune.core.planning.planner import Choice, Problem, choose_widths, predict_ms
from edgeprune.errors import InfeasibleBudget, PlanError

STEPS = (0.05, 0.1, 0.2)
"""Shares of the budget: the first that changes a width is taken. 5 % is what a gate is to notice, and more than two
sessions of one file lie apart on a quiet board."""
WHOLE_NET = "nothing comes back: the net is whole"


@dataclass(frozen=True)
class Change:
    """A group whose width is another one at the other budget."""

    group: str
    width: int
    other_width: int


@dataclass(frozen=True)
class Neighbour:
    """The plan at another budget: `share` more (below zero: less) of every limit, the plan was held to `cap_ms`.

    `predicted_ms` and `loss_increase` are None where no widths meet it, or no plan was found; then `note` says so.
    """

    share: float
    cap_ms: float
    predicted_ms: float | None = None
    loss_increase: float | None = None
    changes: tuple[Change, ...] = ()
    note: str = ""

    def width_of(self, group: str, width: int) -> int | None:
        """The width of a group there that has `width` in the plan; None where there is no plan."""
        if self.predicted_ms is None:
            return None
        return next((change.other_width for change in self.changes if change.group == group), width)


def find_more(problem: Problem, widths: Mapping[str, int], cap_ms: float) -> Neighbour:
    """The plan at a higher budget, where more than the one held to `cap_ms` comes back."""
    if all(width == max(problem.loss[group]) for group, width in widths.items()):
        return Neighbour(STEPS[0], cap_ms * (1 + STEPS[0]), note=WHOLE_NET)
    return _step(problem, widths, cap_ms, +1)


def find_less(problem: Problem, widths: Mapping[str, int], cap_ms: float) -> Neighbour:
    """The plan at a lower budget."""
    return _step(problem, widths, cap_ms, -1)


def _step(problem: Problem, widths: Mapping[str, int], cap_ms: float, sign: int) -> Neighbour:
    neighbour = Neighbour(0.0, cap_ms)
    for share in STEPS:
        neighbour = _solve(problem, widths, cap_ms, sign * share)
        if neighbour.changes or neighbour.predicted_ms is None:
            break
    return neighbour


def _solve(problem: Problem, widths: Mapping[str, int], cap_ms: float, share: float) -> Neighbour:
    other_ms = cap_ms * (1 + share)
    try:
        choice = choose_widths(scale_limits(problem, 1 + share), other_ms)
    except InfeasibleBudget as exc:
        return Neighbour(share, other_ms, note=f"no widths meet it: {exc}")
    except PlanError as exc:
        return Neighbour(share, other_ms, note=str(exc))
    changes = _compare(widths, choice)
    note = (
        ""
        if changes
        else f"no width changes, as widths come in steps (planned: {say_cost(predict_ms(problem, widths))})"
    )
    return Neighbour(share, other_ms, choice.latency_ms, choice.loss_increase, changes, note)


def _compare(widths: Mapping[str, int], choice: Choice) -> tuple[Change, ...]:
    return tuple(
        Change(group, width, choice.widths[group]) for group, width in widths.items() if choice.widths[group] != width
    )


def find_price(more: Neighbour, less: Neighbour) -> float | None:
    """Loss per ms between the plans at less and at more budget; None where these are one, or one of them is none."""
    if more.predicted_ms is None or less.predicted_ms is None or more.loss_increase is None:
        return None
    ms = more.predicted_ms - less.predicted_ms
    return None if ms <= 0 or less.loss_increase is None else (less.loss_increase - more.loss_increase) / ms
