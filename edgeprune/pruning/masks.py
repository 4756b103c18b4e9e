"""Masks of `torch.nn.utils.prune`: made permanent, and the channels that they leave without effect removed, exactly.

A channel goes if nobody reads it, or if it has one and the same value for every input, as a masked convolution before
a batch norm has: that value then goes into the bias of what reads it. A padded convolution sees the border of a
constant, so that one constant channel stays there and stands for all. What cannot be moved exactly stays, and so do
the zeros that make up no channel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.graph.groups import Analysis
from edgeprune.graph.labels import Dim
from edgeprune.graph.nodes import arg, sizes_of
from edgeprune.graph.operators.table import find_operator
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.walk import Dims, Value
from edgeprune.pruning.evidence import weight_of
from edgeprune.pruning.fold import fold_weights

Mask = NDArray[np.bool_]

LEAST_CARRIER = 0.01
"""How small a constant may be, relative to those that it stands for."""
ROUNDING = 16
"""In units of the last place: how far values may lie apart to count as one."""


def make_permanent(model: nn.Module) -> nn.Module:
    """A copy of a model whose masks (`torch.nn.utils.prune`) have been multiplied into its weights, or itself.

    The copy can be traced, saved and trained like any other; the given model keeps its masks.
    """
    return fold_weights(model)[0]


def find_dead_channels(program: GraphModule, analysis: Analysis) -> dict[str, tuple[int, ...]]:
    """The channels to keep of every group that has channels whose removal changes no output; a plan's `keep`.

    `program` is in eval mode. At least one channel of a group stays.
    """
    return _Search(program, analysis).keep()


def remove_dead_channels(program: GraphModule, analysis: Analysis) -> GraphModule:
    """A copy of a program in eval mode without its dead channels, which computes the same.

    What dead channels contributed goes into biases, a new one where need be, off a batch norm's running mean, or
    into the weights of a constant channel that stays.
    """
    search = _Search(program, analysis)
    keep = search.keep()
    pruned = apply_plan(program, analysis, keep)
    nodes = {node.name: node for node in pruned.graph.nodes}
    for node in program.graph.nodes:
        reading = search.reading(node)
        if reading is not None and node.name in nodes:
            search.move_(reading, nodes[node.name], pruned)
    pruned.recompile()
    return pruned


@dataclass(frozen=True)
class _Reading:
    """A layer and what it reads: constants by input channel, and weights as `[groups, outputs, inputs, window]`."""

    axis: int
    channels: NDArray[np.int64]
    outputs: Dim
    weight: Tensor
    values: Tensor
    """The value of each input channel; NaN where it hangs on the input or on the place."""
    at_border: bool
    """Whether places differ in how much of the window they see."""
    is_shared: bool
    is_transposed: bool

    def reached(self, alive: Mask) -> Mask:
        """Which inputs have any effect on the outputs that are alive."""
        rows = torch.from_numpy(alive).reshape(self.weight.shape[:2])[:, :, None]
        return np.asarray(((self.weight != 0).any(-1) & rows).any(1).flatten().numpy())


class _Search:
    """Which atoms of a graph can go, as the greatest set in which each is either unread or constant."""

    def __init__(self, program: GraphModule, analysis: Analysis) -> None:
        self.program, self.analysis, self.atoms = program, analysis, analysis.solution.atoms
        self.times = Counter(weight_of(node) for node in program.graph.nodes if find_operator(node).is_layer)
        self.values = _Constants(program).find()
        self.readings: dict[Node, _Reading | None] = {}
        self.dead = np.zeros(analysis.solution.count + 1, np.bool_)
        if not any(_writes(node) for node in program.graph.nodes):
            for group in analysis.channel_groups:
                self.dead[analysis.atoms[group.name]] = True
        self._settle_()

    def keep(self) -> dict[str, tuple[int, ...]]:
        """Kept channels of the groups that lose some."""
        alive = {name: ~self.dead[atoms] for name, atoms in self.analysis.atoms.items()}
        return {name: tuple(map(int, mask.nonzero()[0])) for name, mask in alive.items() if not mask.all()}

    def move_(self, reading: _Reading, node: Node, pruned: GraphModule) -> None:
        """Give a pruned layer what the inputs that it has lost contributed."""
        gone = torch.from_numpy(self._gone(reading.channels)) & ~reading.values.isnan()
        values = torch.where(gone, reading.values, 0.0).reshape(len(reading.weight), 1, -1, 1)
        parts = (reading.weight * values).sum(2).flatten(0, 1)
        parts = parts[torch.from_numpy(self._alive(reading.outputs, len(parts)))]
        if not bool(parts.any()):
            return
        carrier = self._carrier(reading) if reading.at_border else None
        if carrier is None:
            _add_constant_(node, pruned, parts.sum(1))
            return
        weight = pruned.get_parameter(weight_of(node))
        column = weight.detach().select(
            0 if reading.is_transposed else 1, int(self._alive(reading.channels, 0)[:carrier].sum())
        )
        column.add_((parts / reading.values[carrier]).reshape(column.shape))

    def reading(self, node: Node) -> _Reading | None:
        """How a layer reads its channels, if that can be said."""
        if node not in self.readings:
            self.readings[node] = self._read(node) if find_operator(node).is_layer and weight_of(node) else None
        return self.readings[node]

    def _settle_(self) -> None:
        """Spare what has an effect, then what is needed to keep each group there, until nothing changes."""
        nodes = [node for node in reversed(self.program.graph.nodes) if node.op in ("call_function", "output")]
        while True:
            before = self.dead.copy()
            for node in nodes:
                self._spare_(node)
            if np.array_equal(before, self.dead) and not self._spare_some_():
                return

    def _spare_some_(self) -> bool:
        """Keep as many more channels as a group needs to have one, and a multiple of its step."""
        spared = False
        for group in self.analysis.channel_groups:
            atoms = self.analysis.atoms[group.name]
            dead = atoms[self.dead[atoms]]
            alive = len(atoms) - len(dead)
            wanted = max(group.step, -(-alive // group.step) * group.step) - alive if len(dead) else 0
            self.dead[dead[:wanted]] = False
            spared |= wanted > 0
        return spared

    def _spare_(self, node: Node) -> None:
        for source in node.all_input_nodes:
            if source.op == "get_attr":
                continue
            for dims in _each(self.analysis.values.get(source.name)):
                for axis, dim in enumerate(dims):
                    gone = None if dim is None else self._gone(dim)
                    if dim is not None and gone is not None and bool(gone.any()):
                        guilty = gone & self._matters(node, source, dims, axis)
                        self.dead[self.atoms[dim[guilty]]] = False

    def _matters(self, node: Node, source: Node, dims: Dims, axis: int) -> Mask | bool:
        """Which slices along an axis of what a node reads have an effect beyond themselves."""
        dim, family = dims[axis], find_operator(node)
        reading = self.reading(node)
        if family.acts_per_channel or dim is None:
            return False
        if reading is not None and node.args[0] is source and axis == reading.axis:
            return self._matters_to(reading)
        passes = reading is not None or family.reduces_per_channel
        return not (passes and any(one is dim for one in self._dims(node)))

    def _matters_to(self, reading: _Reading) -> Mask:
        """Which inputs of a layer cannot go: those that vary, and constants that nothing can take over."""
        outputs = reading.weight.shape[0] * reading.weight.shape[1]
        reached = reading.reached(self._alive(reading.outputs, outputs))
        values = reading.values.numpy()
        matters = reached & np.isnan(values)
        moving = reached & ~matters & (values != 0) & self._gone(reading.channels)
        if not moving.any() or not (reading.at_border or reading.is_shared):
            return np.asarray(matters)
        if reading.is_shared or len(reading.weight) > 1:
            return np.asarray(matters | moving)
        carrier, strongest = self._carrier(reading), np.abs(np.where(moving, values, 0)).argmax()
        if carrier is None or abs(values[carrier]) < LEAST_CARRIER * abs(values[strongest]):
            matters[strongest] = True
        return np.asarray(matters)

    def _carrier(self, reading: _Reading) -> int | None:
        """The greatest constant among the inputs that stay."""
        constant = self._alive(reading.channels, 0) & ~reading.values.isnan().numpy()
        sizes = np.where(constant, reading.values.abs().numpy(), 0)
        return int(sizes.argmax()) if sizes.any() else None

    def _read(self, node: Node) -> _Reading | None:
        weight = self.program.get_parameter(weight_of(node)).detach()
        axes, transposed = weight.dim() - 2, find_operator(node).is_transposed
        source, value = node.args[0], self.values.get(node.args[0])  # type: ignore[arg-type]
        if not isinstance(source, Node) or not isinstance(value, Tensor):
            return None
        axis = value.dim() - 1 - axes
        channels, outputs = self._dims(source)[axis], self._dims(node)[axis]
        if channels is None:
            return None
        groups = int(arg(node, 6, "groups", 1))
        blocks = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        padding = arg(node, 4, "padding", 0) if axes else 0
        at_border = transposed or padding not in (0, "valid", [0] * axes, [0])
        is_shared = self.times[weight_of(node)] > 1
        blocks = blocks.transpose(1, 2) if transposed else blocks
        return _Reading(axis, channels, outputs, blocks, _one_value(value, axis), at_border, is_shared, transposed)

    def _dims(self, node: Node) -> Dims:
        value = self.analysis.values.get(node.name)
        return value if isinstance(value, tuple) else ()

    def _gone(self, dim: Any) -> Mask:
        """Which slices go: those with any dead atom."""
        return np.asarray(self.dead[self.atoms[dim]].any(axis=1))

    def _alive(self, dim: Any, size: int) -> Mask:
        return np.ones(size, np.bool_) if dim is None else ~self._gone(dim)


def _writes(node: Node) -> bool:
    """Whether an operator changes one of its operands, so that values hang on when they are read."""
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable)


def _one_value(value: Tensor, axis: int) -> Tensor:
    """The value of each slice along an axis, NaN where it has several."""
    rows = value.movedim(axis, 0).flatten(1)
    first = rows[:, :1]
    near = ((rows - first).abs() <= ROUNDING * torch.finfo(value.dtype).eps * first.abs()).all(1)
    return torch.where(near, first[:, 0], torch.nan)


def _each(value: Value) -> Sequence[Dims]:
    return [] if value is None else value if isinstance(value, list) else [value]


class _Constants(Interpreter):
    """Runs a graph on inputs of which nothing is known, NaN: what comes out as a number is the same for all inputs."""

    def __init__(self, program: GraphModule) -> None:
        super().__init__(program, garbage_collect_values=False)
        self.unknown: set[Node] = set()
        """Whole numbers and truth values that hang on the input."""

    def find(self) -> Mapping[Node, Any]:
        """The value of every node at the batch that the program was traced with."""
        inputs = []
        for node in self.graph.find_nodes(op="placeholder"):
            traced = node.meta["val"]
            inputs.append(self._blank(node, traced))
        with torch.no_grad():
            self.run(*inputs)
        return self.env

    def run_node(self, n: Node) -> Any:
        """Run one node, or give up on it where it could turn NaN into a number."""
        family = find_operator(n)
        if n.op != "call_function" or n.meta.get("val") is None or family.is_size:
            return super().run_node(n)
        if any(source in self.unknown for source in n.all_input_nodes):
            return self._blank(n, n.meta["val"])
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if family.is_layer:
            return _layer(n.target, args, kwargs)
        trusted = family.acts_per_channel or family.reduces_per_channel
        is_random = torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ())
        if not trusted and (is_random or any(_has_nan(self.env[one]) for one in n.all_input_nodes)):
            return self._blank(n, n.meta["val"])
        result = n.target(*args, **kwargs)  # type: ignore[operator]
        if not _is_floating(result) and _has_nan(args):
            return self._blank(n, n.meta["val"])
        if family.is_zero_absorbing and _is_floating(result):
            return torch.where((torch.as_tensor(args[0]) == 0) | (torch.as_tensor(args[1]) == 0), 0.0, result)
        if family.is_batch_norm and args[1] is not None and args[2] is not None:
            shape = (1, -1) + (1,) * (result.dim() - 2)
            return torch.where(args[1].reshape(shape) == 0, args[2].reshape(shape), result)
        return result

    def _blank(self, node: Node, traced: Any) -> Any:
        """What stands for a tensor that hangs on the input: NaN, or zeros that are noted as unknown."""
        if isinstance(traced, (list, tuple)):
            return [self._blank(node, one) for one in traced]
        if not isinstance(traced, Tensor):
            return traced
        if traced.is_floating_point():
            return torch.full(sizes_of(traced), torch.nan, dtype=traced.dtype)
        self.unknown.add(node)
        return torch.zeros(sizes_of(traced), dtype=traced.dtype)


def _is_floating(value: Any) -> bool:
    first = value[0] if isinstance(value, (list, tuple)) else value
    return isinstance(first, Tensor) and first.is_floating_point()


def _has_nan(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_has_nan(one) for one in value)
    return isinstance(value, Tensor) and bool(value.isnan().any())


def _layer(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """A convolution or linear layer in which unknown inputs with zero weights have no effect."""
    inputs, weight, *rest = args
    unknown = inputs.isnan()
    result: Tensor = function(torch.where(unknown, 0.0, inputs), weight, *rest, **kwargs)
    without_bias = [None, *rest[1:]] if rest else []
    reached = function(unknown.to(weight.dtype), (weight != 0).to(weight.dtype), *without_bias, **kwargs)
    return result.masked_fill(reached > 0.5, torch.nan)


def _add_constant_(node: Node, pruned: GraphModule, change: Tensor) -> None:
    """Add a constant to each output of a layer: to its bias, its batch norm's mean, or as a new bias."""
    bias, user = arg(node, 2, "bias"), next(iter(node.users))
    mean = user.args[3] if len(node.users) == 1 and find_operator(user).is_batch_norm else None
    with torch.no_grad():
        if bias is not None and _reads_alone(bias, pruned):
            pruned.get_parameter(str(bias.target)).add_(change)
        elif bias is None and isinstance(mean, Node) and _reads_alone(mean, pruned):
            pruned.get_buffer(str(mean.target)).sub_(change)
        else:
            _new_bias_(node, pruned, change)


def _reads_alone(tensor: Node, pruned: GraphModule) -> bool:
    """Whether a parameter or buffer has a single use."""
    same = [one for one in pruned.graph.find_nodes(op="get_attr") if one.target == tensor.target]
    return tensor.op == "get_attr" and sum(len(one.users) for one in same) == 1


def _new_bias_(node: Node, pruned: GraphModule, change: Tensor) -> None:
    """A bias of the layer's own, as a parameter beside its weight."""
    weight, old = arg(node, 1), arg(node, 2, "bias")
    if old is not None:
        change = change + pruned.get_parameter(str(old.target)).detach()
    owner, _, _ = str(weight.target).rpartition(".")
    module = pruned.get_submodule(owner)
    name = f"bias_of_{node.name}" if getattr(module, "bias", None) is not None else "bias"
    module.register_parameter(name, nn.Parameter(change))
    with pruned.graph.inserting_before(node):
        bias = pruned.graph.get_attr(f"{owner}.{name}" if owner else name)
    bias.meta["val"] = weight.meta["val"].new_empty([len(change)])
    node.args = (*node.args[:2], bias, *node.args[3:])
