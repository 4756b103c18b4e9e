"""Whether a latency budget can be met at all, told by a latency table before anything is scored or trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor

from edgeprune.core.cost import say_cost, say_option
from edgeprune.core.planning.limits import Limits
from edgeprune.core.planning.program import RELATIVE_GAP
from edgeprune.errors import InfeasibleBudget


@dataclass(frozen=True)
class Reach:
    """What is asked of a net, and the fastest that can be had; all in ms.

    `aim` is the share of `limit_ms` that a first plan is made for. `fastest_ms` is predicted of the narrowest net
    within the `limits`, `unpruned_ms` of the whole net, both in the `precision` that is planned for; `baseline_ms` is
    what the unpruned net takes in `baseline_precision`.
    """

    limit_ms: float
    aim: float
    fastest_ms: float
    unpruned_ms: float
    baseline_ms: float
    precision: str
    limits: Limits = field(default_factory=Limits)
    baseline_precision: str = "fp32"

    @property
    def is_enough(self) -> bool:
        """Whether the fastest net meets the budget, as near as the planner's own gap lets it be known."""
        return self.fastest_ms * (1 - RELATIVE_GAP) <= self.aim * self.limit_ms

    @property
    def best_ms(self) -> float:
        """The tightest budget that the fastest net meets."""
        return self.fastest_ms / self.aim


def check_reach(reach: Reach) -> None:
    """Refuse a budget that no widths meet.

    Raises:
        InfeasibleBudget: says the best that can be reached, and what to do.
    """
    if reach.is_enough:
        return
    limits = reach.limits.describe()
    narrowest = f"the narrowest net within {limits}" if limits else "the narrowest net"
    raise InfeasibleBudget(
        f"no widths meet {say_cost(reach.limit_ms)}: {narrowest} is predicted at {say_cost(reach.fastest_ms)} in "
        f"{reach.precision}, the unpruned {reach.baseline_precision} net takes {say_cost(reach.baseline_ms)}; "
        f"{_advise(reach)}"
    )


def _advise(reach: Reach) -> str:
    """What to do: another precision where this one is what is slow, a budget that can be met, narrower widths."""
    advice = []
    another, whole = reach.precision != reach.baseline_precision, reach.baseline_precision
    slower = another and reach.unpruned_ms > reach.baseline_ms
    if reach.fastest_ms >= reach.baseline_ms:
        advice.append(f"no net in {reach.precision} is faster here than the unpruned one in {whole}")
    elif slower:
        advice.append(f"{reach.precision} is slower here than {whole} (unpruned {say_cost(reach.unpruned_ms)})")
    if another:
        advice.append(f"choose --precision {whole}, or auto to let the board decide")
    best = say_option(1.001 * reach.best_ms)
    speedup = floor(100 * reach.baseline_ms / reach.best_ms) / 100
    if speedup > 1:
        advice.append(f"ask for --speedup {speedup:.2f} or {best} at best")
    elif reach.fastest_ms < reach.baseline_ms:
        advice.append(f"ask for {best} at best")
    relax = "raise the other limits of the budget, or allow" if reach.limits.describe() else "or allow"
    return "; ".join([*advice, f"{relax} narrower widths (step in the target, widths in the recipe)"])
