"""What is known of a family of operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeprune.core.latency.steps import FREE
from edgeprune.graph.cut import Rewrite
from edgeprune.graph.walk import Rule


def aten(names: str) -> tuple[str, ...]:
    """The names of ATen operators as nodes give them, of names with spaces between."""
    return tuple(f"aten.{name}" for name in names.split())


@dataclass(frozen=True)
class OperatorFamily:
    """Operators of which the same holds, by name without overload and without the underscore of in-place forms.

    What is not said of a family is not so: without a rule, whatever meets an operator stays whole; without `rewrite` it
    has no literal that counts channels; by its kind, if none is given, it costs nothing.
    """

    names: tuple[str, ...] = ()
    rule: Rule | None = None
    """Labels of what it gives, and what it ties."""
    rewrite: Rewrite | None = None
    kind: str = FREE
    """What it is among the steps that take time (:mod:`edgeprune.core.latency.steps`); layers say so themselves."""
    kind_of_two: str = ""
    """Its kind where it reads two tensors, if that is another."""
    neutral: int | None = None
    """The number that it changes nothing with, as its second operand."""
    places: Mapping[str, int] = field(default_factory=dict)
    """Positions of arguments: "training" (a flag), "sizes" (those of its operand in another shape, the batch first),
    "shape" and "groups" of norms, "kernel", "stride" and "dilation" of pools, "region" (a graph of its own)."""
    window_rank: int = 0
    """How many of the last axes its window slides along."""
    is_layer: bool = False
    """A convolution or linear layer: its weight is argument 1, its bias argument 2."""
    is_transposed: bool = False
    is_batch_norm: bool = False
    """Runtimes fold it into the layer before it; scale, shift, mean and variance are arguments 1 to 4."""
    is_statistic: bool = False
    """What it gives of a slice hangs on how many others there are: it has to see those that stay, and those only."""
    is_idempotent: bool = False
    """A second time it changes nothing."""
    is_zero_absorbing: bool = False
    """Zero times whatever it is (NaN included) counts as zero."""
    is_size: bool = False
    """It asks for a size, and gives no tensor."""
    acts_per_channel: bool = False
    """In eval mode it computes each channel by itself, or moves it about, and gives NaN of NaN."""
    reduces_per_channel: bool = False
    """So along the axes that it leaves."""
    keeps_values: bool = False
    """In eval mode it gives its operand as it is."""
    may_view: bool = False
    """What it gives may share memory with its operand."""
    reads_integers: bool = False
    """In int8 files its operands are integers; what is fused into the operator before it reads none."""
    scale_axis: int | None = None
    """The axis of its weights' output channels, of which each has a scale in int8 files."""
