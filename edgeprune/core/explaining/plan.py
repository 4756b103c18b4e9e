"""A plan explained as a document: what the stage `fit` writes beside `plan.json` (docs/explain.md, `plan`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeprune.core.explaining.curves import (
    BRANCH_GONE,
    Bound,
    find_bound,
    find_cost_per_ms,
    find_gain_per_ms,
    rank_channels,
    trace_curve,
)
from edgeprune.core.explaining.marginal import Neighbour, find_less, find_more, find_price
from edgeprune.core.explaining.parts import describe_layers, list_group_layers, split_parts
from edgeprune.core.latency.table import MEASURED
from edgeprune.core.planning.plan import GroupPlan, PruningPlan
from edgeprune.core.planning.planner import Problem, predict_ms

DIGITS = 6
"""Significant digits of scores and losses in a document."""


@dataclass(frozen=True)
class Basis:
    """What a plan was made by: the problem as it was corrected then, the predicted ms it was held to, and the scores of
    channels by group, with the method and the steps of training that they came from.
    """

    problem: Problem
    cap_ms: float
    scores: Mapping[str, Sequence[float]]
    importance: str = ""
    trained_steps: int = 0


def explain_plan(plan: PruningPlan, basis: Basis) -> dict[str, Any]:
    """Everything that is said of a plan; it is solved again at a step more and a step less of its budget."""
    problem, widths = basis.problem, plan.widths
    more, less = find_more(problem, widths, basis.cap_ms), find_less(problem, widths, basis.cap_ms)
    parts = split_parts(problem, widths)
    budget_ms = plan.budget_ms or basis.cap_ms
    return {
        "origin": MEASURED if problem.table is None else problem.table.origin,
        "importance": basis.importance,
        "trained_steps": basis.trained_steps,
        "budget_ms": plan.budget_ms,
        "cap_ms": basis.cap_ms,
        "predicted_ms": predict_ms(problem, widths),
        "whole_ms": predict_ms(problem, {group: max(losses) for group, losses in problem.loss.items()}),
        "loss_increase": plan.loss_increase,
        "limits": problem.limits.all_given,
        "price_loss_per_ms": find_price(more, less),
        "more": _describe_neighbour(more, budget_ms),
        "less": _describe_neighbour(less, budget_ms),
        "groups": [_explain_group(entry, plan, basis, (more, less)) for entry in plan.groups],
        "layers": describe_layers(problem, widths),
        "parts": asdict(parts) if parts else None,
    }


def _describe_neighbour(neighbour: Neighbour, budget_ms: float) -> dict[str, Any]:
    return {
        "share": neighbour.share,
        "budget_ms": budget_ms * (1 + neighbour.share),
        "predicted_ms": neighbour.predicted_ms,
        "loss_increase": neighbour.loss_increase,
        "changes": [asdict(change) for change in neighbour.changes],
        "note": neighbour.note,
    }


def _explain_group(
    entry: GroupPlan, plan: PruningPlan, basis: Basis, neighbours: tuple[Neighbour, Neighbour]
) -> dict[str, Any]:
    problem, group, width = basis.problem, entry.group, entry.width
    curve = trace_curve(problem, plan.widths, group)
    if entry.gone_with:
        bound = Bound((BRANCH_GONE,), f"all its layers went with {entry.gone_with}")
    else:
        bound = find_bound(problem, plan.widths, curve, group, basis.cap_ms)
    at_more, at_less = (neighbour.width_of(group, width) for neighbour in neighbours)
    return {
        "group": group,
        "kind": entry.kind,
        "size": entry.size,
        "width": 0 if entry.gone_with else width,
        "planned_width": width,
        "gone_with": entry.gone_with,
        "layers": list_group_layers(problem.layers, group),
        "bound_by": list(bound.by),
        "bound": bound.text,
        "at_narrowest": not entry.gone_with and width == curve[0].width < entry.size,
        "gain_per_ms": find_gain_per_ms(curve, width),
        "cost_per_ms": find_cost_per_ms(curve, width),
        "curve": [asdict(point) for point in curve],
        "width_at_more": at_more,
        "width_at_less": at_less,
        **_explain_channels(entry, basis.scores[group]),
    }


def _explain_channels(entry: GroupPlan, scores: Sequence[float]) -> dict[str, Any]:
    """Scores and ranks by channel, and which went; of a branch, which is not ranked within itself, none."""
    if entry.kind == "branch":
        return {"scores": [], "ranks": [], "cut": []}
    kept = set() if entry.gone_with else set(entry.keep)
    return {
        "scores": [float(f"{score:.{DIGITS}g}") for score in scores],
        "ranks": list(rank_channels(scores)),
        "cut": [channel for channel in range(entry.size) if channel not in kept],
    }
