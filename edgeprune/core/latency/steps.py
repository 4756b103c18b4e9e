"""What takes time in a net beside its convolutions and linear layers, from its operators in order.

A graph and a file name operators in ways of their own, and runtimes compute some within others. Both are brought to the
same steps first, so that one function says what is listed and how it is described. Nothing is listed of what only moves
values about (views, transpositions, slices, padding): runtimes fold most of it away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from edgeprune.core.latency.layers import (
    ACTIVATIONS,
    ATTENTION,
    TRANSPOSED,
    WEIGHTED,
    LayerShape,
    Window,
    describe_window,
)

Sizes = Mapping[str, tuple[int, ...]]
Place = tuple[str, tuple[int, ...]]
"""Axes of a tensor, whose slices are counted."""

CLAMP, SCALE, POINTWISE, CURVE = "clamp", "scale", "pointwise", "curve"
"""Operators on single values: ReLU and its like; a product or a sum with constants, as a batch norm is one; others of a
few instructions a value; those with an exponential or a root."""
ADD, MUL, CONCAT, RESIZE, SOFTMAX, PRODUCT, NORM = "add", "mul", "concat", "resize", "softmax", "product", "norm"
POOL, REDUCE = "pool", "reduce"
VIEW, PERMUTE, FREE = "view", "permute", "free"
"""What is not listed: the same values in another shape, or in another order of axes; parts of them, or more."""

GATES = {"sigmoid": "silu", "hardsigmoid": "hardswish"}
"""Gates that make an activation of a tensor when it is multiplied with them."""
LISTED = (POOL, ADD, MUL, CONCAT, RESIZE, SOFTMAX, PRODUCT, NORM, REDUCE, POINTWISE, CURVE, ATTENTION, *ACTIVATIONS)
"""What is listed beside layers."""
DESCRIBED = {
    **dict(zip(LISTED, LISTED, strict=True)),
    **dict.fromkeys((CLAMP, SCALE, "hardsigmoid"), POINTWISE),
    "sigmoid": CURVE,
}
"""As what a kind is listed where nothing has absorbed it."""
FUSED = {SCALE: (*WEIGHTED, NORM, SCALE), CLAMP: (*WEIGHTED, ADD, MUL, SCALE)}
"""What runtimes compute within the operator before it, if nothing else reads that: which operators these are."""


@dataclass(frozen=True)
class Step:
    """An operator: the tensors that it reads, constants left out, and the one that it writes.

    `kind` is one of WEIGHTED, LISTED, GATES, or what is said above. `axes` are those of a reduction, a softmax or a
    concatenation, or the order of a permutation; `window` is that of a pool.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    writes: str
    axes: tuple[int, ...] = ()
    window: Window | None = None


@dataclass(frozen=True)
class Operator:
    """What is listed: its shape, and the slices that its counts of channels and places are counts of, batch included.

    `layer` is the convolution or linear layer that it follows directly, "" if there is none.
    """

    step: Step
    shape: LayerShape
    cin: Place
    cout: Place
    groups: Place = ("", ())
    places: Place = ("", ())
    layer: str = ""


@dataclass
class _Net:
    """Steps with who makes and who reads each tensor, and on which axis its channels are."""

    sizes: Sizes
    batch: int
    makers: dict[str, Step] = field(default_factory=dict)
    readers: dict[str, list[Step]] = field(default_factory=dict)
    axes: dict[str, int] = field(default_factory=dict)
    absorbed: set[str] = field(default_factory=set)
    """Names of steps that are computed within others."""
    scores: dict[str, Step] = field(default_factory=dict)
    """The product of queries and keys by the name of the product with the values."""
    kinds: dict[str, str] = field(default_factory=dict)
    """What a step is with those that it has absorbed, by name."""

    def add(self, step: Step) -> None:
        """Take a step in, in the order of the net."""
        self.makers[step.writes] = step
        for tensor in dict.fromkeys(step.reads):
            self.readers.setdefault(tensor, []).append(step)
        self.axes[step.writes] = _find_axis(step, self)

    def maker(self, tensor: str) -> Step | None:
        """What makes a tensor, if a single step reads it."""
        return self.makers.get(tensor) if len(self.readers.get(tensor, ())) == 1 else None

    def axis(self, tensor: str) -> int:
        """The axis of its channels."""
        rank = len(self.sizes[tensor])
        return self.axes.get(tensor, 1 if rank > 3 else max(0, rank - 1)) % max(1, rank)

    def others(self, tensor: str) -> tuple[int, ...]:
        """All axes but that of its channels."""
        return tuple(axis for axis in range(len(self.sizes[tensor])) if axis != self.axis(tensor))


def list_operators(steps: Sequence[Step], sizes: Sizes, batch: int) -> list[Operator]:
    """Everything that takes time beside the layers, in order; `sizes` of all tensors are at the given batch."""
    net = _Net(sizes, batch)
    for step in steps:
        net.add(step)
    for step in steps:
        _absorb(step, net)
    listed = [(step, net.kinds.get(step.name, step.kind)) for step in steps if step.name not in net.absorbed]
    return [_describe(step, DESCRIBED[kind], net) for step, kind in listed if kind in DESCRIBED]


def _find_axis(step: Step, net: _Net) -> int:
    """Where the channels of what a step writes are: as its kind has it, or where they were in what it reads."""
    rank = len(net.sizes[step.writes])
    source = next((tensor for tensor in step.reads if len(net.sizes[tensor]) == rank), "")
    if step.kind in ("conv", TRANSPOSED):
        return 1
    if step.kind in ("linear", PRODUCT, ATTENTION) or (step.kind == REDUCE and not source):
        return rank - 1
    if step.kind == PERMUTE and source:
        return step.axes.index(net.axis(source))
    if step.kind == VIEW and step.reads:
        return _find_viewed_axis(step, net)
    return net.axis(source or step.writes)


def _find_viewed_axis(step: Step, net: _Net) -> int:
    """The axis that is as long as the channels were, with as many values behind it."""
    (source, *_), sizes = step.reads, net.sizes[step.writes]
    old, axis = net.sizes[source], net.axis(source)
    places = (place for place, size in enumerate(sizes) if old and size == old[axis])
    return next((place for place in places if prod(sizes[place:]) == prod(old[axis:])), net.axis(step.writes))


def _absorb(step: Step, net: _Net) -> None:
    """Note which steps are computed within others, and what these then are."""
    maker = net.maker(step.reads[0]) if len(step.reads) == 1 else None
    if step.kind == MUL and len(step.reads) == 2:
        _absorb_gate(step, net)
    elif step.kind == SOFTMAX:
        _absorb_attention(step, net)
    elif maker is not None and (maker.kind in FUSED.get(step.kind, ()) or _ends_norm(step, maker, net)):
        net.absorbed.add(step.name)


def _ends_norm(step: Step, maker: Step, net: _Net) -> bool:
    """Whether a step scales what has been normalised in another shape, as exporters write norms over groups."""
    while maker.kind == VIEW and (before := net.maker(maker.reads[0])) is not None:
        maker = before
    return step.kind == SCALE and maker.kind == NORM


def _absorb_gate(step: Step, net: _Net) -> None:
    for gate, gated in (step.reads, step.reads[::-1]):
        maker = net.maker(gate)
        if maker is not None and maker.kind in GATES and maker.reads == (gated,):
            net.absorbed.add(maker.name)
            net.kinds[step.name] = GATES[maker.kind]


def _absorb_attention(step: Step, net: _Net) -> None:
    """A softmax between two products is attention, with what is done to single values between them."""
    between, scores = _find_source(step.reads[0], net, PRODUCT)
    after = step.writes
    while len(readers := net.readers.get(after, [])) == 1 and readers[0].kind in (VIEW, FREE):
        after = readers[0].writes
    mixing = readers[0] if len(readers) == 1 else None
    if scores is not None and mixing is not None and mixing.kind == PRODUCT and mixing.reads[0] == after:
        scales = [scale for tensor in scores.reads if (scale := _find_source(tensor, net, SCALE)[1]) is not None]
        net.absorbed |= {step.name, scores.name, *between, *(scale.name for scale in scales)}
        net.kinds[mixing.name], net.scores[mixing.name] = ATTENTION, scores


def _find_source(tensor: str, net: _Net, kind: str) -> tuple[list[str], Step | None]:
    """The step of a kind that a tensor comes from, and those on single values between; sums of tensors stay listed."""
    maker = net.maker(tensor)
    if maker is None or maker.kind == kind:
        return [], maker
    if maker.kind not in (VIEW, PERMUTE, FREE, SCALE, POINTWISE, CLAMP, ADD):
        return [], None
    for source in maker.reads:
        between, origin = _find_source(source, net, kind)
        if origin is not None:
            return between + [maker.name] * (maker.kind != ADD), origin
    return [], None


def _describe(step: Step, kind: str, net: _Net) -> Operator:
    if kind in (ATTENTION, PRODUCT):
        return _describe_product(step, kind, net)
    if kind == POOL and step.window is not None:
        return _describe_pool(step, step.window, net)
    if kind == REDUCE:
        return _describe_reduction(step, net)
    tensor = step.writes
    axis, sizes = net.axis(tensor), net.sizes[tensor]
    channels = sizes[axis] if sizes else 1
    places = prod(sizes) // (channels * net.batch)
    shape = LayerShape(kind, channels, channels, size=(places,))
    if kind in ACTIVATIONS:
        shape = replace(shape, kernel=(1,), stride=(1,), padding=(0,))
    if kind == RESIZE:
        space = slice(axis + 1, None)
        shape = replace(shape, size=net.sizes[step.reads[0]][space], output=sizes[space])
        return Operator(step, shape, (tensor, (axis,)), (tensor, (axis,)))
    every = (tensor, (axis,))
    return Operator(step, shape, every, every, places=(tensor, net.others(tensor)), layer=_find_layer(step, net))


def _find_layer(step: Step, net: _Net) -> str:
    """The layer that a step follows, through what is computed within it, norms and views."""
    while len(step.reads) == 1 or net.kinds.get(step.name) in ACTIVATIONS:
        maker = net.makers.get(step.reads[0])
        if maker is None or maker.kind in WEIGHTED:
            return maker.name if maker is not None else ""
        step = maker
    return ""


def _describe_pool(step: Step, window: Window, net: _Net) -> Operator:
    rank = len(window.kernel)
    read, written = (net.sizes[tensor] for tensor in (step.reads[0], step.writes))
    axis = len(read) - rank - 1
    shape = describe_window(POOL, (read[axis],) * 2, (read[axis + 1 :], written[len(written) - rank :]), window)
    return Operator(step, shape, (step.reads[0], (axis,)), (step.reads[0], (axis,)))


def _describe_reduction(step: Step, net: _Net) -> Operator:
    """A reduction over all but the channels is a pool with a window as large; others have no window."""
    tensor = step.reads[0]
    axis, sizes = net.axis(tensor), net.sizes[tensor]
    channels, space = (tensor, (axis,)), tuple(place for place in net.others(tensor) if place)
    if axis and set(step.axes) == set(space):
        size = tuple(sizes[place] for place in space)
        window = Window(size, size)
        shape = describe_window(POOL, (sizes[axis],) * 2, (size, (1,) * len(size)), window)
        return Operator(step, shape, channels, channels)
    remaining = tuple(place for place in range(len(sizes)) if place not in step.axes)
    summed = prod(sizes[place] for place in step.axes)
    shape = LayerShape(REDUCE, summed, 1, size=(prod(sizes) // (summed * net.batch),))
    return Operator(step, shape, (tensor, step.axes), ("", ()), places=(tensor, remaining))


def _describe_product(step: Step, kind: str, net: _Net) -> Operator:
    """`[..., rows, depth] x [..., depth, columns]`; of attention, the queries' product with the keys comes before."""
    left = net.scores[step.name].reads[0] if step.name in net.scores else step.reads[0]
    first, out = net.sizes[left], net.sizes[step.writes]
    lead = tuple(range(len(out) - 2))
    parts = prod(out[:-2]) // net.batch
    keys = net.sizes[step.reads[1]][-2] if step.name not in net.scores else net.sizes[step.reads[0]][-1]
    rows = out[-2] if len(out) > 1 else 1
    size = (rows, keys) if kind == ATTENTION else (rows,)
    shape = LayerShape(kind, parts * first[-1], parts * out[-1], groups=parts, size=size)
    if kind == ATTENTION:
        shape = replace(shape, kernel=(1, 1), stride=(1, 1), padding=(0, 0))
    cin = (left, (*range(len(first) - 2), len(first) - 1))
    return Operator(step, shape, cin, (step.writes, (*lead, len(out) - 1)), (step.writes, lead))
