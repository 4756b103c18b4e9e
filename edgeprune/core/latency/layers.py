"""Layers as a runtime executes them, and their channel counts as functions of group widths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

TRANSPOSED = "transposed"
"""A transposed convolution: it reads the small side, `size`, and writes the large one."""
WEIGHTED = ("conv", TRANSPOSED, "linear")
"""Operators with weights."""
JOIN = "join"
"""In place of an operator: two layers one behind the other, and what they cost less (or more) than each alone."""
ATTENTION = "attention"
"""Products of queries, keys and values with the softmax between them, and how these are laid out in heads."""
ACTIVATIONS = ("gelu", "silu", "hardswish")
"""Activations that runtimes compute after a layer, not within it as ReLU."""
PROBED = (ATTENTION, *ACTIVATIONS)
"""Operators without weights that are timed alone, as layers are."""
BESIDE = "beside"
"""In place of an operator: all that read the same channels and are timed nowhere alone (pools, sums, products ...); its
`size` is how many values they read and write for each channel."""
SUMMANDS = 2
"""What a sum or a product reads for each value that it writes."""
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

    def bind(self, widths: Mapping[str, int]) -> Extent:
        """The count as a polynomial of the other groups' widths."""
        constant, terms = self.constant, []
        for factor, names in self.terms:
            share = factor * prod(widths.get(name, 1) for name in names)
            unbound = tuple(name for name in names if name not in widths)
            terms += [(share, unbound)] if unbound else []
            constant += 0 if unbound else share
        return Extent(constant, tuple(terms))

    @property
    def groups(self) -> frozenset[str]:
        """The groups that this count depends on."""
        return frozenset(name for _, names in self.terms for name in names)


@dataclass(frozen=True, order=True)
class LayerShape:
    """One layer as a runtime executes it, activation and batch norm fused into it.

    `op` is one of WEIGHTED, "pool", "add", JOIN, ATTENTION or an activation; `kernel`, `stride`, `padding` (alike at
    both ends) and `dilation` are one number per spatial axis; `size` is the spatial input size, `()` for a linear
    layer. 1-D layers have one axis. Of attention, `cin` and `cout` are channels of the keys and of the values in all
    heads,
    `groups` the heads, `size` the queries and the keys. Of an activation, `size` is the values of each channel.

    `dilation` is `()` where no axis is dilated, and `output` where the window says what comes out; both are brought to
    that form, so that equal layers are equal. Read `output_size`, which is always there.
    """

    op: str
    cin: int
    cout: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    groups: int = 1
    size: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Leave out what says nothing new: a window of one place is not dilated, either."""
        if len(self.dilation) == len(self.kernel):
            steps = tuple(step if width > 1 else 1 for step, width in zip(self.dilation, self.kernel, strict=True))
            object.__setattr__(self, "dilation", steps if set(steps) - {1} else ())
        if self.output and self.output == self._usual_output:
            object.__setattr__(self, "output", ())

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left to compute, its residual branch being cut."""
        return self.cin == 0 or self.cout == 0

    @property
    def has_weights(self) -> bool:
        """Whether it is a convolution or a linear layer."""
        return self.op in WEIGHTED

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one input; of a transposed convolution, those that its border cuts off included."""
        return self.weights * prod(self.size if self.op == TRANSPOSED else self.output_size)

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
    def beside_values(self) -> int:
        """Activations that operators beside the layers read and write for one input."""
        return self.cin * prod(self.size) if self.op == BESIDE else 0

    @property
    def megavalues(self) -> float:
        """Weights and activations that a convolution or linear layer moves for one input, in millions."""
        return (self.weights + self.values) / 1e6

    @property
    def ends(self) -> tuple[tuple[int, int], ...]:
        """Padding at both ends of each axis; of a transposed convolution what is cut off, below zero what is added."""
        if not self.output:
            return tuple((pad, pad) for pad in self.padding)
        axes = zip(self.size, self.output, self.kernel, self.stride, self.steps, strict=True)
        if self.op == TRANSPOSED:
            total = [(size - 1) * stride + (width - 1) * step + 1 - out for size, out, width, stride, step in axes]
        else:
            total = [(out - 1) * stride + (width - 1) * step + 1 - size for size, out, width, stride, step in axes]
        return tuple((pad, whole - pad) for pad, whole in zip(self.padding, total, strict=True))

    @property
    def is_depthwise(self) -> bool:
        """Whether each input channel has filters of its own; a single input channel is an ordinary convolution."""
        return self.op in ("conv", TRANSPOSED) and self.groups == self.cin > 1

    @property
    def has_one_count(self) -> bool:
        """Whether a single count of channels says all, as the other follows it."""
        same = self.op == ATTENTION and self.cin == self.cout
        return same or self.is_depthwise or self.op == JOIN or self.op in ACTIVATIONS

    @property
    def steps(self) -> tuple[int, ...]:
        """Dilation by axis, ones included."""
        return self.dilation or (1,) * len(self.kernel)

    @property
    def output_size(self) -> tuple[int, ...]:
        """Spatial output size."""
        return self.output or self._usual_output

    @property
    def _usual_output(self) -> tuple[int, ...]:
        """What comes out of the window; of an operator without one, as much as goes in."""
        axes = zip(self.size, self.kernel, self.stride, self.padding, self.steps, strict=bool(self.kernel))
        if not self.kernel:
            return self.size
        if self.op == TRANSPOSED:
            return tuple(
                (size - 1) * stride + (width - 1) * step + 1 - 2 * pad for size, width, stride, pad, step in axes
            )
        return tuple((size + 2 * pad - (width - 1) * step - 1) // stride + 1 for size, width, stride, pad, step in axes)

    def describe(self) -> str:
        """For people: `conv 3x3/2 16->32 @ 32x32`."""
        kernel = "x".join(map(str, self.kernel))
        stride = f"/{self.stride[0]}" if self.stride and self.stride[0] > 1 else ""
        dilation = f" dilated {'x'.join(map(str, dict.fromkeys(self.dilation)))}" if self.dilation else ""
        groups = f" groups {self.groups}" if self.groups > 1 else ""
        size = f" @ {'x'.join(map(str, self.size))}" if self.size else ""
        output = f" to {'x'.join(map(str, self.output_size))}" if self.output or self.op == TRANSPOSED else ""
        text = f"{self.op} {kernel}{stride}{dilation} {self.cin}->{self.cout}{groups}{size}{output}"
        return text.replace("  ", " ")


@dataclass(frozen=True)
class Window:
    """What slides over space, one number for each axis, and how many groups of channels are kept apart."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...] = ()
    groups: int = 1


def describe_window(
    op: str, channels: tuple[int, int], sizes: tuple[tuple[int, ...], tuple[int, ...]], window: Window
) -> LayerShape:
    """A convolution or a pool by its channels and its spatial sizes, each of input and output.

    Graphs and files say padding in ways of their own, or keep it in an operator before the layer. So it is read off the
    sizes: the least that, alike at both ends, gives (of a transposed convolution: takes off) what comes out. Where that
    is off by an odd one, the output says so.
    """
    size, output = sizes
    plain = LayerShape(
        op, *channels, window.kernel, window.stride, window.groups, size, (0,) * len(size), window.dilation
    )
    spans = tuple((width - 1) * step + 1 for width, step in zip(window.kernel, plain.steps, strict=True))
    if op == TRANSPOSED:
        lengths = zip(plain.output_size, output, strict=True)
        padding = tuple(max(0, full - out + 1) // 2 for full, out in lengths)
    else:
        axes = zip(size, output, window.stride, spans, strict=True)
        padding = tuple(max(0, (out - 1) * stride + span - read + 1) // 2 for read, out, stride, span in axes)
    return replace(plain, padding=padding, output=output)


def describe_linear(cin: int, cout: int, tokens: int) -> LayerShape:
    """A linear layer on so many vectors; on one it has no axis."""
    if tokens == 1:
        return LayerShape("linear", cin, cout)
    return LayerShape("linear", cin, cout, (1,), (1,), 1, (tokens,), (0,))


@dataclass(frozen=True)
class Layer:
    """A layer of one net: its shape at full width, and how its channel counts follow the group widths.

    `space` is there where places that it works on may be channels, as those of a layer on the token axis are: a count
    for each axis of the shape's size.
    """

    name: str
    shape: LayerShape
    cin: Extent
    cout: Extent
    groups: Extent = Extent(1)
    space: tuple[Extent, ...] = ()

    def at(self, widths: Mapping[str, int]) -> LayerShape:
        """The shape when each group has the given width."""
        return self.with_input(self.cin.at(widths), widths)

    def with_input(self, cin: int, widths: Mapping[str, int]) -> LayerShape:
        """The shape with so many input channels, when each group of the other counts has the given width."""
        shape = replace(self.shape, cin=cin, cout=self.cout.at(widths), groups=self.groups.at(widths))
        if not self.space:
            return shape
        size = tuple(extent.at(widths) for extent in self.space)
        if shape.op == "linear":
            return describe_linear(cin, shape.cout, prod(size))
        axes = zip(size, self.space, shape.output_size, strict=True)
        output = tuple(length if extent.groups else out for length, extent, out in axes)
        return replace(shape, size=size, output=output)

    def bind(self, widths: Mapping[str, int]) -> Layer:
        """The layer as it follows the other groups' widths."""
        space = tuple(extent.bind(widths) for extent in self.space)
        cin, cout, groups = self.cin.bind(widths), self.cout.bind(widths), self.groups.bind(widths)
        return replace(self, cin=cin, cout=cout, groups=groups, space=space)

    @property
    def kinds(self) -> frozenset[str]:
        """The groups whose widths make it another kind of layer, as they count heads, filter groups or places."""
        places = frozenset[str]().union(*(extent.groups for extent in self.space))
        return places if self.shape.is_depthwise else places | self.groups.groups

    @property
    def sides(self) -> frozenset[str]:
        """The groups whose widths change more of it than its input channels."""
        return self.kinds | self.groups.groups | self.cout.groups

    @property
    def depends_on(self) -> frozenset[str]:
        """The groups whose widths change this layer's cost."""
        return self.cin.groups | self.sides


def join_ends(shape: LayerShape) -> tuple[LayerShape, LayerShape]:
    """The layers that a join is measured by: convolutions with a 1x1 kernel that write and read the joined tensor."""
    return replace(shape, op="conv", cin=JOIN_ENDS), replace(shape, op="conv", cout=JOIN_ENDS)


def gather_beside(operators: Iterable[Layer]) -> tuple[Layer, ...]:
    """What is not timed alone, as one layer for all operators that read the same channels."""
    values: dict[Extent, int] = {}
    channels: dict[Extent, int] = {}
    for operator in operators:
        shape = operator.shape
        reads = SUMMANDS if shape.op in ("add", "mul") else 1
        channels[operator.cin] = shape.cin
        values[operator.cin] = values.get(operator.cin, 0) + reads * prod(shape.size) + prod(shape.output_size)
    return tuple(
        Layer(f"{BESIDE} {number}", LayerShape(BESIDE, channels[cin], channels[cin], size=(count,)), cin, cin)
        for number, (cin, count) in enumerate(values.items())
    )


def find_joins(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """A join for each convolution whose output a later convolution reads, by the groups that they share.

    A layer that runs alone converts its input and output to the layout of its kernel and back. Within a net a tensor
    stays in that layout if its channels allow it, which a join, measured at each width, knows.
    """
    joins = []
    convolutions = [layer for layer in layers if layer.shape.op == "conv"]
    for index, layer in enumerate(convolutions):
        if any(_reads(later, layer) for later in convolutions[index + 1 :]):
            size, (ones, none) = layer.shape.output_size, ((fill,) * len(layer.shape.size) for fill in (1, 0))
            shape = LayerShape(JOIN, layer.shape.cout, layer.shape.cout, ones, ones, 1, size, none)
            joins.append(Layer(f"{layer.name}>", shape, layer.cout, layer.cout))
    return tuple(joins)


def _reads(layer: Layer, before: Layer) -> bool:
    if before.cout.groups:
        return not before.cout.groups.isdisjoint(layer.cin.groups)
    return before.cout.constant == layer.cin.constant and not layer.cin.groups
