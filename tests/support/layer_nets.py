"""Small nets, one for each kind of operator that takes time, with an example of their input."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F
from graph_nets import Net
from torch import Tensor, nn

from edgeprune.core.latency.layers import LayerShape

IMAGE, SERIES, VOLUME = (3, 17, 16), (6, 40), (2, 9, 8, 7)


def chain(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


def causal(net: Net, x: Tensor) -> Tensor:
    """A temporal convolutional network: each layer sees the past only (Bai et al. 2018)."""
    x = torch.relu(net.a(F.pad(x, (2, 0))))
    x = torch.relu(x + net.b(F.pad(x, (8, 0))))
    return net.head(x[:, :, -1])


def padded_twice(net: Net, x: Tensor) -> Tensor:
    """Padding that two layers read is that of both; padding with another value than zero stays by itself."""
    x = net.a(x)
    wide = F.pad(x, (1, 1, 1, 1))
    return net.b(wide) + net.c(wide) + net.d(F.pad(x, (1, 1, 1, 1), value=1.0))


WINDOWS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dilated": (chain(nn.Conv2d(3, 8, 3, dilation=2), nn.Conv2d(8, 6, 3, stride=2, dilation=(1, 2), padding=1)), IMAGE),
    "dilated_same": (chain(nn.Conv2d(3, 8, 3, padding="same", dilation=2), nn.Conv2d(8, 6, (1, 3), dilation=2)), IMAGE),
    "even_same": (chain(nn.Conv2d(3, 8, (2, 4), padding="same"), nn.Conv2d(8, 6, 2, stride=2)), IMAGE),
    "causal": (
        lambda: Net(causal, a=nn.Conv1d(6, 8, 3), b=nn.Conv1d(8, 8, 3, dilation=4), head=nn.Linear(8, 3)),
        SERIES,
    ),
    "padded_unevenly": (chain(nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 6, 1)), IMAGE),
    "padded_twice": (
        lambda: Net(
            padded_twice,
            a=nn.Conv2d(3, 8, 1),
            b=nn.Conv2d(8, 6, 3),
            c=nn.Conv2d(8, 6, 3, padding=1, dilation=2),
            d=nn.Conv2d(8, 6, 3),
        ),
        IMAGE,
    ),
    "stride_beyond_kernel": (chain(nn.Conv2d(3, 8, 1, stride=4), nn.Conv2d(8, 6, 2, stride=3)), IMAGE),
    "transposed": (
        chain(
            nn.Conv2d(3, 8, 3),
            nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1),
            nn.ConvTranspose2d(6, 6, 2, stride=2),
            nn.ConvTranspose2d(6, 4, 3, padding=1, dilation=2),
        ),
        IMAGE,
    ),
    "transposed_series": (
        chain(nn.Conv1d(6, 8, 4, stride=2), nn.ConvTranspose1d(8, 4, 5, stride=3, padding=1), nn.ReLU()),
        SERIES,
    ),
    "transposed_in_groups": (
        chain(
            nn.Conv2d(3, 8, 3),
            nn.ConvTranspose2d(8, 12, 2, stride=2, groups=4),
            nn.ConvTranspose2d(12, 12, 3, groups=12),
        ),
        IMAGE,
    ),
    "in_groups": (
        chain(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.Conv2d(8, 12, (1, 3), groups=4)),
        IMAGE,
    ),
    "volume": (
        chain(
            nn.Conv3d(2, 4, 3, padding=1),
            nn.Conv3d(4, 6, (1, 3, 2), dilation=(1, 2, 1)),
            nn.ConvTranspose3d(6, 2, 2, 2),
        ),
        VOLUME,
    ),
}
"""Convolutions by name: a constructor and the shape of an input without its batch."""


def pooled_many_ways(net: Net, x: Tensor) -> Tensor:
    x = F.max_pool2d(net.a(x), 3, stride=2, padding=1, ceil_mode=True)
    x = F.avg_pool2d(x, (2, 1), stride=1) + F.max_pool2d(x, (2, 1), stride=1)
    x = F.adaptive_avg_pool2d(F.max_pool2d(x, 2, dilation=2, stride=1), (5, 3))
    return net.head(F.adaptive_avg_pool2d(x, 1).flatten(1) + x.mean((2, 3)) + x.amax((2, 3)))


def gated(net: Net, x: Tensor) -> Tensor:
    """Squeeze and excitation, and gates that runtimes know as activations, written out."""
    x = F.relu6(net.norm(net.a(x)))
    x = x * net.up(F.silu(net.down(x.mean((2, 3), keepdim=True)))).sigmoid()
    y = net.b(x)
    y = y * y.sigmoid() + F.hardswish(net.b(x + 1)) + F.gelu(x) * torch.tanh(x)
    return net.head((y - x).mean((2, 3)))


def normalised(net: Net, x: Tensor) -> Tensor:
    """Norms that no layer takes in: before a layer, over groups, over the channels of tokens."""
    x = net.b(F.relu(net.before(net.a(x))) * net.scale + 0.5)
    tokens = net.last(net.groups(x).flatten(2).transpose(1, 2))
    return net.head(tokens.mean(1))


def joined(net: Net, x: Tensor) -> Tensor:
    x = torch.cat((net.a(x), x), 1)
    x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    return F.interpolate(net.b(x), size=(20, 24), mode="bilinear").softmax(1)


def twice(net: Net, x: Tensor) -> Tensor:
    """What is computed twice from the same is computed once, and what changes nothing not at all."""
    x = net.a(x)
    return net.b(F.max_pool2d(x, 2)) + net.c(F.max_pool2d(x, 2) * 1.0 + 0)


def attended(net: Net, x: Tensor, product: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    batch, tokens, width = x.shape
    q, k, v = net.qkv(net.norm(x)).reshape(batch, tokens, 3, 4, width // 4).permute(2, 0, 3, 1, 4).unbind(0)
    x = x + net.out(product(q, k, v).transpose(1, 2).reshape(batch, tokens, width))
    return net.head((x + net.narrow(F.gelu(net.wide(x)))).mean(1))


def by_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q * 0.4 @ k.transpose(-2, -1) + 0.1).softmax(-1) @ v


def transformer(product: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    layers = {"qkv": (24, 72), "out": (24, 24), "wide": (24, 40), "narrow": (40, 24), "head": (24, 3)}
    return lambda: Net(
        lambda net, x: attended(net, x, product),
        norm=nn.LayerNorm(24),
        **{name: nn.Linear(*widths) for name, widths in layers.items()},
    )


def products(net: Net, x: Tensor) -> Tensor:
    """Weights on either side of a product, and a product of two tensors."""
    y = torch.relu(x @ net.right)
    y = net.left @ y + x.transpose(1, 2) @ (x @ net.right)
    return net.head(y.mean(1))


OPERATORS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "pools": (lambda: Net(pooled_many_ways, a=nn.Conv2d(3, 8, 3), head=nn.Linear(8, 3)), IMAGE),
    "gates": (
        lambda: Net(
            gated,
            a=nn.Conv2d(3, 8, 3),
            norm=nn.BatchNorm2d(8),
            down=nn.Conv2d(8, 4, 1),
            up=nn.Conv2d(4, 8, 1),
            b=nn.Conv2d(8, 8, 3, padding=1),
            head=nn.Linear(8, 3),
        ),
        IMAGE,
    ),
    "norms": (
        lambda: Net(
            normalised,
            a=nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()),
            before=nn.BatchNorm2d(8),
            scale=nn.Parameter(torch.rand(8, 1, 1)),
            b=nn.Conv2d(8, 12, 3),
            groups=nn.GroupNorm(3, 12),
            last=nn.LayerNorm(12),
            head=nn.Linear(12, 3),
        ),
        IMAGE,
    ),
    "joins": (lambda: Net(joined, a=nn.Conv2d(3, 5, 3, padding=1), b=nn.Conv2d(8, 6, 3)), IMAGE),
    "twice": (lambda: Net(twice, a=nn.Conv2d(3, 5, 3), b=nn.Conv2d(5, 6, 3), c=nn.Conv2d(5, 6, 3)), IMAGE),
    "attention": (transformer(F.scaled_dot_product_attention), (7, 24)),
    "attention_by_products": (transformer(by_product), (7, 24)),
    "products": (
        lambda: Net(
            products,
            right=nn.Parameter(torch.randn(6, 8)),
            left=nn.Parameter(torch.randn(6, 7)),
            head=nn.Linear(8, 3),
        ),
        (7, 6),
    ),
}
"""What else takes time, in the same form."""


def of_values(shape: LayerShape) -> LayerShape | tuple[str, int]:
    """A shape as lists are compared: of an operator on single values, which a file may keep in another order of axes,
    how many there are."""
    if shape.has_weights or shape.op in ("pool", "attention", "resize", "product"):
        return shape
    return shape.op, shape.cin * prod(shape.size)
