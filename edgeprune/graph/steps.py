"""The operators of a graph as steps, and what takes time among them beside convolutions and linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from edgeprune.core.latency import steps as kinds
from edgeprune.core.latency.layers import Window
from edgeprune.core.latency.steps import Operator, Place, Step, list_operators
from edgeprune.graph.nodes import arg, sizes_of
from edgeprune.graph.operators.convolutions import each_axis
from edgeprune.graph.operators.record import OperatorFamily
from edgeprune.graph.operators.reductions import axes_argument
from edgeprune.graph.operators.table import find_operator
from edgeprune.graph.operators.views import swapped_axes
from edgeprune.graph.walk import Dims, LayerUse, Walk


def find_timed(walk: Walk) -> tuple[list[LayerUse], list[LayerUse]]:
    """The layers, and everything that takes time beside them, with the labels that its counts follow.

    What computes once more what another has computed already is left out, as exporters merge it.
    """
    layers = {use.node: use for use in walk.layers}
    nodes = {node.name: node for node in walk.program.graph.nodes}
    try:
        steps, sizes = _read_steps(walk, layers)
        operators = [_describe(operator, walk, layers, nodes) for operator in list_operators(steps, sizes, walk.batch)]
        return [layers[step.name] for step in steps if step.name in layers], operators
    except Exception as exc:  # a defect here, of which a user's net must not die
        walk.note_fault(f"operators beside layers cannot be listed: {type(exc).__name__}: {exc}; they have no cost")
        return walk.layers, []


def _describe(operator: Operator, walk: Walk, layers: Mapping[str, LayerUse], nodes: Mapping[str, Node]) -> LayerUse:
    name = operator.step.name
    if operator.layer:
        name = f"{layers[operator.layer].weight.removesuffix('.weight')}:{operator.shape.op}"
    cin, cout, groups = (_labels(place, walk, nodes) for place in (operator.cin, operator.cout, operator.groups))
    space = (_labels(operator.places, walk, nodes),) if operator.places[1] else ()
    return LayerUse(operator.step.name, name, operator.shape, cin, cout, groups, space)


def _labels(place: Place, walk: Walk, nodes: Mapping[str, Node]) -> Dims:
    tensor, axes = place
    dims = walk.dims(nodes[tensor]) if tensor else ()
    return tuple(dims[axis] for axis in axes) if dims else ()


def _read_steps(walk: Walk, layers: Mapping[str, LayerUse]) -> tuple[list[Step], dict[str, tuple[int, ...]]]:
    """The operators that compute on what hangs on an input, each once, and the sizes of all tensors between them."""
    names: dict[Node, str] = {}
    computed: dict[str, str] = {}
    sizes: dict[str, tuple[int, ...]] = {}
    steps: list[Step] = []
    for node in walk.program.graph.nodes:
        value = node.meta.get("val")
        first = value[0] if isinstance(value, (list, tuple)) and value else value
        sources = [source for source in _tensors(node) if source in names]
        if not isinstance(first, Tensor) or node.op == "output" or node not in walk.fed:
            continue
        same = names[sources[0]] if _changes_nothing(node) else node.name
        if node.op == "call_function":
            operands = map_arg((node.args, node.kwargs), lambda operand: names.get(operand, operand.name))
            same = computed.setdefault(f"{node.target} {operands}", same)
        names[node] = same
        if same != node.name:
            continue
        sizes[node.name] = sizes_of(first)
        if node.op == "call_function":
            steps.append(_read_step(node, [names[source] for source in sources], layers, walk))
    return steps, sizes


def _changes_nothing(node: Node) -> bool:
    family = find_operator(node)
    return family.keeps_values or (family.neutral is not None and arg(node, 1) == family.neutral)


def _tensors(node: Node) -> list[Node]:
    """What a node reads, as often as it does."""
    tensors: list[Node] = []
    for operand in (*node.args, *node.kwargs.values()):
        for value in _as_list(operand):
            tensors += [value] if isinstance(value, Node) else []
    return tensors


def _read_step(node: Node, reads: list[str], layers: Mapping[str, LayerUse], walk: Walk) -> Step:
    family, sizes = find_operator(node), walk.sizes(arg(node, 0))
    kind = layers[node.name].shape.op if node.name in layers else family.kind
    if kind == kinds.POOL:
        return Step(node.name, kind, tuple(reads), node.name, window=_pool_window(node, family, sizes))
    if kind == kinds.CONCAT and len(_as_list(arg(node, 0))) < 2:
        kind = kinds.FREE
    if kind in (kinds.ADD, kinds.MUL) and len(reads) < 2:  # the other is a constant
        kind = kinds.SCALE
    if kind == kinds.PRODUCT and len(reads) < 2:
        kind = kinds.FREE
    if family.kind_of_two and len(reads) > 1:
        kind = family.kind_of_two
    return Step(node.name, kind, tuple(reads), node.name, _axes(node, kind, sizes))


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _axes(node: Node, kind: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    rank = max(1, len(sizes))
    if kind == kinds.PERMUTE:
        return tuple(swapped_axes(node, rank))
    if kind != kinds.REDUCE:
        return ()
    axes = axes_argument(node)
    if not isinstance(axes, (int, list, tuple)) or isinstance(axes, bool) or axes == []:
        return tuple(range(rank))
    return tuple(int(axis) % rank for axis in _as_list(axes))


def _pool_window(node: Node, family: OperatorFamily, sizes: tuple[int, ...]) -> Window:
    """The window of a pool; that of an adaptive one is what its sizes leave it, as exporters write it."""
    rank, places = family.window_rank, family.places
    value = node.meta["val"]
    out_sizes = sizes_of(value[0] if isinstance(value, (list, tuple)) else value)
    if "kernel" not in places:
        pairs = list(zip(sizes[-rank:], out_sizes[-rank:], strict=True))
        stride = tuple(max(1, size // out) for size, out in pairs)
        kernel = tuple(max(1, size - (out - 1) * step) for (size, out), step in zip(pairs, stride, strict=True))
        return Window(kernel, stride)
    kernel = each_axis(arg(node, places["kernel"]), rank)
    stride = each_axis(arg(node, places["stride"], "stride") or kernel, rank)
    dilation = each_axis(arg(node, places["dilation"], "dilation", 1), rank) if "dilation" in places else (1,) * rank
    return Window(kernel, stride, dilation)
