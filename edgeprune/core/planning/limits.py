"""What a net may cost beside its latency: parameters, weights in bytes, multiply-accumulates, activations, widths."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from edgeprune.core.latency.layers import Layer, LayerShape
from edgeprune.core.memory.steps import ArenaLimit
from edgeprune.core.planning.budget import Budget
from edgeprune.core.text import suggest
from edgeprune.errors import InfeasibleBudget, PlanError

TOTALS = ("parameters", "weight_bytes", "macs")
"""Figures that add up over the layers; activation bytes do not."""
UNITS = {
    "parameters": "parameters in layers",
    "weight_bytes": "bytes of weights",
    "macs": "multiply-accumulates",
    "activation_bytes": "bytes of activations",
}
SRAM = "bytes of SRAM"
STATED_BYTES = 512
"""What a final file states of itself beyond an untrained one: its plan and its scheme."""
REPEAT = "@"
"""What follows it in a layer's name counts the uses of the same weights."""


@dataclass(frozen=True)
class Sizes:
    """Bytes of one value in a precision."""

    weight: int
    bias: int
    activation: int


SIZES = {
    "fp32": Sizes(4, 4, 4),
    "fp16": Sizes(2, 2, 2),
    "int8": Sizes(1, 4, 1),
    "dynamic-int8": Sizes(1, 4, 4),
    "int16x8": Sizes(1, 8, 2),
    "mixed": Sizes(1, 4, 4),
}
"""By precision; biases of static 8-bit weights have 32 bits, beside 16-bit activations 64 (TFLite's specification).
Of mixed precision the least that a file may take, as which layers stay in float is chosen once the net is trained,
within what the file may take then; and the most that activations may."""


@dataclass(frozen=True)
class Costs:
    """What a layer or a net costs at given widths, whatever board it runs on.

    `parameters` are weights of convolutions and linear layers and a bias for each output channel, as batch norm leaves
    them once folded; of a whole net that was counted as it is, also those of what is no such layer.
    `activation_bytes` is the largest sum of a layer's input and output, at batch 1: no arena is smaller, but one is
    larger where a shortcut waits meanwhile.
    """

    parameters: int = 0
    weight_bytes: int = 0
    macs: int = 0
    activation_bytes: int = 0


@dataclass(frozen=True)
class Limits:
    """The most that a net may cost, None where it does not matter, and the only width that groups may have.

    `precision` is what ships, a key of SIZES. `fixed` is the width by group. `arena` limits the memory that the
    interpreter needs, at every step of the net.

    Raises:
        PlanError: a limit that is not above zero, or an unknown precision.
    """

    parameters: int | None = None
    weight_bytes: int | None = None
    macs: int | None = None
    activation_bytes: int | None = None
    precision: str = "fp32"
    fixed: Mapping[str, int] = field(default_factory=dict)
    arena: ArenaLimit | None = None

    def __post_init__(self) -> None:
        """Reject figures that cannot be meant."""
        for name, limit in self.given.items():
            if not limit > 0:
                raise PlanError(f"limit {name}: {limit!r} must be above zero")
        if self.precision not in SIZES:
            raise PlanError(f"limits: precision {self.precision!r} is not known{suggest(self.precision, SIZES)}")

    @property
    def given(self) -> dict[str, int]:
        """The limits on costs that are set, by name."""
        every = {name: getattr(self, name) for name in UNITS}
        return {name: limit for name, limit in every.items() if limit is not None}

    @property
    def all_given(self) -> dict[str, int]:
        """The limits that are set, that on memory among them."""
        return self.given if self.arena is None else {**self.given, "sram_bytes": self.arena.most_bytes}

    def describe(self) -> str:
        """All limits that are set, for people; empty without any."""
        parts = [f"{limit:,} {UNITS[name]}" for name, limit in self.given.items()]
        if self.arena is not None:
            parts.append(f"{self.arena.most_bytes:,} {SRAM}")
        return ", ".join(parts)

    def fits_arena(self, widths: Mapping[str, int]) -> bool:
        """Whether a net of these widths, laid out, fits into the memory; it does where there is no limit."""
        return self.arena is None or self.arena.find_excess(widths) <= 0

    def find_exceeded(self, costs: Costs) -> list[str]:
        """Names of the limits that these costs exceed."""
        return [name for name, limit in self.given.items() if getattr(costs, name) > limit]


def count_layer(layer: Layer, shape: LayerShape, precision: str) -> Costs:
    """What a convolution or linear layer costs; weights that a layer before it holds too are not counted again."""
    if shape.is_gone or not shape.has_weights:
        return Costs()
    weights = biases = 0
    if REPEAT not in layer.name:
        weights, biases = shape.weights, shape.cout
    size = SIZES[precision]
    weight_bytes = weights * size.weight + biases * size.bias
    return Costs(weights + biases, weight_bytes, shape.macs, shape.values * size.activation)


def count_costs(layers: Iterable[Layer], widths: Mapping[str, int], precision: str = "fp32") -> Costs:
    """What a net costs when each group has the given width."""
    parts = [count_layer(layer, layer.at(widths), precision) for layer in layers]
    totals = {name: sum(getattr(part, name) for part in parts) for name in TOTALS}
    return Costs(**totals, activation_bytes=max((part.activation_bytes for part in parts), default=0))


def stated_bytes(layers: Iterable[Layer], precision: str) -> int:
    """What a final file may state of itself beyond an untrained one; in int8 also by how much channels were raised."""
    raised = sum(layer.shape.cout for layer in layers) if SIZES[precision].weight == 1 else 0
    return STATED_BYTES + raised


def read_limits(budget: Budget, precision: str, overhead_bytes: int, other_parameters: int = 0) -> Limits:
    """The limits of a budget on a net whose file in that precision takes `overhead_bytes` beside its weights.

    `other_parameters` are those of the unpruned net that no layer counts: as they may stay whole, they are taken off.

    Raises:
        InfeasibleBudget: the file may not be larger than that overhead, or there are more of these parameters.
    """
    file_bytes, parameters = budget.most_file_bytes, budget.parameters
    weight_bytes = file_bytes
    if weight_bytes is not None:
        weight_bytes -= overhead_bytes
        if weight_bytes <= 0:
            raise InfeasibleBudget(
                f"no widths meet a file of {file_bytes:,} bytes: {overhead_bytes:,} of them are not weights; "
                "raise this limit"
            )
    if parameters is not None:
        parameters -= other_parameters
        if parameters <= 0:
            raise InfeasibleBudget(
                f"no widths meet {budget.parameters:,} parameters: {other_parameters:,} of them belong to norms, "
                "embeddings and the like; raise this limit"
            )
    return Limits(parameters, weight_bytes, budget.macs, budget.activation_bytes, precision)


def allowed_widths(offered: Mapping[str, Collection[int]], limits: Limits) -> dict[str, list[int]]:
    """The widths of each group, ascending, that the limits leave.

    Raises:
        PlanError: a fixed width of a group that has no widths to choose from, or one that is not on offer.
    """
    for group, width in limits.fixed.items():
        if group not in offered:
            raise PlanError(f"limits: no group {group!r} to choose a width for{suggest(group, list(offered))}")
        if width not in offered[group]:
            raise PlanError(
                f"limits: group {group!r}: no width of {width} is on offer; it has {sorted(offered[group])}"
            )
    return {
        group: [limits.fixed[group]] if group in limits.fixed else sorted(widths) for group, widths in offered.items()
    }
