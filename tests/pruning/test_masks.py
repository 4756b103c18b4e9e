"""Masked models: channels that the masks have emptied go, and the outputs stay."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch
from graph_cases import CASES
from graph_nets import Case, Net, example_of, randomise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prune_nets import TinyResidual, stripes
from random_graphs import SIDE, random_graph
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.utils import prune
from torch.utils._pytree import tree_leaves

from edgeprune.graph.groups import find_groups
from edgeprune.graph.trace import trace_model
from edgeprune.pruning.constants import BY_ITSELF
from edgeprune.pruning.masks import find_dead_channels, make_permanent, remove_dead_channels

torch.set_num_threads(1)


def structured(layer: nn.Module, *rows: int, dim: int = 0, name: str = "weight") -> None:
    """Mask some rows (or columns) of a layer."""
    mask = torch.ones_like(getattr(layer, name))
    mask.index_fill_(dim, torch.tensor(rows), 0)
    prune.custom_from_mask(layer, name, mask)


def removed(model: nn.Module, example: Tensor) -> tuple[dict[str, tuple[int, ...]], GraphModule]:
    """What is kept of a masked model in float64, after checking that its outputs are the same."""
    model, example = make_permanent(model).double().eval(), example.double()
    program = trace_model(model, example)
    analysis = find_groups(program)
    keep = find_dead_channels(program, analysis)
    pruned = remove_dead_channels(program, analysis)
    assert difference(model, pruned, example) <= 1e-9
    for name, kept in keep.items():
        width = {member.tensor: member.dim for member in analysis.group(name).members if member.role == "out"}
        sizes = [pruned.get_parameter(tensor).shape[dim] for tensor, dim in width.items()]
        assert all(size % len(kept) == 0 for size in sizes)
    return keep, pruned


def difference(model: nn.Module, pruned: GraphModule, example: Tensor) -> float:
    """The largest difference of outputs, relative to the largest output."""
    inputs = torch.randn(2, *example.shape[1:]).double() if example.is_floating_point() else example
    with torch.no_grad():
        wanted, found = model(inputs), pruned(inputs)
    pairs = list(zip(tree_leaves(wanted), tree_leaves(found), strict=True))
    assert all(one.shape == other.shape for one, other in pairs)
    return max(float((one - other).abs().max() / one.abs().max().clamp_min(1e-30)) for one, other in pairs)


def lively(model: nn.Module) -> nn.Module:
    """With batch-norm statistics and offsets that are not those of a fresh net."""
    torch.manual_seed(0)
    return randomise(model).eval()


def test_permanent_masks_leave_the_users_model_alone() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)))
    prune.ln_structured(model[0], "weight", 0.5, 2, 0)
    prune.l1_unstructured(model[0], "weight", 0.3)
    prune.random_unstructured(model[3], "bias", 1)
    example = torch.randn(2, 3, 8, 8)
    permanent = make_permanent(model)
    assert torch.equal(model(example), permanent(example))
    assert prune.is_pruned(model)
    assert not prune.is_pruned(permanent)
    assert set(permanent.state_dict()) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    assert permanent[0].weight.requires_grad
    assert permanent[0].weight.data_ptr() != model[0].weight_orig.data_ptr()
    assert float((permanent[0].weight == 0).float().mean()) > 0.5


def test_masks_of_recurrent_cells_become_permanent() -> None:
    cell = nn.LSTM(4, 6)
    prune.l1_unstructured(cell, "weight_hh_l0", 0.5)
    permanent = make_permanent(cell)
    example = torch.randn(5, 2, 4)
    assert torch.equal(cell(example)[0], permanent(example)[0])
    assert float((permanent.weight_hh_l0 == 0).float().mean()) == 0.5


def test_masked_filters_without_a_constant_go() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)))
    prune.ln_structured(model[0], "weight", 3, 2, 0)
    keep, pruned = removed(model, torch.randn(2, 3, 8, 8))
    assert len(keep["0"]) == 5
    assert pruned.get_parameter("2.weight").shape == (4, 5, 3, 3)


@pytest.mark.parametrize(("padding", "shift", "kept"), [(0, 2.0, 4), (1, 2.0, 5), (1, -2.0, 4)])
def test_constants_behind_batch_norm_go_but_for_one_that_a_border_shows(padding: int, shift: float, kept: int) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=padding)
    )
    model = lively(net)
    structured(model[0], 1, 4)
    with torch.no_grad():
        model[1].bias.fill_(shift)
        model[1].running_mean.zero_()
    keep, pruned = removed(model, torch.randn(2, 3, 8, 8))
    assert len(keep["0"]) == kept
    assert {0, 2, 3, 5} <= set(keep["0"])
    moved = not torch.equal(pruned.get_parameter("3.bias"), model[3].bias.double())
    assert moved == (padding == 0)


def test_one_constant_stands_for_all_before_a_transposed_convolution() -> None:
    layers = (
        nn.Conv2d(3, 6, 3),
        nn.Sigmoid(),
        nn.ConvTranspose2d(6, 4, 3, 2),
        nn.ReLU(),
        nn.Conv2d(4, 2, 3, padding=1),
    )
    model = lively(nn.Sequential(*layers))
    structured(model[0], 0, 1, 2)
    structured(model[2], 1, 3, dim=1)
    keep, _ = removed(model, torch.randn(2, 3, 6, 6))
    assert [len(kept) for kept in keep.values()] == [4, 3]


def with_constants(net: nn.Module, **values: float) -> nn.Module:
    """A net whose convolution `a` gives these constants in the channels named by a letter and a number."""
    model = lively(net)
    channels = {int(name[1:]): value for name, value in values.items()}
    structured(model.a, *channels)
    with torch.no_grad():
        for channel, value in channels.items():
            model.a.bias[channel] = value
    return model


@pytest.mark.parametrize(
    ("carrier", "sign", "goes"), [(1.0, 1, True), (0.02, 1, True), (0.02, -1, True), (0.009, 1, False), (0.0, 1, False)]
)
def test_a_constant_that_stays_stands_for_others_unless_it_is_tiny_beside_them(
    carrier: float, sign: int, goes: bool
) -> None:
    """Channel 0 stays as it is taken alone; a border shows how much of the window sees channel 1."""
    net = Net(
        lambda net, x: net.b(net.a(x)).mean((2, 3)) + net.a(x)[:, 0].mean((1, 2)).unsqueeze(1),
        a=nn.Conv2d(3, 6, 1),
        b=nn.Conv2d(6, 2, 3, padding=1),
    )
    model, example = with_constants(net, c0=carrier * sign, c1=1.0).double(), torch.randn(2, 3, 6, 6).double()
    program = trace_model(make_permanent(model), example)
    pruned = remove_dead_channels(program, find_groups(program))
    assert difference(program, pruned, example) <= 1e-9
    assert pruned.get_parameter("a.weight").shape[0] == (5 if goes else 6)


def test_the_constant_that_stays_for_all_is_the_greatest() -> None:
    net = Net(lambda net, x: net.b(net.a(x)), a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 2, 3, padding=1))
    keep, _ = removed(with_constants(net, c1=0.5, c2=-3.0, c4=2.0), torch.randn(2, 3, 6, 6))
    assert keep == {"a": (0, 2, 3, 5)}


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_weight_that_two_layers_share_keeps_its_constants(is_shared: bool) -> None:
    """What goes into one layer's bias would have to go into the other's too, which reads other constants."""

    def forward(net: Net, x: Tensor) -> Tensor:
        other = net.b if is_shared else net.c
        return net.b(net.a(x)) + other(net.a(2 * x))

    net = Net(forward, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 2, 1, bias=False), c=nn.Conv2d(6, 2, 1, bias=False))
    keep, pruned = removed(with_constants(net, c1=0.5, c4=2.0), torch.randn(2, 3, 6, 6))
    assert keep == ({} if is_shared else {"a": (0, 2, 3, 5)})
    assert pruned.get_parameter("b.weight").shape == (2, 6 if is_shared else 4, 1, 1)


def test_unread_channels_of_a_shared_weight_go() -> None:
    net = Net(lambda net, x: net.b(net.a(x)) + net.b(net.a(2 * x)), a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 2, 1))
    model = lively(net)
    structured(model.b, 0, 3, dim=1)
    assert removed(model, torch.randn(2, 3, 6, 6))[0] == {"a": (1, 2, 4, 5)}


@pytest.mark.parametrize(("step", "masked", "kept"), [(2, 3, 6), (4, 3, 8), (4, 5, 4), (3, 8, 3), (1, 8, 1)])
def test_what_is_kept_is_a_multiple_of_the_groups_step(step: int, masked: int, kept: int) -> None:
    model = lively(nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 3)))
    structured(model[0], *range(0, masked))
    program = trace_model(make_permanent(model).double(), torch.randn(2, 4).double())
    analysis = find_groups(program)
    stepped = replace(analysis, groups=tuple(replace(group, step=step) for group in analysis.groups))
    keep = find_dead_channels(program, stepped)
    assert len(keep.get("0", range(8))) == kept
    assert set(range(masked, 8)) <= set(keep.get("0", range(8)))
    pruned = remove_dead_channels(program, stepped)
    assert difference(program, pruned, torch.randn(2, 4).double()) <= 1e-9


def test_a_padded_depthwise_convolution_keeps_its_constants() -> None:
    layers = (nn.Conv2d(3, 6, 3), nn.Sigmoid(), nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 2, 1))
    model = lively(nn.Sequential(*layers))
    structured(model[0], 0, 1)
    assert removed(model, torch.randn(2, 3, 8, 8))[0] == {}


def test_a_constant_is_taken_off_the_mean_of_the_next_norm() -> None:
    layers = (nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 5, 1, bias=False), nn.BatchNorm2d(5))
    model = lively(nn.Sequential(*layers, nn.Conv2d(5, 2, 1)))
    structured(model[0], 0)
    with torch.no_grad():
        model[0].bias[0] = 1.5
    keep, pruned = removed(model, torch.randn(2, 3, 4, 4))
    assert keep == {"0": (1, 2, 3, 4, 5)}
    assert not torch.equal(pruned.get_buffer("3.running_mean"), model[3].running_mean.double())


def test_a_reader_without_bias_gets_one_and_trains() -> None:
    model = lively(nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 3, bias=False)))
    structured(model[0], 2, 3)
    keep, pruned = removed(model, torch.randn(2, 4))
    assert keep == {"0": (0, 1, 4, 5)}
    bias = pruned.get_parameter("2.bias")
    pruned(torch.randn(5, 4).double()).square().sum().backward()
    assert bias.grad is not None
    assert [group.size for group in find_groups(pruned).groups] == [4, 3]


def test_channels_that_nobody_reads_go() -> None:
    model = lively(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)))
    structured(model[2], 0, 5, dim=1)
    structured(model[4], 1, dim=1)
    assert removed(model, torch.randn(2, 4))[0] == {"0": (1, 2, 3, 4), "2": (0, 2, 3, 4)}


def test_what_only_dead_channels_read_goes_too() -> None:
    model = lively(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 3)))
    mask = torch.ones(2, 6)
    mask[0, :3] = 0
    prune.custom_from_mask(model[2], "weight", mask)
    structured(model[4], 1, dim=1)
    assert removed(model, torch.randn(2, 4))[0] == {"0": (3, 4, 5), "2": (0,)}


def test_masked_scales_of_batch_norm_empty_their_channels() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1)))
    prune.l1_unstructured(model[1], "weight", 2)
    assert len(removed(model, torch.randn(2, 3, 8, 8))[0]["0"]) == 4


def test_a_sum_keeps_what_one_summand_fills() -> None:
    model = lively(TinyResidual())
    structured(model.stem, 0, 1, 2)
    structured(model.outer, 1, 2, 3)
    with torch.no_grad():
        model.norm.bias.fill_(-1)
        model.norm.running_mean.copy_(model.stem.bias)
        model.outer.bias.fill_(-1)
    keep, _ = removed(model, stripes(2)[0])
    assert keep["stem"] == (0, 3, 4, 5, 6, 7)


def test_a_channel_that_is_normalised_with_others_stays() -> None:
    model = lively(nn.Sequential(nn.Linear(4, 6, bias=False), nn.LayerNorm(6), nn.Linear(6, 3)))
    structured(model[0], 2)
    assert removed(model, torch.randn(2, 4))[0] == {}


def test_a_mean_over_channels_counts_the_empty_ones() -> None:
    net = Net(
        lambda net, x: net.b(net.a(x)) * net.a(x).mean(1, keepdim=True),
        a=nn.Linear(4, 6, bias=False),
        b=nn.Linear(6, 3),
    )
    model = lively(net)
    structured(model.a, 2)
    assert removed(model, torch.randn(2, 4))[0] == {}


def test_a_gate_on_an_empty_channel_goes_with_it() -> None:
    def squeeze_excite(net: Net, x: Tensor) -> Tensor:
        x = torch.relu(net.a(x))
        return net.head((x * net.up(torch.relu(net.down(x.mean((2, 3), keepdim=True)))).sigmoid()).mean((2, 3)))

    layers = {"a": nn.Conv2d(3, 8, 3, bias=False), "down": nn.Conv2d(8, 4, 1), "up": nn.Conv2d(4, 8, 1)}
    model = lively(Net(squeeze_excite, **layers, head=nn.Linear(8, 3)))
    structured(model.a, 1, 6)
    keep, pruned = removed(model, torch.randn(2, 3, 6, 6))
    assert keep == {"a": (0, 2, 3, 4, 5, 7)}
    assert pruned.get_parameter("up.weight").shape == (6, 4, 1, 1)


def test_a_wholly_masked_layer_keeps_one_channel() -> None:
    model = lively(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))
    structured(model[0], *range(6))
    assert len(removed(model, torch.randn(2, 4))[0]["0"]) == 1


def test_noise_is_no_constant() -> None:
    net = Net(lambda net, x: net.b(torch.relu(net.a(x) * torch.rand(6))), a=nn.Linear(4, 6), b=nn.Linear(6, 3))
    model = lively(net).double()
    structured(model.a, 1)
    with torch.no_grad():
        model.a.bias.fill_(1.0)
    program = trace_model(make_permanent(model), torch.randn(2, 4).double())
    assert find_dead_channels(program, find_groups(program)) == {}


def test_without_masks_nothing_goes() -> None:
    assert removed(lively(TinyResidual()), stripes(2)[0])[0] == {}


OTHERS = "transposed transposed_grouped pooling prelu where lstm shared_weight select"
OTHERS += " standardised_weight attention_fused softmax_over_channels unknown_operator product_with_parameter"


@pytest.mark.parametrize("case", [case for case in CASES if case.name in OTHERS.split()], ids=lambda case: case.name)
def test_masked_rows_of_any_net_are_removed_exactly(case: Case) -> None:
    model, example = lively(case.net()).double(), example_of(case)
    mask_rows_(model, Random(1))
    example = example.double() if example.is_floating_point() else example
    program = trace_model(model, example)
    pruned = remove_dead_channels(program, find_groups(program))
    assert difference(program, pruned, example) <= 1e-9


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_masked_rows_of_any_graph_are_removed_exactly(seed: int, steps: int) -> None:
    random = Random(seed)
    program = random_graph(random, steps).double()
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.is_floating_point():
            node.meta["val"] = value.double()
    mask_rows_(program, random)
    pruned = remove_dead_channels(program, find_groups(program))
    assert difference(program, pruned, torch.zeros(2, 3, SIDE, SIDE)) <= 1e-9


def mask_rows_(model: nn.Module, random: Random) -> None:
    """Zero a third of the rows of weights, and of some biases."""
    with torch.no_grad():
        for module in model.modules():
            for name, value in module.named_parameters(recurse=False):
                if value.dim() > 1 or (value.dim() == 1 and random.random() < 0.5 and "norm" not in name):
                    rows = [row for row in range(len(value)) if random.random() < 0.4]
                    value[rows] = 0


def test_operators_that_are_trusted_exist_and_give_nan_for_nan() -> None:
    unary = "neg abs square sqrt exp log reciprocal relu relu6 leaky_relu elu selu celu gelu silu mish"
    unary += " sigmoid log_sigmoid hardsigmoid hardswish hardtanh tanh softplus"
    unknown = torch.full((1, 2, 4, 4), torch.nan)
    for name in BY_ITSELF:
        assert hasattr(torch.ops.aten, name.removeprefix("aten.")), name
    for name in unary.split():
        assert f"aten.{name}" in BY_ITSELF
        assert bool(getattr(torch.ops.aten, name)(unknown).isnan().all()), name
    for pool in (torch.ops.aten.max_pool2d, torch.ops.aten.avg_pool2d):
        assert bool(pool(unknown, [2, 2]).isnan().all())
    assert bool(torch.ops.aten.adaptive_max_pool2d(unknown, [1, 1])[0].isnan().all())
    assert bool(torch.ops.aten.clamp(unknown, 0.0, 1.0).isnan().all())
