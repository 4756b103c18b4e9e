"""Layers as a runtime executes them, and their channel counts as functions of group widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

JOIN = "join"
"""In place of an operator: two layers one behind the other, and what they cost less (or more) than each alone."""
ATTENTION = "attention"
"""Products of queries, keys and values with the softmax between them, and how these are laid out in heads."""
ACTIVATIONS = ("gelu", "silu", "hardswish")
"""Activations that runtimes compute after a layer, not within it as ReLU."""
JOIN_ENDS = 16
"""Channels at the outer ends of the two layers that a join is measured by: a whole block of every kernel known."""


@dataclass(frozen=True)
class Extent:
    """A channel count as a polynomial of group widths: `constant + sum(factor * product(widths))`.

    A convolution after another has one term `(1, ("conv1",))`; one after a concatenation has several;
    one after a flatten has a factor above 1; an attention projection multiplies heads and head width.
    """

    constant: int = 0
    terms: tuple[tuple[int, tuple[str, ...]], ...] = ()

    def at(self, widths: Mapping[str, int]) -> int:
        """The count when each group has the given width.

        Raises:
            KeyError: a group of this extent has no width.
        """
        return self.constant + sum(factor * prod(widths[name] for name in names) for factor, names in self.terms)

    def within(self, branches: tuple[str, ...]) -> Extent:
        """The count inside residual branches: none once one of them is cut."""
        terms = ((self.constant, ()), *self.terms) if self.constant else self.terms
        return Extent(0, tuple((factor, (*names, *branches)) for factor, names in terms)) if branches else self

    def bind(self, known: Mapping[str, int]) -> Extent:
        """The count as a polynomial of the other groups' widths."""
        constant, terms = self.constant, []
        for factor, names in self.terms:
            share = factor * prod(known.get(name, 1) for name in names)
            left = tuple(name for name in names if name not in known)
            terms += [(share, left)] if left else []
            constant += 0 if left else share
        return Extent(constant, tuple(terms))

    @property
    def groups(self) -> frozenset[str]:
        """The groups that this count depends on."""
        return frozenset(name for _, names in self.terms for name in names)


@dataclass(frozen=True, order=True)
class LayerShape:
    """One layer as a runtime executes it, activation and batch norm fused into it.

    `op` is one of "conv", "linear", "pool", "add", JOIN, ATTENTION or an activation; `kernel` and `stride` are one
    number per spatial axis; `size` is the spatial input size, `()` for a linear layer. 1-D layers have one axis. Of
    attention, `cin` and `cout` are channels of the keys and of the values in all heads, `groups` the heads, `size` the
    queries and the keys. Of an activation, `size` is the values of each channel.
    """

    op: str
    cin: int
    cout: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    groups: int = 1
    size: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left to compute, its residual branch being cut."""
        return self.cin == 0 or self.cout == 0

    @property
    def has_weights(self) -> bool:
        """Whether it is a convolution or a linear layer."""
        return self.op in ("conv", "linear")

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one input."""
        return self.weights * prod(self.output_size)

    @property
    def weights(self) -> int:
        """Weights, biases left out."""
        return self.cin * self.cout // self.groups * prod(self.kernel) if self.has_weights else 0

    @property
    def values(self) -> int:
        """Activations that a convolution or linear layer reads and writes for one input."""
        if not self.has_weights:
            return 0
        return self.cin * prod(self.size) + self.cout * prod(self.output_size)

    @property
    def megavalues(self) -> float:
        """Weights and activations that a convolution or linear layer moves for one input, in millions."""
        return (self.weights + self.values) / 1e6

    @property
    def is_depthwise(self) -> bool:
        """Whether each input channel has filters of its own; a single input channel is an ordinary convolution."""
        return self.op == "conv" and self.groups == self.cin > 1

    @property
    def has_one_count(self) -> bool:
        """Whether a single count of channels says all, as the other follows it."""
        same = self.op == ATTENTION and self.cin == self.cout
        return same or self.is_depthwise or self.op == JOIN or self.op in ACTIVATIONS

    @property
    def output_size(self) -> tuple[int, ...]:
        """Spatial output size (dilation 1)."""
        axes = zip(self.size, self.kernel, self.stride, self.padding, strict=True)
        return tuple((size + 2 * pad - kernel) // stride + 1 for size, kernel, stride, pad in axes)

    def describe(self) -> str:
        """For people: `conv 3x3/2 16->32 @ 32x32`."""
        kernel = "x".join(map(str, self.kernel))
        stride = f"/{self.stride[0]}" if self.stride and self.stride[0] > 1 else ""
        groups = f" groups {self.groups}" if self.groups > 1 else ""
        size = f" @ {'x'.join(map(str, self.size))}" if self.size else ""
        return f"{self.op} {kernel}{stride} {self.cin}->{self.cout}{groups}{size}".replace("  ", " ")


@dataclass(frozen=True)
class Layer:
    """A layer of one net: its shape at full width, and how its channel counts follow the group widths."""

    name: str
    shape: LayerShape
    cin: Extent
    cout: Extent
    groups: Extent = Extent(1)

    def at(self, widths: Mapping[str, int]) -> LayerShape:
        """The shape when each group has the given width."""
        return replace(self.shape, cin=self.cin.at(widths), cout=self.cout.at(widths), groups=self.groups.at(widths))

    def bind(self, known: Mapping[str, int]) -> Layer:
        """The layer as it follows the other groups' widths."""
        return replace(self, cin=self.cin.bind(known), cout=self.cout.bind(known), groups=self.groups.bind(known))

    @property
    def depends_on(self) -> frozenset[str]:
        """The groups whose widths change this layer's cost."""
        return self.cin.groups | self.cout.groups | self.groups.groups


def join_ends(shape: LayerShape) -> tuple[LayerShape, LayerShape]:
    """The layers that a join is measured by: convolutions with a 1x1 kernel that write and read the joined tensor."""
    return replace(shape, op="conv", cin=JOIN_ENDS), replace(shape, op="conv", cout=JOIN_ENDS)


def find_joins(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """A join for each convolution whose output a later convolution reads, by the groups that they share.

    A layer that runs alone converts its input and output to the layout of its kernel and back. Within a net a tensor
    stays in that layout if its channels allow it, which a join, measured at each width, knows.
    """
    found = []
    convolutions = [layer for layer in layers if layer.shape.op == "conv"]
    for index, layer in enumerate(convolutions):
        if any(_reads(later, layer) for later in convolutions[index + 1 :]):
            size, (ones, none) = layer.shape.output_size, ((one,) * len(layer.shape.size) for one in (1, 0))
            shape = LayerShape(JOIN, layer.shape.cout, layer.shape.cout, ones, ones, 1, size, none)
            found.append(Layer(f"{layer.name}>", shape, layer.cout, layer.cout))
    return tuple(found)


def _reads(layer: Layer, before: Layer) -> bool:
    if before.cout.groups:
        return not before.cout.groups.isdisjoint(layer.cin.groups)
    return before.cout.constant == layer.cin.constant and not layer.cin.groups
