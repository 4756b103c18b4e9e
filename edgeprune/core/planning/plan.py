"""Channel groups and the plan that says which channels of each stay: plain values, JSON, diffable."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from edgeprune.core.answers import describe_misfit
from edgeprune.core.cost import MS, name_costs
from edgeprune.core.latency.layers import Layer
from edgeprune.errors import PlanError

PLAN_VERSION = 1
HEADS = "heads"
"""The kind of a group whose channels are attention heads."""
BRANCH = "branch"
"""The kind of a group that is a residual branch: it has one "channel", kept or not."""
NOTHING_CUT = "nothing was cut"
"""So begins the note of a plan that leaves the net whole."""


@dataclass(frozen=True)
class Member:
    """One tensor dimension that a group runs through: `tensor` is a parameter's qualified name."""

    tensor: str
    dim: int
    role: str
    """"out" (its slices make the channels), "in" (its slices read them) or "along" (norms, biases)."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that live and die together: the unit of pruning.

    A group of `size` channels may keep any subset whose count is a multiple of `step` (or all of them).
    A group of kind "branch" is a whole residual branch, of size 1: kept, or cut to its shortcut.
    `frozen` is empty, or the reason why the group must stay whole.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    step: int = 1
    kind: str = "channels"
    frozen: str = ""

    @property
    def is_branch(self) -> bool:
        """Whether it is a residual branch, which goes as a whole or not at all."""
        return self.kind == BRANCH

    def widths(self, step: int, least: int = 1) -> tuple[int, ...]:
        """The widths to choose from: multiples of `step` (and of the group's own) from `least`, and all."""
        if self.is_branch:
            return (0, 1)
        jump = max(step, self.step) if max(step, self.step) % self.step == 0 else step * self.step
        return (*(width for width in range(jump, self.size, jump) if width >= least), self.size)


@dataclass(frozen=True)
class GroupPlan:
    """What becomes of one group: the kept channels in ascending order, and why.

    `gone_with` names the branch that is cut with all layers that have these channels.
    """

    group: str
    size: int
    keep: tuple[int, ...]
    loss_increase: float = 0.0
    reason: str = ""
    kind: str = "channels"
    gone_with: str = ""

    @property
    def width(self) -> int:
        """Channels kept."""
        return len(self.keep)


@dataclass(frozen=True)
class PruningPlan:
    """The widths and channels chosen for a net, with what they are predicted to cost.

    `model_sha256` names the traced model that the indices refer to; `unit` is that of `predicted_ms` and `budget_ms`.
    """

    groups: tuple[GroupPlan, ...]
    model_sha256: str = ""
    predicted_ms: float | None = None
    budget_ms: float | None = None
    loss_increase: float = 0.0
    gap: float = 0.0
    notes: tuple[str, ...] = field(default=())
    unit: str = MS

    @property
    def keep(self) -> dict[str, tuple[int, ...]]:
        """Kept channels by group."""
        return {entry.group: entry.keep for entry in self.groups}

    @property
    def widths(self) -> dict[str, int]:
        """Kept channel counts by group."""
        return {entry.group: entry.width for entry in self.groups}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with its version."""
        return {"version": PLAN_VERSION, **asdict(self)}

    def to_json(self) -> str:
        """One group a line, so that two plans can be compared with diff."""
        document = name_costs(self.to_dict())
        rows = ",\n  ".join(json.dumps(row) for row in document.pop("groups"))
        head = json.dumps(document, indent=1)[:-2]
        return f'{head},\n "groups": [\n  {rows}\n ]\n}}\n'


def find_gone(layers: Iterable[Layer], widths: Mapping[str, int]) -> dict[str, str]:
    """Groups whose layers all go with branches that are cut, by these widths, each with the name of such a branch."""
    gone, staying = dict[str, str](), set[str]()
    for layer in layers:
        cut = next((name for name in sorted(layer.cout.groups) if widths.get(name) == 0), None)
        if cut is None:
            staying |= layer.cout.groups
        else:
            gone |= dict.fromkeys(layer.cout.groups - {cut}, cut)
    return {name: branch for name, branch in gone.items() if name not in staying and widths.get(name) != 0}


def explain_width(group: ChannelGroup, width: int, offered: Sequence[int], is_fixed: bool, saving: str) -> str:
    """Why a group has its width, for people: the recipe says so, it is what is on offer, or what it is worth.

    `saving` says what a narrower one saves and which channels stay; it is empty where nothing at all has to be cut.
    """
    by_rule = "as the recipe says" if is_fixed else ""
    if width < group.size:
        return "; ".join(text for text in (by_rule, saving) if text)
    whole = "kept" if group.is_branch else "whole"
    if is_fixed:
        return f"{whole}: {by_rule}"
    if len(offered) == 1:
        return f"{whole}: no narrower width is on offer"
    if not saving:
        return f"{whole}: the budget is met without a cut"
    return (
        f"{whole}: cutting it is not worth its loss"
        if group.is_branch
        else "whole: no narrower width is worth its loss"
    )


def parse_plan(document: Mapping[str, Any], where: str = "plan") -> PruningPlan:
    """Read a plan back from what :meth:`PruningPlan.to_dict` gave.

    Raises:
        PlanError: another version, a missing field, or indices that are not ascending and within the group.
    """
    if document.get("version") != PLAN_VERSION:
        raise PlanError(f"{where}: version {document.get('version')!r}; this edgeprune reads version {PLAN_VERSION}")
    try:
        groups = tuple(_parse_group(row, where) for row in document["groups"])
        return PruningPlan(
            groups=groups,
            model_sha256=str(document["model_sha256"]),
            predicted_ms=document["predicted_ms"],
            budget_ms=document["budget_ms"],
            loss_increase=float(document["loss_increase"]),
            gap=float(document["gap"]),
            notes=tuple(document["notes"]),
            unit=str(document.get("unit", MS)),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise PlanError(f"{where}: not a pruning plan: {describe_misfit(exc)}") from exc


def _parse_group(row: Mapping[str, Any], where: str) -> GroupPlan:
    keep, size = tuple(int(index) for index in row["keep"]), int(row["size"])
    kind = str(row.get("kind", "channels"))
    ascending = all(left < right for left, right in pairwise(keep))
    within = not keep or (keep[0] >= 0 and keep[-1] < size)
    if not ascending or not within or not (keep or kind == BRANCH):
        raise PlanError(f"{where}: group {row['group']!r}: keep must be ascending indices below {size}, at least one")
    return GroupPlan(
        str(row["group"]),
        size,
        keep,
        float(row["loss_increase"]),
        str(row["reason"]),
        kind,
        str(row.get("gone_with", "")),
    )
