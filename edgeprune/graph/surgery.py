"""Surgery: slice the parameters of a graph by a plan, and rewrite the sizes that are written in it as literals."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.optim import Optimizer

from edgeprune.errors import GraphError, PlanError
from edgeprune.graph.analysis import Analysis, Branch
from edgeprune.graph.branches import cut_branches_
from edgeprune.graph.cut import Cut
from edgeprune.graph.groups import alive_mask
from edgeprune.graph.labels import Mask
from edgeprune.graph.nodes import operator_of
from edgeprune.graph.operators.table import find_operator
from edgeprune.graph.trace import copy_program, named_tensors
from edgeprune.graph.walk import Value


def apply_plan(program: GraphModule, analysis: Analysis, keep: Mapping[str, Sequence[int]]) -> GraphModule:
    """A copy of `program` that has only the kept channels of each group; groups that are not named stay whole.

    A branch of which nothing is kept is cut: its addition passes the shortcut on.

    The copy shares no tensor with the original, can be trained, saved, exported and analysed again.

    Raises:
        PlanError: an unknown or frozen group, or channels that it does not have.
        GraphError: an operator whose sizes cannot be rewritten; names it.
    """
    check_keep(analysis, keep)
    cut = Cut(analysis, alive_mask(analysis, keep), program)
    pruned = cut.program = copy_program(program, _replacements(named_tensors(program), cut))
    for node in list(pruned.graph.nodes):
        rewrite_(node, cut)
    cut_branches_(pruned, branches_cut(analysis, keep))
    pruned.graph.eliminate_dead_code()
    pruned.recompile()
    return pruned


def check_keep(analysis: Analysis, keep: Mapping[str, Sequence[int]]) -> None:
    """Refuse what does not fit the groups.

    Raises:
        PlanError: says which group, what is wrong with it, and the nearest name to an unknown one.
    """
    groups = {group.name: group for group in analysis.groups}
    for name, channels in keep.items():
        if name not in groups:
            near = difflib.get_close_matches(name, groups, 1)
            raise PlanError(f"no group {name!r} in this model" + (f"; did you mean {near[0]!r}?" if near else ""))
        group, indices = groups[name], list(channels)
        if group.frozen and len(indices) < group.size:
            raise PlanError(f"group {name!r} has to stay whole: {group.frozen}")
        if group.is_branch and not indices:
            continue
        if not indices or any(left >= right for left, right in pairwise(indices)):
            raise PlanError(f"group {name!r}: the kept channels must be ascending and at least one, got {indices[:8]}")
        if indices[0] < 0 or indices[-1] >= group.size:
            raise PlanError(f"group {name!r}: channels {indices[0]}..{indices[-1]} do not lie in 0..{group.size - 1}")
        if len(indices) < group.size and len(indices) % group.step:
            raise PlanError(f"group {name!r}: {len(indices)} channels are not a multiple of {group.step}")


def branches_cut(analysis: Analysis, keep: Mapping[str, Sequence[int]]) -> list[Branch]:
    """The residual branches that a plan cuts, in the order of the graph."""
    return [branch for name, branch in analysis.branches.items() if name in keep and not len(keep[name])]


def slice_tensor(value: Tensor, masks: Sequence[Mask | None]) -> Tensor:
    """The slices of `value` that stay, along every dimension that has a mask; never a view."""
    slices = value.detach()
    for dim, mask in enumerate(masks):
        if mask is not None:
            slices = slices.index_select(dim, torch.from_numpy(mask.nonzero()[0]).to(slices.device))
    return slices if slices is not value and slices.data_ptr() != value.data_ptr() else slices.clone()


def sliced_tensors(
    values: Mapping[str, Tensor], analysis: Analysis, keep: Mapping[str, Sequence[int]]
) -> dict[int, object]:
    """What a deep copy is to put in the place of each named parameter or buffer, by identity."""
    return _replacements(values, Cut(analysis, alive_mask(analysis, keep), GraphModule({}, Graph())))


def _replacements(values: Mapping[str, Tensor], cut: Cut) -> dict[int, object]:
    replacements: dict[int, object] = {}
    for name, value in values.items():
        slices = slice_tensor(value, _masks(name, value, cut))
        is_parameter = isinstance(value, nn.Parameter)
        replacements[id(value)] = nn.Parameter(slices, requires_grad=value.requires_grad) if is_parameter else slices
    return replacements


def _masks(name: str, value: Tensor, cut: Cut) -> list[Mask | None]:
    return [cut.mask(dim) for dim in cut.analysis.tensors.get(name, (None,) * value.dim())]


def apply_to_optimizer_(
    optimizer: Optimizer,
    program: GraphModule,
    pruned: GraphModule,
    analysis: Analysis,
    keep: Mapping[str, Sequence[int]],
) -> None:
    """Hand an optimizer of `program` over to `pruned`, its momenta sliced like the parameters that they belong to.

    Parameters that went with a branch leave the optimizer.

    Raises:
        PlanError: the optimizer has parameters that are not the program's.
    """
    cut, state = Cut(analysis, alive_mask(analysis, keep), pruned), dict(optimizer.state)
    names = {id(value): name for name, value in program.named_parameters()}
    parameters = dict(pruned.named_parameters())
    optimizer.state.clear()
    for group in optimizer.param_groups:
        if any(id(value) not in names for value in group["params"]):
            raise PlanError("the optimizer has parameters that this program has not; make it for the program's own")
        trained = {names[id(value)]: value for value in group["params"] if names[id(value)] in parameters}
        group["params"] = [parameters[name] for name in trained]
        for name, value in trained.items():
            optimizer.state[parameters[name]] = {
                key: slice_tensor(entry, _masks(name, value, cut)) if _has_shape(entry, value) else entry
                for key, entry in state.get(value, {}).items()
            }


def _has_shape(value: object, other: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == other.shape and value.dim() > 0


def rewrite_(node: Node, cut: Cut) -> None:
    """Rewrite the literals of one node, and the sizes that its trace recorded."""
    if not cut.touches(node):
        return
    rewrite = find_operator(node).rewrite
    try:
        if rewrite is not None:
            rewrite(node, cut)
        node.meta["val"] = _shrink(node.meta.get("val"), cut.analysis.values.get(node.name), cut)
    except GraphError:
        raise
    except Exception as exc:
        raise GraphError(
            f"{node.name} ({operator_of(node)}): its sizes cannot be rewritten: {type(exc).__name__}: {exc}; keep the "
            'layers before it whole (a recipe\'s `widths = {"LAYER": "whole"}`) and please report this'
        ) from exc


def _shrink(traced: object, value: Value, cut: Cut) -> object:
    """A traced tensor with the sizes that are left of it."""
    if isinstance(traced, (list, tuple)) and isinstance(value, list):
        return [_shrink(tensor, dims, cut) for tensor, dims in zip(traced, value, strict=True)]
    if not isinstance(traced, Tensor) or not isinstance(value, tuple):
        return traced
    masks = [cut.mask(dim) for dim in value]
    if all(mask is None for mask in masks):
        return traced
    sizes = [
        size if mask is None else size * int(mask.sum()) // len(mask)
        for size, mask in zip(traced.shape, masks, strict=True)
    ]
    key = (traced.dtype, *(size if isinstance(size, int) else str(size) for size in sizes))
    if key not in cut.traced:
        cut.traced[key] = traced.new_empty(sizes)
    return cut.traced[key]
