"""The document of a plan: what is said of groups that are narrow, alone on offer, or gone."""

from __future__ import annotations

from dataclasses import replace

from chain_problem import make_chain

from edgeprune.core.explaining.plan import Basis, explain_plan
from edgeprune.core.planning.plan import GroupPlan, PruningPlan


def test_only_a_width_that_was_chosen_is_at_the_narrowest() -> None:
    problem = make_chain()
    problem = replace(problem, loss={**problem.loss, "c": {64: 0.0}})
    keep = {"a": tuple(range(8)), "b": tuple(range(8)), "c": tuple(range(64))}
    entries = tuple(GroupPlan(name, 64, kept, gone_with="x:branch" * (name == "b")) for name, kept in keep.items())
    scores = {name: [float(-channel) for channel in range(64)] for name in keep}
    document = explain_plan(PruningPlan(entries, budget_ms=10.0), Basis(problem, 9.0, scores, "l2", 5))
    rows = {row["group"]: row for row in document["groups"]}
    assert {name: row["at_narrowest"] for name, row in rows.items()} == {"a": True, "b": False, "c": False}
    assert {name: row["width"] for name, row in rows.items()} == {"a": 8, "b": 0, "c": 64}
    assert rows["b"]["cut"] == list(range(64))
    assert rows["a"]["cut"] == list(range(8, 64))
    assert rows["b"]["bound_by"] == ["branch"]
    assert rows["c"]["bound_by"] == ["offer"]
    assert (document["budget_ms"], document["cap_ms"], document["importance"]) == (10.0, 9.0, "l2")
    assert document["more"]["budget_ms"] == 10.0 * (1 + document["more"]["share"])
