"""Proof of a surgery: the pruned graph computes what the original does once its removed channels are silenced.

The silenced original keeps its shapes and its literals. Removed slices of every parameter and of every intermediate
tensor are zero, and what computes statistics over channels (layer norm, means) sees the others only. It shares the
analysis with the surgery, but neither its slicing nor its rewriting.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate

from edgeprune.errors import PlanError
from edgeprune.graph.analysis import Analysis
from edgeprune.graph.cut import Cut
from edgeprune.graph.groups import alive_mask
from edgeprune.graph.labels import Mask
from edgeprune.graph.nodes import arg, sizes_of
from edgeprune.graph.operators import build
from edgeprune.graph.operators.table import find_operator
from edgeprune.graph.surgery import apply_plan, branches_cut, check_keep
from edgeprune.graph.trace import Example, copy_program, find_written, named_tensors

PROOF_LIMIT = 1e-9
"""Largest relative difference, in float64, between a cut net and the original with those channels silenced."""


def check_surgery(
    original: GraphModule,
    analysis: Analysis,
    keep: Mapping[str, Sequence[int]],
    pruned: GraphModule,
    example: Example,
) -> float:
    """The largest error of the pruned outputs, relative to the largest value of the silenced original's.

    Computed in float64 on random inputs of the example's shape (whole numbers are taken from the example).
    Infinite if the outputs differ in number or shape, or are not finite.
    """
    inputs = _random_inputs(original, example)
    reference = _run_double(neutralise(original, analysis, keep), inputs)
    return _difference(reference, _run_double(copy_program(pruned), inputs))


def cut_proven(
    original: GraphModule, analysis: Analysis, keep: Mapping[str, Sequence[int]], example: Example, remedy: str
) -> tuple[GraphModule, float]:
    """The cut net, and its relative error by :func:`check_surgery`, which is within `PROOF_LIMIT`.

    Raises:
        PlanError: the plan does not fit, or the proof fails; `remedy` says what to do then.
        GraphError: an operator whose sizes cannot be rewritten.
    """
    pruned = apply_plan(original, analysis, keep)
    error = check_surgery(original, analysis, keep, pruned, example)
    if error > PROOF_LIMIT:
        raise PlanError(
            f"the cut net differs from the original without those channels by {error:.1e} of its outputs; {remedy}"
        )
    return pruned, error


def same_outputs(program: GraphModule, module: nn.Module, example: Example) -> float:
    """The largest error of a module's outputs against a program's, as `check_surgery` measures it."""
    inputs = _random_inputs(program, example)
    reference = _run_double(copy_program(program), inputs)
    return _difference(reference, _outputs(copy.deepcopy(module).double(), inputs))


def _difference(reference: list[Tensor], outputs: list[Tensor]) -> float:
    if [output.shape for output in reference] != [output.shape for output in outputs]:
        return float("inf")
    return max(
        (_relative_error(output, expected) for output, expected in zip(outputs, reference, strict=True)), default=0.0
    )


def neutralise(program: GraphModule, analysis: Analysis, keep: Mapping[str, Sequence[int]]) -> GraphModule:
    """A copy of the original's shape in which removed channels have no effect, and cut branches add zeros.

    It takes the batch size that the program was traced with.
    """
    check_keep(analysis, keep)
    silent = copy_program(program)
    cut = Cut(analysis, alive_mask(analysis, keep), silent)
    _silence_parameters_(silent, cut)
    touched = [node for node in silent.graph.nodes if node.op == "call_function" and cut.touches(node)]
    written = find_written(silent)
    for node in touched:
        _silence_(node, cut, silent, in_place=node in written)
    nodes = {node.name: node for node in silent.graph.nodes}
    for branch in branches_cut(analysis, keep):
        _add_zeros_(nodes[branch.add], branch.operand)
    silent.recompile()
    return silent


def _add_zeros_(add: Node, operand: int) -> None:
    with add.graph.inserting_before(add):
        zeros = add.graph.call_function(build.ZEROS_LIKE, (add.args[operand],))
    add.update_arg(operand, zeros)


def _silence_parameters_(silent: GraphModule, cut: Cut) -> None:
    with torch.no_grad():
        for name, value in named_tensors(silent).items():
            for axis, dim in enumerate(cut.analysis.tensors.get(name, ())):
                mask = cut.mask(dim)
                if mask is not None:
                    value.index_fill_(axis, torch.from_numpy((~mask).nonzero()[0]), 0)


def _silence_(node: Node, cut: Cut, silent: GraphModule, in_place: bool) -> None:
    """Make a node see only the slices that stay if it computes statistics, and zero what it gives elsewhere.

    Memory that is written to later is zeroed in its place, so that whoever reads it sees what was written.
    """
    if find_operator(node).is_statistic:
        _gather_inputs_(node, cut, silent)
        return
    masks = [(axis, cut.mask(dim)) for axis, dim in enumerate(cut.dims(node))]
    users, last = list(node.users), node
    for axis, mask in masks:
        if mask is not None:
            shape = [-1] + [1] * (len(masks) - axis - 1)
            dead = _constant(silent, last, torch.from_numpy(~mask).reshape(shape))
            fill = build.MASKED_FILL_IN_PLACE if in_place else build.MASKED_FILL
            last = _after(dead, fill, (last, dead, 0))
    for user in users:
        user.replace_input_with(node, last)


def _gather_inputs_(node: Node, cut: Cut, silent: GraphModule) -> None:
    """Compute the node on the slices that stay, and spread the result over the original places with zeros between."""
    for source in node.all_input_nodes:
        gathered = source
        for axis, dim in enumerate(cut.dims(_origin(source))):
            mask = cut.mask(dim)
            if mask is not None:
                places = _constant(silent, gathered, torch.from_numpy(mask.nonzero()[0]), node)
                gathered = _after(places, build.INDEX_SELECT, (gathered, axis, places))
        node.replace_input_with(source, gathered)
    _count_literals_(node, cut)
    for result in [node] if isinstance(node.meta.get("val"), Tensor) else list(node.users):
        users, last, dims = list(result.users), result, cut.dims(result)
        for axis, dim in enumerate(dims):
            mask = cut.mask(dim)
            if mask is not None:
                last = _spread(last, axis, len(dims), mask, silent)
        for user in users:
            user.replace_input_with(result, last)


def _count_literals_(node: Node, cut: Cut) -> None:
    source, places = cut.dims(_origin(arg(node, 0))), find_operator(node).places
    if "shape" in places:
        shape = list(arg(node, places["shape"]))
        masks = [cut.mask(dim) for dim in source[len(source) - len(shape) :]]
        sizes = [size if mask is None else int(mask.sum()) for size, mask in zip(shape, masks, strict=True)]
        node.update_arg(places["shape"], sizes)
    if "groups" in places:
        groups = cut.count(cut.analysis.inner.get(node.name), int(arg(node, places["groups"])))
        node.update_arg(places["groups"], groups)


def _origin(value: Any) -> Any:
    while isinstance(value, Node) and value.name.startswith("silent_"):
        value = value.args[0]
    return value


def _spread(node: Node, axis: int, rank: int, mask: Mask, silent: GraphModule) -> Node:
    """A zero slice at the end, taken wherever a slice has been removed."""
    places = np.where(mask, np.cumsum(mask) - 1, int(mask.sum()))
    amounts = [0, 0] * (rank - axis - 1) + [0, 1]
    padded = _after(node, build.PAD, (node, amounts))
    index = _constant(silent, padded, torch.from_numpy(places))
    return _after(index, build.INDEX_SELECT, (padded, axis, index))


def _constant(silent: GraphModule, after: Node, value: Tensor, before: Node | None = None) -> Node:
    name = f"silent_constant_{len(silent._buffers)}"
    silent.register_buffer(name, value)
    place = after.graph.inserting_after(after) if before is None else after.graph.inserting_before(before)
    with place:
        return after.graph.create_node("get_attr", name, name=f"silent_{name}")


def _after(place: Node, target: Any, args: tuple[Any, ...]) -> Node:
    with place.graph.inserting_after(place):
        return place.graph.create_node("call_function", target, args, name="silent_step")


def _random_inputs(program: GraphModule, example: Example) -> tuple[Tensor, ...]:
    """Inputs at the batch that the program was traced with, and that its analysis counts on."""
    examples = (example,) if isinstance(example, Tensor) else tuple(example)
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for value, node in zip(examples, program.graph.find_nodes(op="placeholder"), strict=True):
        sizes = sizes_of(node.meta["val"])
        if value.is_floating_point():
            inputs.append(torch.randn(sizes, generator=generator, dtype=torch.float64))
        else:
            inputs.append(torch.cat([value] * (sizes[0] // max(1, value.shape[0]) + 1))[: sizes[0]])
    return tuple(inputs)


def _run_double(program: GraphModule, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    program.double()
    for node in program.graph.nodes:
        node.args, node.kwargs = map_aggregate(node.args, _double), map_aggregate(node.kwargs, _double)
    program.recompile()
    return _outputs(program, inputs)


def _outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            outputs = model(*inputs)
    finally:
        torch.set_default_dtype(default)
    return [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _double(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def _relative_error(output: Tensor, reference: Tensor) -> float:
    if not bool(torch.isfinite(output).all()) or not bool(torch.isfinite(reference).all()):
        return float("inf")
    scale = float(reference.abs().max()) if reference.numel() else 0.0
    error = float((output - reference).abs().max()) if reference.numel() else 0.0
    return error / scale if scale else error
