"""What the cases of operator families are made of, and random cuts of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.graph.analysis import Analysis

torch.set_num_threads(1)


class Net(nn.Module):
    """Layers and a forward function."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor], **layers: nn.Module | Tensor | nn.Parameter) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            if isinstance(layer, Tensor) and not isinstance(layer, nn.Parameter):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


@dataclass(frozen=True)
class Case:
    """A net, its input (without batch), and what is expected: sizes of free groups, reasons of frozen ones."""

    name: str
    net: Callable[[], nn.Module]
    shape: tuple[int, ...]
    free: Mapping[str, int]
    frozen: Mapping[str, str] = field(default_factory=dict)
    indices: int = 0


def conv(cin: int, cout: int, kernel: int = 3, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, padding=kernel // 2, groups=groups)


def head(width: int) -> nn.Linear:
    return nn.Linear(width, 5)


def pooled(net: Net, x: Tensor) -> Tensor:
    return net.head(x.mean((2, 3)))


def attention(net: Net, x: Tensor, product: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    batch, tokens, width = x.shape
    q, k, v = net.qkv(x).reshape(batch, tokens, 3, 4, width // 4).permute(2, 0, 3, 1, 4).unbind(0)
    return net.head(product(q, k, v).transpose(1, 2).reshape(batch, tokens, width)).mean(1)


def by_matmul(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) * 0.3).softmax(-1) @ v


def by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bhnm,bhmd->bhnd", torch.einsum("bhnd,bhmd->bhnm", q, k).softmax(-1), v)


def by_folded_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Heads folded into the batch, as torch's own multi-head attention does."""
    batch, heads, tokens, width = q.shape
    q, k, v = (tensor.reshape(batch * heads, tokens, width) for tensor in (q, k, v))
    return torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v).reshape(batch, heads, tokens, width)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width).transpose(1, 2).contiguous()
    return x.view(batch, channels, height, width)


def shuffled_halves(net: Net, x: Tensor) -> Tensor:
    left, right = net.a(x).chunk(2, 1)
    left, right = channel_shuffle(torch.cat((left, net.b(right)), 1), 2).chunk(2, 1)
    return pooled(net, torch.cat((net.c(left), right), 1))


def standardised(net: Net, x: Tensor) -> Tensor:
    weight = net.conv.weight
    flat = F.batch_norm(weight.reshape(1, weight.shape[0], -1), None, None, training=True, momentum=0.0)
    return pooled(net, F.conv2d(net.stem(x), flat.reshape_as(weight), padding=1))


def efficient_channel_attention(net: Net, x: Tensor) -> Tensor:
    x = net.a(x)
    gate = net.eca(x.mean((2, 3)).view(x.shape[0], 1, -1)).view(x.shape[0], -1, 1, 1).sigmoid()
    return pooled(net, x * gate.expand_as(x))


def padded_shortcut(net: Net, x: Tensor) -> Tensor:
    x = net.a(x)
    return pooled(net, F.relu(net.b(x) + F.pad(x, (0, 0, 0, 0, 4, 4))))


def unevenly_padded(net: Net, x: Tensor) -> Tensor:
    """As in pyramidal nets (Han et al. 2017), but with zeros before the channels too, and not as many."""
    x = net.a(x)
    return pooled(net, F.relu(net.b(x) + F.pad(x, (0, 0, 0, 0, 2, 4))))


def last(net: Net, x: Tensor) -> Tensor:
    return net.head(net.cell(net.embed(x))[0][:, -1])


def token_mixing(net: Net, x: Tensor) -> Tensor:
    """A layer on the token axis works on as many vectors as there are channels (Tolstikhin et al. 2021)."""
    x = net.stem(x)
    return net.head(x + net.down(F.gelu(net.up(x.transpose(1, 2)))).transpose(1, 2)).mean(1)


def mixing_by_convolution(net: Net, x: Tensor) -> Tensor:
    """A convolution of one place mixes tokens, its channels, at each place, a channel (CoaT, Xu et al. 2021)."""
    x = net.stem(x)
    x = x + net.down(F.gelu(net.up(x)))
    return net.head(net.last(torch.stack((x.mean(1), x.amax(1), x[:, 0]), 1)).squeeze(1))


def weight_normed(net: Net, x: Tensor) -> Tensor:
    norms = net.conv.weight.detach().square().sum((0, 2, 3), keepdim=True).sqrt()
    return pooled(net, F.conv2d(net.stem(x), torch._weight_norm(net.conv.weight, norms, 1), padding=1))


def halo_attention(net: Net, x: Tensor) -> Tensor:
    """Blocks of queries, each with the keys and values of a window around it (Vaswani et al. 2021)."""
    x = net.stem(x)
    batch = x.shape[0]
    q = net.q(x).reshape(batch, 2, 4, 2, 4, 2, 4).permute(0, 1, 3, 5, 4, 6, 2).reshape(batch * 2, 4, 16, 4)
    wide = F.pad(net.kv(x), (1, 1, 1, 1)).unfold(2, 6, 4).unfold(3, 6, 4)
    k, v = wide.reshape(batch * 2, 10, 4, 36).permute(0, 2, 3, 1).split([4, 6], -1)
    mixed = F.scaled_dot_product_attention(q, k, v)
    mixed = mixed.reshape(batch, 2, 2, 2, 4, 4, 6).permute(0, 1, 6, 2, 4, 3, 5).reshape(batch, 12, 8, 8)
    return pooled(net, mixed)


def multiscale_attention(net: Net, x: Tensor) -> Tensor:
    """Queries, keys and values through a window with the heads in the batch, relative positions added in place (Li et
    al. 2022)."""
    batch, tokens, _ = x.shape
    parts = net.qkv(net.stem(x)).reshape(batch, tokens, 3, 2, -1).permute(2, 0, 3, 1, 4).unbind(0)
    windows, norms = (net.window_q, net.window_k, net.window_v), (net.norm_q, net.norm_k, net.norm_v)
    q, k, v = (
        norm(window(part.reshape(-1, 4, 4, 6).permute(0, 3, 1, 2)).reshape(-1, 2, 6, size).transpose(2, 3))
        for part, window, norm, size in zip(parts, windows, norms, (16, 4, 4), strict=True)
    )
    scores = q * 0.4 @ k.transpose(-2, -1)
    rows = torch.einsum("byhwc,hkc->byhwk", q.reshape(batch, 2, 4, 4, 6), net.rows)
    columns = torch.einsum("byhwc,wkc->byhwk", q.reshape(batch, 2, 4, 4, 6), net.columns)
    placed = scores[:, :, :, :].view(batch, -1, 4, 4, 2, 2) + rows.unsqueeze(-1) + columns.unsqueeze(-2)
    scores[:, :, :, :] = placed.view(batch, -1, 16, 4)
    mixed = (scores.softmax(-1) @ v + q).transpose(1, 2).reshape(batch, -1, 12)
    return net.head(net.proj(mixed).mean(1))


def attention_case(name: str, product: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Case:
    def build() -> nn.Module:
        return Net(lambda net, x: attention(net, x, product), qkv=nn.Linear(24, 72), head=head(24))

    return Case(name, build, (7, 24), {})


def image(name: str, function: Callable[[Net, Tensor], Tensor], free: Mapping[str, int], **layers: object) -> Case:
    """A case on 3 x 8 x 8 images; layers are constructors."""
    makers = {key: value for key, value in layers.items() if key != "frozen"}
    frozen = layers.get("frozen", {})
    return Case(name, lambda: Net(function, **{key: make() for key, make in makers.items()}), (3, 8, 8), free, frozen)  # type: ignore[operator, arg-type]


def simple(function: Callable[[Net, Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    """A convolution, a function, a convolution, a head."""
    return lambda net, x: pooled(net, net.b(function(net, net.a(x))))


def randomise(model: nn.Module) -> nn.Module:
    """No statistic and no scale at its initial 0 or 1, which would hide a wrong slice."""
    torch.manual_seed(0)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.uniform_(0.3, 1.5) if value.dim() == 1 else value.normal_()
    return model


def random_keep(analysis: Analysis, seed: int = 0) -> dict[str, list[int]]:
    """About half of every free group."""
    source = random.Random(seed)
    return {
        group.name: sorted(source.sample(range(group.size), (group.size + 1) // 2))
        for group in analysis.groups
        if not group.frozen
    }


def example_of(case: Case) -> Tensor:
    return torch.randint(case.indices, (2, *case.shape)) if case.indices else torch.randn(2, *case.shape)
