"""A pruning plan is read back as it was written, and refused where its indices cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.latency.layers import Extent, Layer, LayerShape
from edgeprune.core.planning.plan import ChannelGroup, GroupPlan, PruningPlan, explain_width, find_gone, parse_plan
from edgeprune.core.summary import describe_width
from edgeprune.errors import PlanError

keeps = st.sets(st.integers(0, 9), min_size=1).map(lambda kept: tuple(sorted(kept)))
groups = st.builds(
    GroupPlan, st.text(max_size=5), st.just(10), keeps, st.floats(0, 1e3), st.text(max_size=5), st.just("channels")
) | st.builds(
    GroupPlan,
    st.text(max_size=5),
    st.just(1),
    st.sampled_from([(), (0,)]),
    st.floats(0, 9),
    st.just(""),
    st.just("branch"),
)
ms = st.none() | st.floats(0.001, 1e6)
plans = st.builds(
    PruningPlan,
    st.lists(groups, max_size=3).map(tuple),
    st.text(max_size=5),
    ms,
    ms,
    st.floats(0, 1e3),
    st.floats(0, 1),
    st.lists(st.text(max_size=5), max_size=2).map(tuple),
)


def document(**group: Any) -> dict[str, Any]:
    row = GroupPlan("conv", 8, (0, 2, 7), 0.5, "", "channels")
    plan = PruningPlan((row,), "0" * 64, 1.0, 1.0, 0.5, 0.0, ()).to_dict()
    written = json.loads(json.dumps(plan))
    written["groups"][0] |= group
    return dict(written)


@given(plans)
def test_a_plan_is_read_back_as_it_was_written(plan: PruningPlan) -> None:
    assert parse_plan(json.loads(json.dumps(plan.to_dict()))) == plan
    assert parse_plan(json.loads(plan.to_json())) == plan


@pytest.mark.parametrize("keep", [[], [2, 1], [1, 1], [-1, 2], [0, 8]])
def test_channels_that_a_group_has_not_are_refused(keep: list[int]) -> None:
    with pytest.raises(PlanError, match=r"^run/plan\.json: group 'conv': keep must be ascending indices below 8"):
        parse_plan(document(keep=keep), "run/plan.json")


@pytest.mark.parametrize("keep", [[1], [0, 0], [-1]])
def test_a_branch_is_kept_or_cut_and_nothing_else(keep: list[int]) -> None:
    with pytest.raises(PlanError, match="keep must be ascending indices below 1"):
        parse_plan(document(keep=keep, size=1, kind="branch"))


@pytest.mark.parametrize("field", ["groups", "model_sha256", "notes", "gap"])
def test_a_plan_that_lacks_a_field_says_which(field: str) -> None:
    whole = document()
    del whole[field]
    with pytest.raises(PlanError, match=f"not a pruning plan: '{field}' is missing"):
        parse_plan(whole)


def test_a_plan_of_another_version_is_refused() -> None:
    with pytest.raises(PlanError, match="version 99; this edgeprune reads version"):
        parse_plan(document() | {"version": 99})


def layer(name: str, *owners: str) -> Layer:
    """A layer whose output channels are those of a group, within branches."""
    return Layer(name, LayerShape("linear", 8, 8), Extent(8), Extent(0, ((1, owners),)))


def test_groups_of_a_branch_that_is_cut_go_with_it() -> None:
    layers = [layer("stem", "stem"), layer("a", "inner", "block:branch"), layer("b", "stem", "block:branch")]
    layers += [layer("c", "shared", "block:branch"), layer("d", "shared", "other:branch")]
    widths = {"stem": 8, "inner": 8, "shared": 8, "block:branch": 0, "other:branch": 1}
    assert find_gone(layers, widths) == {"inner": "block:branch"}
    assert find_gone(layers, {**widths, "block:branch": 1}) == {}
    both = find_gone(layers, {**widths, "other:branch": 0})
    assert both == {"inner": "block:branch", "shared": "other:branch"}


@pytest.mark.parametrize(
    ("kind", "width", "offered", "is_fixed", "saving", "said"),
    [
        ("channels", 4, (4, 8), False, "saves 1 ms", "saves 1 ms"),
        ("channels", 4, (4,), True, "saves 1 ms", "as the recipe says; saves 1 ms"),
        ("channels", 8, (4, 8), False, "saves 1 ms", "whole: no narrower width is worth its loss"),
        ("channels", 8, (4, 8), False, "", "whole: the budget is met without a cut"),
        ("channels", 8, (8,), False, "", "whole: no narrower width is on offer"),
        ("channels", 8, (8,), True, "", "whole: as the recipe says"),
        ("branch", 1, (0, 1), False, "", "kept: the budget is met without a cut"),
        ("branch", 1, (0, 1), False, "saves 1 ms", "kept: cutting it is not worth its loss"),
    ],
)
def test_a_width_is_explained(
    kind: str, width: int, offered: tuple[int, ...], is_fixed: bool, saving: str, said: str
) -> None:
    group = ChannelGroup("a", 1 if kind == "branch" else 8, (), kind=kind)
    assert explain_width(group, width, offered, is_fixed, saving) == said


def test_a_group_that_went_with_a_branch_is_read_back_and_shown_as_gone() -> None:
    written = PruningPlan((GroupPlan("a", 2, (0, 1), reason="gone with b", gone_with="b"),))
    read = parse_plan(json.loads(written.to_json()))
    assert read == written
    assert describe_width(read.to_dict()["groups"][0]) == "0 of 2"
