"""Residual branches: which are found, and that cutting them leaves the shortcut and nothing else."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import GraphError, PlanError
from edgeprune.graph.analysis import Analysis
from edgeprune.graph.costs import count_macs, full_widths
from edgeprune.graph.eager import apply_to_module
from edgeprune.graph.groups import find_groups
from edgeprune.graph.nodes import operator_of
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.surgery import apply_plan, apply_to_optimizer_
from edgeprune.graph.trace import set_training_, trace_model
from edgeprune.recipes.networks import ResNet8

IMAGE = torch.randn(2, 3, 8, 8)


class Block(nn.Module):
    """x + f(x), f two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(x)))


class Nested(nn.Module):
    """A block whose branch holds a block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)
        self.before, self.inner = nn.Conv2d(6, 6, 1), Block(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.inner(torch.tanh(self.before(x))))


class SpatialGate(nn.Module):
    """x + down(u * tokens(norm(v))), u and v the halves of up(norm(x)) (gMLP, Liu et al. 2021)."""

    def __init__(self, width: int, hidden: int, tokens: int) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(width), nn.LayerNorm(hidden)
        self.up, self.down, self.tokens = (
            nn.Linear(width, 2 * hidden),
            nn.Linear(hidden, width),
            nn.Linear(tokens, tokens),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.up(self.norm(x)).chunk(2, -1)
        return x + self.down(left * self.tokens(self.inner(right).transpose(1, 2)).transpose(1, 2))


class Gated(nn.Module):
    """Two blocks whose gates work on the token axis."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 12, 4, 4), nn.Linear(12, 3)
        self.blocks = nn.Sequential(SpatialGate(12, 8, 4), SpatialGate(12, 8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Bilinear(nn.Module):
    """x + out(P x Q), P and Q made of the largest value of each row and column (Chi et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 3, 1)
        self.narrow = nn.Conv2d(8, 2, 1)
        self.rows, self.columns = nn.Conv2d(2, 128, (8, 1)), nn.Conv2d(2, 128, (1, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch = x.shape[0]
        thin = torch.relu(self.narrow(x))
        left = self.rows(torch.nn.functional.adaptive_max_pool2d(thin, (8, 1))).view(batch, 2, 8, 8).sigmoid()
        right = self.columns(torch.nn.functional.adaptive_max_pool2d(thin, (1, 8))).view(batch, 2, 8, 8).sigmoid()
        left = (left / left.sum(3, True)).view(batch, 2, 1, 8, 8).expand(-1, -1, 4, -1, -1).reshape(batch, 8, 8, 8)
        right = (right / right.sum(2, True)).view(batch, 2, 1, 8, 8).expand(-1, -1, 4, -1, -1).reshape(batch, 8, 8, 8)
        return self.head(x + self.out(left.matmul(x).matmul(right)))


class Transformer(nn.Module):
    """Patches with a position embedding, then attention and a perceptron, each with layer norm before it."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 4, 8))
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        query, key, value = self.qkv(self.norm1(x)).reshape(-1, 4, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(-1, 4, 8)
        x = x + self.proj(mixed)
        x = x + self.mlp(self.norm2(x))
        return self.head(x.mean(1))


def branches(analysis: Analysis) -> list[str]:
    return [group.name for group in analysis.groups if group.is_branch]


def analysed(net: nn.Module) -> tuple[torch.fx.GraphModule, Analysis]:
    torch.manual_seed(0)
    program = trace_model(net, IMAGE)
    return program, find_groups(program)


def test_a_transformer_has_attention_and_perceptron_but_never_loses_its_patches() -> None:
    _, analysis = analysed(Transformer())
    assert branches(analysis) == ["qkv:branch", "mlp:branch"]


NETS = [Nested, Transformer, Gated, Bilinear, lambda: nn.Sequential(nn.Conv2d(3, 5, 1), Block(5), Block(5))]


@pytest.mark.parametrize("net", NETS)
def test_every_choice_of_branches_is_proven_with_channels_cut_as_well(net: type[nn.Module]) -> None:
    program, analysis = analysed(net())
    names = branches(analysis)
    assert names
    for kept in product((0, 1), repeat=len(names)):
        keep = {name: range(width) for name, width in zip(names, kept, strict=True)}
        keep |= {group.name: range(0, group.size, 2) for group in analysis.channel_groups}
        pruned = apply_plan(program, analysis, keep)
        assert check_surgery(program, analysis, keep, pruned, IMAGE) < 1e-9
        again = find_groups(pruned)
        widths = {name: len(one) for name, one in keep.items()}
        assert count_macs(again, {}) == count_macs(analysis, widths)
        left = [one.at(full_widths(analysis) | widths) for one in analysis.operators]
        assert [shape for shape in left if not shape.is_gone] == [one.shape for one in again.operators]


def test_a_cut_block_leaves_no_activation_of_an_activation() -> None:
    """`relu(relu(x) + branch)` becomes `relu(x)`: runtimes do not fuse the second one, which computes nothing."""
    program, analysis = analysed(ResNet8())
    pruned = apply_plan(program, analysis, {"blocks.0:branch": (), "stem.0": range(8)})
    relus = [node for node in pruned.graph.nodes if operator_of(node) == "aten.relu"]
    assert relus
    assert not [node for node in relus if operator_of(node.args[0]) == "aten.relu"]
    assert check_surgery(program, analysis, {"blocks.0:branch": (), "stem.0": range(8)}, pruned, IMAGE) < 1e-9


def test_cutting_the_outer_branch_takes_the_inner_one_and_all_its_weights() -> None:
    program, analysis = analysed(Nested())
    assert branches(analysis) == ["inner:branch", "before:branch"]
    pruned = apply_plan(program, analysis, {"before:branch": []})
    assert {name for name, _ in pruned.named_parameters()} == {"stem.weight", "stem.bias", "head.weight", "head.bias"}
    assert count_macs(analysis, {"before:branch": 0}) == 64 * (3 * 6 + 6 * 2)
    weights = [[program.get_parameter(f"{name}.{kind}") for kind in ("weight", "bias")] for name in ("stem", "head")]
    wanted = nn.functional.conv2d(nn.functional.conv2d(IMAGE, *weights[0]), *weights[1])
    torch.testing.assert_close(pruned(IMAGE), wanted)


def test_of_two_branches_the_deeper_one_goes_and_the_projection_stays() -> None:
    net = ResNet8()
    program = trace_model(net, torch.zeros(1, 3, 32, 32))
    analysis = find_groups(program)
    pruned = apply_plan(program, analysis, {"blocks.1:branch": []})
    left = {name for name, _ in pruned.named_parameters() if name.startswith("blocks.1")}
    assert left == {"blocks.1.shortcut.weight", "blocks.1.shortcut.bias"}
    assert {name for name, _ in pruned.named_buffers() if name.startswith("blocks.1")} == set()


class Reader(nn.Module):
    """A learned token that two blocks write what they read of an image into, each with a perceptron behind (CaiT)."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.head = nn.Parameter(torch.randn(1, 6)), nn.Linear(6, 2)
        self.stem = nn.Conv2d(3, 6, 1)
        self.reads = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.thinks = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        pixels, token = self.stem(x).flatten(2).mean(2), self.token.expand(x.shape[0], -1)
        for read, think in zip(self.reads, self.thinks, strict=True):
            token = token + read(token + pixels)
            token = token + think(token)
        return self.head(token)


def test_the_first_block_that_writes_the_image_into_a_token_is_never_cut() -> None:
    program, analysis = analysed(Reader())
    assert branches(analysis) == ["thinks.0:branch", "reads.1:branch", "thinks.1:branch"]
    keep = {name: list[int]() for name in branches(analysis)}
    pruned = apply_plan(program, analysis, keep)
    assert check_surgery(program, analysis, keep, pruned, IMAGE) < 1e-5
    assert not torch.allclose(pruned(IMAGE), pruned(IMAGE.flip(0)))
    widths = full_widths(analysis) | dict.fromkeys(keep, 0)
    assert count_macs(analysis, widths) == count_macs(find_groups(pruned), {})


def test_a_sum_of_two_inputs_is_no_branch() -> None:
    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            return torch.relu(self.left(one) + self.right(other)).mean()

    assert branches(find_groups(trace_model(Towers(), (IMAGE, IMAGE.clone())))) == []


def test_an_ignored_layer_keeps_its_branch() -> None:
    program, _ = analysed(Nested())
    analysis = find_groups(program, ignore=["inner.second"])
    assert {analysis.group(name).frozen for name in ("inner:branch", "before:branch")} == {"ignored by the user"}
    with pytest.raises(PlanError, match="ignored by the user"):
        apply_plan(program, analysis, {"inner:branch": []})


def test_a_net_without_its_branch_trains_and_its_optimizer_forgets_the_weights() -> None:
    program, analysis = analysed(Nested())
    set_training_(program, True)
    optimizer = torch.optim.SGD(program.parameters(), lr=0.05, momentum=0.9)
    program(IMAGE).square().mean().backward()
    optimizer.step()
    keep = {"inner:branch": []}
    pruned = apply_plan(program, analysis, keep)
    apply_to_optimizer_(optimizer, program, pruned, analysis, keep)
    assert {id(one) for one in optimizer.param_groups[0]["params"]} == {id(one) for one in pruned.parameters()}
    first = pruned(IMAGE).square().mean()
    for _ in range(5):
        optimizer.zero_grad()
        pruned(IMAGE).square().mean().backward()
        optimizer.step()
    assert pruned(IMAGE).square().mean() < first


def test_the_users_own_module_cannot_lose_a_branch_and_says_so() -> None:
    net = Nested().eval()
    program, analysis = analysed(net)
    with pytest.raises(GraphError, match="runs the branches"):
        apply_to_module(net, program, analysis, {"inner:branch": []}, IMAGE)
