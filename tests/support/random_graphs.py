"""Random graphs of ATen operators, built without tracing so that thousands of them take seconds."""

from __future__ import annotations

import operator
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from edgeprune.graph.analysis import Analysis

aten = torch.ops.aten
SIDE = 4


class Builder:
    """A graph under construction; every node carries the tensor that it gives for one random input."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.graph = Graph()
        self.root = nn.Module()
        self.generator = torch.Generator().manual_seed(random.randint(0, 2**31))
        self.layers = 0

    def input(self, *shape: int) -> Node:
        node = self.graph.placeholder("x")
        node.meta["val"] = torch.randn(*shape, generator=self.generator)
        return node

    def parameter(self, owner: str, name: str, *shape: int) -> Node:
        module = self.root.get_submodule(owner) if hasattr(self.root, owner) else nn.Module()
        self.root.add_module(owner, module)
        value = (
            torch.randn(*shape, generator=self.generator)
            if len(shape) > 1
            else torch.rand(*shape, generator=self.generator) + 0.3
        )
        module.register_parameter(name, nn.Parameter(value))
        node = self.graph.get_attr(f"{owner}.{name}")
        node.meta["val"] = value
        return node

    def constant(self, value: Tensor) -> Node:
        name = f"constant{len(self.root._buffers)}"
        self.root.register_buffer(name, value)
        node = self.graph.get_attr(name)
        node.meta["val"] = value
        return node

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Node:
        node = self.graph.call_function(target, args, kwargs)
        values = torch.fx.node.map_arg((args, kwargs), lambda argument: argument.meta["val"])
        with torch.no_grad():
            node.meta["val"] = target(*values[0], **values[1])
        return node

    def item(self, node: Node, place: int) -> Node:
        return self.call(operator.getitem, node, place)

    def layer(self) -> str:
        self.layers += 1
        return f"layer{self.layers}"

    def conv(self, x: Node, cout: int, kernel: int = 1, groups: int = 1) -> Node:
        name, cin = self.layer(), channels(x)
        weight = self.parameter(name, "weight", cout, cin // groups, kernel, kernel)
        bias = self.parameter(name, "bias", cout)
        return self.call(aten.conv2d.default, x, weight, bias, [1, 1], [kernel // 2] * 2, [1, 1], groups)

    def linear(self, x: Node, cout: int) -> Node:
        name = self.layer()
        weight = self.parameter(name, "weight", cout, x.meta["val"].shape[-1])
        return self.call(aten.linear.default, x, weight, self.parameter(name, "bias", cout))

    def batch_norm(self, x: Node) -> Node:
        name, width = self.layer(), channels(x)
        vectors = [self.parameter(name, key, width) for key in ("weight", "bias", "running_mean", "running_var")]
        return self.call(aten.batch_norm.default, x, *vectors, False, 0.1, 1e-5, False)


def channels(x: Node) -> int:
    return int(x.meta["val"].shape[1])


def divisor(random: Random, width: int) -> int:
    return random.choice([number for number in range(1, width + 1) if width % number == 0])


def convolve(build: Builder, x: Node) -> Node:
    return build.conv(x, build.random.randint(2, 10), build.random.choice([1, 3]))


def grouped(build: Builder, x: Node) -> Node:
    groups = divisor(build.random, channels(x))
    return build.conv(x, groups * build.random.randint(1, 3), 3, groups)


def normalise(build: Builder, x: Node) -> Node:
    kind, width = build.random.choice(["batch", "group", "layer"]), channels(x)
    if kind == "batch":
        return build.batch_norm(x)
    name = build.layer()
    weight, bias = build.parameter(name, "weight", width), build.parameter(name, "bias", width)
    if kind == "group":
        return build.call(aten.group_norm.default, x, divisor(build.random, width), weight, bias, 1e-2)
    last = build.call(aten.permute.default, x, [0, 2, 3, 1])
    normed = build.call(aten.layer_norm.default, last, [width], weight, bias, 1e-2)
    return build.call(aten.permute.default, normed, [0, 3, 1, 2])


def activate(build: Builder, x: Node) -> Node:
    return build.call(
        build.random.choice([aten.relu.default, aten.sigmoid.default, aten.hardswish.default, aten.tanh.default]), x
    )


def residual(build: Builder, x: Node) -> Node:
    return build.call(aten.add.Tensor, x, build.conv(x, channels(x)))


def excite(build: Builder, x: Node) -> Node:
    mean = build.call(aten.mean.dim, x, [2, 3], True)
    gate = build.conv(build.call(aten.relu.default, build.conv(mean, build.random.randint(2, 4))), channels(x))
    return build.call(aten.mul.Tensor, x, build.call(aten.sigmoid.default, gate))


def join(build: Builder, x: Node) -> Node:
    return build.call(aten.cat.default, [build.conv(x, build.random.randint(1, 5)), x], 1)


def halves(build: Builder, x: Node) -> Node:
    if channels(x) < 2:
        return x
    pieces = build.call(aten.chunk.default, x, 2, 1)
    left, right = build.item(pieces, 0), build.item(pieces, 1)
    return build.call(aten.cat.default, [convolve(build, right), left], 1)


def parts(build: Builder, x: Node) -> Node:
    if channels(x) < 2:
        return x
    where = build.random.randint(1, channels(x) - 1)
    left = build.call(aten.slice.Tensor, x, 1, 0, where)
    right = build.call(aten.slice.Tensor, x, 1, where, channels(x))
    return build.call(aten.cat.default, [right, build.conv(left, build.random.randint(1, 4), 3)], 1)


def shuffle(build: Builder, x: Node) -> Node:
    outer, width = divisor(build.random, channels(x)), channels(x)
    view = build.call(aten.view.default, x, [2, outer, width // outer, SIDE, SIDE])
    swapped = build.call(aten.contiguous.default, build.call(aten.transpose.int, view, 1, 2))
    return build.call(aten.view.default, swapped, [2, width, SIDE, SIDE])


def fold(build: Builder, x: Node) -> Node:
    """A radix: channels viewed as two dimensions, one of them summed."""
    outer, width = divisor(build.random, channels(x)), channels(x)
    view = build.call(aten.reshape.default, x, [2, outer, width // outer, SIDE, SIDE])
    return build.call(
        build.random.choice([aten.sum.dim_IntList, aten.amax.default, aten.mean.dim]),
        view,
        [build.random.choice([1, 2])],
    )


def reorder(build: Builder, x: Node) -> Node:
    width = channels(x)
    kind = build.random.choice(["roll", "flip", "index", "repeat"])
    if kind == "roll":
        return build.call(aten.roll.default, x, [build.random.randint(0, width)], [1])
    if kind == "flip":
        return build.call(aten.flip.default, x, [1])
    if kind == "repeat":
        return build.call(aten.repeat.default, x, [1, 2, 1, 1]) if width < 8 else x
    return build.call(aten.index_select.default, x, 1, build.constant(torch.randperm(width, generator=build.generator)))


def self_sum(build: Builder, x: Node) -> Node:
    return build.call(aten.add.Tensor, x, reorder(build, x)) if channels(x) >= 8 else x


def pad(build: Builder, x: Node) -> Node:
    amounts = [0, 0, 0, 0, build.random.randint(0, 3), build.random.randint(0, 3)]
    padded = build.call(aten.pad.default, x, amounts)
    return build.call(aten.add.Tensor, padded, build.conv(x, channels(padded)))


def gate_by_mean(build: Builder, x: Node) -> Node:
    return build.call(aten.mul.Tensor, x, build.call(aten.mean.dim, x, [1], True))


def glu(build: Builder, x: Node) -> Node:
    return build.call(aten.glu.default, build.conv(x, 2 * build.random.randint(2, 5)), 1)


def attend(build: Builder, x: Node) -> Node:
    heads, width = build.random.choice([1, 2, 4]), build.random.randint(2, 4)
    tokens = build.call(aten.transpose.int, build.call(aten.flatten.using_ints, x, 2), 1, 2)
    qkv = build.call(aten.reshape.default, build.linear(tokens, 3 * heads * width), [2, SIDE * SIDE, 3, heads, width])
    pieces = build.call(aten.unbind.int, build.call(aten.permute.default, qkv, [2, 0, 3, 1, 4]))
    query, key, value = (build.item(pieces, place) for place in range(3))
    mixed = build.call(aten.scaled_dot_product_attention.default, query, key, value)
    flat = build.call(
        aten.reshape.default, build.call(aten.transpose.int, mixed, 1, 2), [2, SIDE * SIDE, heads * width]
    )
    out = build.call(aten.transpose.int, build.linear(flat, channels(x)), 1, 2)
    return build.call(aten.add.Tensor, x, build.call(aten.unflatten.int, out, 2, [SIDE, SIDE]))


STEPS = (
    convolve, grouped, normalise, activate, residual, excite, join, halves, parts, shuffle, fold, reorder, self_sum,
    pad, gate_by_mean, glu, attend,
)  # fmt: skip


def random_graph(random: Random, steps: int) -> GraphModule:
    """A net of `steps` random operator patterns on 2 x 3 x 4 x 4 images, with a linear head."""
    build = Builder(random)
    nodes = [build.conv(build.input(2, 3, SIDE, SIDE), random.randint(2, 10), 3)]
    for _ in range(steps):
        x = random.choice(STEPS)(build, random.choice(nodes[-2:]))
        nodes.append(build.conv(x, 8) if channels(x) > 24 else x)
    feature = build.call(aten.cat.default, [build.call(aten.mean.dim, node, [2, 3]) for node in nodes[-2:]], 1)
    flat = build.call(aten.flatten.using_ints, nodes[-1], 1)
    build.graph.output((build.linear(feature, 3), build.linear(flat, 2)))
    return GraphModule(build.root, build.graph)


def random_plan(analysis: Analysis, random: Random) -> dict[str, list[int]]:
    """Any subset of every free group, and any choice of branches."""
    return {
        group.name: sorted(random.sample(range(group.size), random.randint(0 if group.is_branch else 1, group.size)))
        for group in analysis.groups
        if not group.frozen
    }
