"""One small net for each operator family, and what is expected of its groups."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.graph.groups import Analysis

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
    q, k, v = (one.reshape(batch * heads, tokens, width) for one in (q, k, v))
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


def last(net: Net, x: Tensor) -> Tensor:
    return net.head(net.cell(net.embed(x))[0][:, -1])


def weight_normed(net: Net, x: Tensor) -> Tensor:
    norms = net.conv.weight.detach().square().sum((0, 2, 3), keepdim=True).sqrt()
    return pooled(net, F.conv2d(net.stem(x), torch._weight_norm(net.conv.weight, norms, 1), padding=1))


def attention_case(name: str, product: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Case:
    def build() -> nn.Module:
        return Net(lambda net, x: attention(net, x, product), qkv=nn.Linear(24, 72), head=head(24))

    return Case(name, build, (7, 24), {})


def image(name: str, function: Callable[[Net, Tensor], Tensor], free: Mapping[str, int], **layers: object) -> Case:
    """A case on 3 x 8 x 8 images; layers are constructors."""
    made = {key: value for key, value in layers.items() if key != "frozen"}
    frozen = layers.get("frozen", {})
    return Case(name, lambda: Net(function, **{key: make() for key, make in made.items()}), (3, 8, 8), free, frozen)  # type: ignore[operator, arg-type]


def simple(function: Callable[[Net, Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    """A convolution, a function, a convolution, a head."""
    return lambda net, x: pooled(net, net.b(function(net, net.a(x))))


A8, B8 = (lambda: conv(3, 8)), (lambda: conv(8, 6))
TAIL = {"b": B8, "head": lambda: head(6)}
BOTH = {"a": 8, "b": 6}

CASES = [
    image("conv2d", simple(lambda net, x: x), BOTH, a=A8, **TAIL),
    Case(
        "conv1d",
        lambda: nn.Sequential(
            nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 6, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), head(6)
        ),
        (3, 16),
        {"0": 8, "2": 6},
    ),
    Case(
        "conv3d",
        lambda: nn.Sequential(nn.Conv3d(2, 8, 3), nn.MaxPool3d(2), nn.Conv3d(8, 4, 1), nn.Flatten(), head(4 * 8)),
        (2, 6, 6, 6),
        {"0": 8, "2": 4},
    ),
    image(
        "transposed",
        simple(lambda net, x: net.up(x)),
        {**BOTH, "up": 8},
        a=A8,
        up=lambda: nn.ConvTranspose2d(8, 8, 2, 2),
        **TAIL,
    ),
    image(
        "transposed_grouped",
        simple(lambda net, x: net.up(x)),
        {"a:groups": 2, "a": 4, "up": 4, "b": 6},
        a=A8,
        up=lambda: nn.ConvTranspose2d(8, 8, 2, 2, groups=2),
        **TAIL,
    ),
    image(
        "grouped",
        simple(lambda net, x: net.g(x)),
        {"a:groups": 4, "a": 2, "g": 2, "b": 6},
        a=A8,
        g=lambda: conv(8, 8, groups=4),
        **TAIL,
    ),
    image("depthwise", simple(lambda net, x: net.g(x)), BOTH, a=A8, g=lambda: conv(8, 8, groups=8), **TAIL),
    image(
        "depthwise_multiplier",
        lambda net, x: pooled(net, net.b(net.g(net.a(x)))),
        {"a:groups": 8, "g": 2, "b": 6},
        a=A8,
        g=lambda: conv(8, 16, groups=8),
        b=lambda: conv(16, 6),
        head=lambda: head(6),
    ),
    image("batch_norm", simple(lambda net, x: net.n(x)), BOTH, a=A8, n=lambda: nn.BatchNorm2d(8), **TAIL),
    image(
        "instance_norm",
        simple(lambda net, x: net.n(x)),
        BOTH,
        a=A8,
        n=lambda: nn.InstanceNorm2d(8, affine=True),
        **TAIL,
    ),
    image(
        "group_norm",
        simple(lambda net, x: net.n(x)),
        {"a:groups": 4, "a": 2, "b": 6},
        a=A8,
        n=lambda: nn.GroupNorm(4, 8),
        **TAIL,
    ),
    image("group_norm_1", simple(lambda net, x: net.n(x)), BOTH, a=A8, n=lambda: nn.GroupNorm(1, 8), **TAIL),
    image(
        "layer_norm",
        simple(lambda net, x: net.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
        BOTH,
        a=A8,
        n=lambda: nn.LayerNorm(8),
        **TAIL,
    ),
    image(
        "rms_norm",
        simple(lambda net, x: net.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
        BOTH,
        a=A8,
        n=lambda: nn.RMSNorm(8),
        **TAIL,
    ),
    image(
        "norm_by_hand",
        simple(lambda net, x: (x - x.mean(1, True)) / (x.var(1, keepdim=True) + 1e-3).sqrt()),
        BOTH,
        a=A8,
        **TAIL,
    ),
    image(
        "channel_maximum", simple(lambda net, x: x * (x.amax(1, True) + x.sum(1, True)).sigmoid()), BOTH, a=A8, **TAIL
    ),
    image("l2_normalised", simple(lambda net, x: F.normalize(x, dim=1)), BOTH, a=A8, **TAIL),
    image("pooling", simple(lambda net, x: F.avg_pool2d(F.max_pool2d(x, 2), 2)), BOTH, a=A8, **TAIL),
    image(
        "interpolate", simple(lambda net, x: F.interpolate(x, scale_factor=2.0, mode="bilinear")), BOTH, a=A8, **TAIL
    ),
    image(
        "activations",
        simple(lambda net, x: F.hardswish(F.gelu(x)).clamp(-1, 2) * F.silu(x) + F.elu(x)),
        BOTH,
        a=A8,
        **TAIL,
    ),
    image(
        "where", simple(lambda net, x: torch.where(x > 0, x, 0.1 * net.c(x))), BOTH, a=A8, c=lambda: conv(8, 8), **TAIL
    ),
    image("prelu", simple(lambda net, x: net.p(x)), BOTH, a=A8, p=lambda: nn.PReLU(8), **TAIL),
    image("glu", simple(lambda net, x: F.glu(net.c(x), 1)), {**BOTH, "c": 8}, a=A8, c=lambda: conv(8, 16), **TAIL),
    image("dropout", simple(lambda net, x: net.d(x)), BOTH, a=A8, d=lambda: nn.Dropout2d(0.3), **TAIL),
    image("residual", simple(lambda net, x: x + F.relu(net.c(x))), BOTH, a=A8, c=lambda: conv(8, 8), **TAIL),
    image(
        "squeeze_excitation",
        simple(lambda net, x: x * net.up(F.relu(net.down(x.mean((2, 3), keepdim=True)))).sigmoid()),
        {**BOTH, "down": 4},
        a=A8,
        down=lambda: conv(8, 4, 1),
        up=lambda: conv(4, 8, 1),
        **TAIL,
    ),
    image(
        "gate_of_one_channel", simple(lambda net, x: x * net.g(x).sigmoid()), BOTH, a=A8, g=lambda: conv(8, 1), **TAIL
    ),
    image(
        "cat",
        lambda net, x: pooled(net, net.b(torch.cat((net.c(x), net.a(x)), 1))),
        {"a": 5, "c": 3, "b": 6},
        a=lambda: conv(3, 5),
        c=lambda: conv(3, 3),
        **TAIL,
    ),
    image(
        "cat_with_input",
        lambda net, x: pooled(net, net.b(torch.cat((x, net.a(x)), 1))),
        {"a": 5, "b": 6},
        a=lambda: conv(3, 5),
        **TAIL,
    ),
    image(
        "stack", simple(lambda net, x: torch.stack((x, net.c(x)), 2).sum(2)), BOTH, a=A8, c=lambda: conv(8, 8), **TAIL
    ),
    image(
        "split",
        simple(lambda net, x: torch.cat((F.relu(x.split([5, 3], 1)[0]), x.split([5, 3], 1)[1]), 1)),
        {"a#1": 5, "a#2": 3, "b": 6},
        a=A8,
        **TAIL,
    ),
    image(
        "chunk",
        simple(lambda net, x: torch.cat([F.relu(x.chunk(2, 1)[0]), x.chunk(2, 1)[1]], 1)),
        {"a#1": 4, "a#2": 4, "b": 6},
        a=A8,
        **TAIL,
    ),
    image(
        "slice",
        simple(lambda net, x: torch.cat((x[:, 3:], x[:, :3] * 2), 1)),
        {"a#1": 3, "a#2": 5, "b": 6},
        a=A8,
        **TAIL,
    ),
    image(
        "slice_with_step",
        simple(lambda net, x: torch.cat((x[:, ::2], x[:, 1::2]), 1)),
        {"a#1": 4, "a#2": 4, "b": 6},
        a=A8,
        **TAIL,
    ),
    image(
        "narrow",
        simple(lambda net, x: torch.cat((x.narrow(1, 0, 3), x.narrow(1, 3, 5)), 1)),
        {"a#1": 3, "a#2": 5, "b": 6},
        a=A8,
        **TAIL,
    ),
    image(
        "select",
        simple(lambda net, x: x * x.select(1, 2).unsqueeze(1)),
        {"a#1": 7, "b": 6},
        a=A8,
        **TAIL,
        frozen={"a#2": "takes it alone"},
    ),
    image("roll", simple(lambda net, x: x + x.roll(2, 1)), {"b": 6, "a": 2}, a=A8, **TAIL),
    image("roll_before_conv", simple(lambda net, x: x.roll(3, 1)), {"b": 6, "a": 8}, a=A8, **TAIL),
    image("flip", simple(lambda net, x: x.flip(1)), BOTH, a=A8, **TAIL),
    image("flip_space", simple(lambda net, x: x.flip(2).roll((1, 2), (2, 3))), BOTH, a=A8, **TAIL),
    image(
        "pixel_shuffle",
        simple(lambda net, x: F.pixel_shuffle(net.c(x), 2)),
        {"a": 8, "c": 8, "b": 6},
        a=A8,
        c=lambda: conv(8, 32),
        **TAIL,
    ),
    image(
        "pixel_unshuffle",
        lambda net, x: pooled(net, net.b(F.pixel_unshuffle(net.a(x), 2))),
        {"a": 2, "b": 6},
        a=lambda: conv(3, 2),
        **TAIL,
    ),
    image(
        "repeat",
        lambda net, x: pooled(net, net.b(net.a(x).repeat(1, 2, 1, 1))),
        {"a": 4, "b": 6},
        a=lambda: conv(3, 4),
        **TAIL,
    ),
    image(
        "repeat_interleave",
        lambda net, x: pooled(net, net.b(net.a(x).repeat_interleave(2, 1))),
        {"a": 4, "b": 6},
        a=lambda: conv(3, 4),
        **TAIL,
    ),
    image("expand", simple(lambda net, x: x + x.mean((1, 2, 3), keepdim=True).expand(-1, 8, 1, 1)), BOTH, a=A8, **TAIL),
    image(
        "made_of_literals",
        simple(lambda net, x: x * torch.full((8, 1, 1), 2.0) + x.new_zeros(x.shape[0], 8, 1, 1)),
        BOTH,
        a=A8,
        **TAIL,
    ),
    image("padded_shortcut", padded_shortcut, {"a": 8, "b": 8}, a=A8, b=lambda: conv(8, 16), head=lambda: head(16)),
    image(
        "constant_index",
        simple(lambda net, x: x.index_select(1, net.order)),
        BOTH,
        a=A8,
        order=lambda: torch.randperm(8),
        **TAIL,
    ),
    image("buffer", simple(lambda net, x: x * net.scale), BOTH, a=A8, scale=lambda: torch.rand(8, 1, 1), **TAIL),
    image("shared_weight", simple(lambda net, x: net.c(F.relu(net.c(x)))), BOTH, a=A8, c=lambda: conv(8, 8), **TAIL),
    image(
        "channel_shuffle",
        shuffled_halves,
        {"a#1": 2, "b#1": 2},
        a=A8,
        b=lambda: conv(4, 4),
        c=lambda: conv(4, 4),
        head=lambda: head(8),
    ),
    image("standardised_weight", standardised, {"stem": 8, "conv": 6}, stem=A8, conv=B8, head=lambda: head(6)),
    image(
        "slice_of_open_size",
        simple(lambda net, x: x + x[:, : x.shape[0]].mean(1, True)),
        {"b": 6},
        a=A8,
        **TAIL,
        frozen={"a": "no rule for aten.slice"},
    ),
    image("normed_weight", weight_normed, {"stem": 8, "conv": 6}, stem=A8, conv=B8, head=lambda: head(6)),
    image(
        "unfold_and_fold",
        simple(lambda net, x: F.fold(F.unfold(x, 2, stride=2), (8, 8), 2, stride=2)),
        BOTH,
        a=A8,
        **TAIL,
    ),
    image(
        "attention_along_channels",
        efficient_channel_attention,
        {"a": 8},
        a=A8,
        eca=lambda: nn.Conv1d(1, 1, 3, padding=1),
        head=lambda: head(8),
    ),
    image(
        "softmax_over_channels",
        simple(lambda net, x: x.softmax(1)),
        {"b": 6},
        a=A8,
        **TAIL,
        frozen={"a": "runs along it"},
    ),
    image(
        "softmax_over_space", simple(lambda net, x: x.flatten(2).softmax(-1).unflatten(2, (8, 8))), BOTH, a=A8, **TAIL
    ),
    image(
        "maximum_index",
        simple(lambda net, x: x + x.max(1, keepdim=True)[0]),
        {"b": 6},
        a=A8,
        **TAIL,
        frozen={"a": "picks along it"},
    ),
    image(
        "unknown_operator",
        simple(lambda net, x: torch.fft.rfft(x, dim=1).abs()[:, :8].repeat(1, 2, 1, 1)[:, :8]),
        {"b": 6},
        a=A8,
        **TAIL,
        frozen={"a": "no rule for aten.fft_rfft"},
    ),
    image(
        "flatten_to_linear",
        lambda net, x: net.head(F.max_pool2d(net.a(x), 2).flatten(1)),
        {"a": 8},
        a=A8,
        head=lambda: head(8 * 16),
    ),
    image(
        "linear_to_image",
        lambda net, x: pooled(net, net.b(net.up(x.flatten(1)).unflatten(1, (8, 4, 4)))),
        {"up": 8, "b": 6},
        up=lambda: nn.Linear(192, 128),
        **TAIL,
    ),
    Case(
        "linear",
        lambda: nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 9), nn.Tanh(), head(9)),
        (6,),
        {"0": 12, "2": 9},
    ),
    Case(
        "product_with_parameter",
        lambda: Net(lambda net, x: net.head(x @ net.weight), weight=nn.Parameter(torch.randn(6, 8)), head=head(8)),
        (6,),
        {"weight": 8},
    ),
    Case(
        "token_mixing",
        lambda: Net(
            lambda net, x: net.head(x + net.down(F.gelu(net.up(x.transpose(1, 2)))).transpose(1, 2)).mean(1),
            up=nn.Linear(7, 10),
            down=nn.Linear(10, 7),
            head=head(6),
        ),
        (7, 6),
        {"up": 10},
        {"down": "no channels"},
    ),
    attention_case("attention_by_matmul", by_matmul),
    attention_case("attention_by_einsum", by_einsum),
    attention_case("attention_causal", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    attention_case("attention_masked", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.eye(7))),
    attention_case("attention_folded", by_folded_heads),
    attention_case("attention_fused", F.scaled_dot_product_attention),
    Case(
        "lstm",
        lambda: Net(last, embed=nn.Embedding(11, 6), cell=nn.LSTM(6, 8, num_layers=2, batch_first=True), head=head(8)),
        (5,),
        {"embed": 6, "cell.weight_ih_l0": 8},
        indices=11,
    ),
    Case(
        "gru_both_ways",
        lambda: Net(
            last, embed=nn.Embedding(11, 6), cell=nn.GRU(6, 8, batch_first=True, bidirectional=True), head=head(16)
        ),
        (5,),
        {"embed": 6, "cell.weight_ih_l0": 8},
        indices=11,
    ),
]


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
