"""The net that stages work on: a value that each stage reads from its run, or from a scope of it, and hands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch.fx import GraphModule

from edgeprune.core.latency.layers import PROBED, Layer, find_joins, gather_beside
from edgeprune.core.planning.candidates import WidthRule, candidate_widths, find_nearest_width, is_joint
from edgeprune.core.text import suggest
from edgeprune.errors import RecipeError
from edgeprune.graph.analysis import Analysis
from edgeprune.graph.groups import groups_of
from edgeprune.recipes.load import Recipe


@dataclass(frozen=True)
class Net:
    """A traced net: its graph, what can be cut of it, the recipe's rules by group, and the granularity of widths.

    `is_estimated`: its latency is estimated, so that no operator of it is probed by itself.
    """

    program: GraphModule
    analysis: Analysis
    rules: Mapping[str, WidthRule]
    step: int
    is_estimated: bool

    @cached_property
    def widths(self) -> dict[str, tuple[int, ...]]:
        """Widths on offer by group."""
        return candidate_widths(self.analysis.groups, self.analysis.layers, self.step, self.rules)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """What the net's latency is the sum of: its layers and what is beside them; of a board, what has probes apart.

        An operator that too many groups shape to be planned with them is left out: measured nets correct for it, or
        what the estimated whole net takes beyond the rest.
        """
        layers = self.analysis.layers
        operators = [operator for operator in self.analysis.operators if is_joint(operator, self.widths)]
        if self.is_estimated:
            return (*layers, *operators)
        probed = [operator for operator in operators if operator.shape.op in PROBED]
        beside = gather_beside(operator for operator in operators if operator not in probed)
        return (*layers, *probed, *beside, *find_joins(layers))


def find_width_rules(recipe: Recipe, analysis: Analysis) -> dict[str, WidthRule]:
    """A recipe's rules by group; a layer's rule is that of the group that its output channels belong to.

    Raises:
        RecipeError: a rule for what is no layer or group that may be cut, or a width that a group cannot have.
    """
    rules: dict[str, WidthRule] = {}
    free = {group.name: group for group in analysis.groups if not group.frozen}
    for name, rule in recipe.widths.items():
        groups = groups_of(analysis, name)
        if not groups:
            why = next((group.frozen for group in analysis.groups if group.name == name), "")
            layers = [layer.name for layer in analysis.layers if groups_of(analysis, layer.name)]
            names = list(dict.fromkeys([*free, *layers]))
            raise RecipeError(
                f"{recipe.source}: widths: no layer {name!r} that may be cut"
                + (f": {why}" if why else f"{suggest(name, names)}; `edgeprune recipes check` lists them")
            )
        if rule is not None:  # a number of channels says nothing of a branch that the layer is in
            groups = [group for group in groups if group == name or not free[group].is_branch]
        rules |= {group: rule or WidthRule(fixed=free[group].size) for group in groups}
        for group in groups:
            fixed = rules[group].fixed
            if fixed is not None and (nearest := find_nearest_width(free[group], fixed)) != fixed:
                raise RecipeError(
                    f"{recipe.source}: widths: {name}: cannot have {fixed} channels; the nearest width is {nearest}"
                )
    return rules
