"""Plans: what is refused, what the copy is good for, what the proof catches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from graph_nets import Net, token_mixing
from torch import nn

from edgeprune.core.latency.layers import LayerShape
from edgeprune.errors import GraphError, PlanError
from edgeprune.graph import proof
from edgeprune.graph.analysis import Analysis
from edgeprune.graph.costs import count_macs, count_parameters, full_widths
from edgeprune.graph.groups import find_groups
from edgeprune.graph.proof import check_surgery, neutralise
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import is_dynamic, reexport, set_training_, trace_model
from edgeprune.recipes.networks import MotionCNN, ResNet8

torch.set_num_threads(1)
EXAMPLE = torch.randn(1, 3, 32, 32)


@pytest.fixture(scope="module")
def traced() -> tuple[torch.fx.GraphModule, Analysis]:
    torch.manual_seed(0)
    program = trace_model(ResNet8(), EXAMPLE)
    return program, find_groups(program)


def halves(analysis: Analysis) -> dict[str, list[int]]:
    return {group.name: list(range(0, group.size, 2)) for group in analysis.groups if not group.frozen}


def test_resnet8_has_one_group_for_each_residual_stream(traced: tuple[torch.fx.GraphModule, Analysis]) -> None:
    _, analysis = traced
    assert {group.name: group.size for group in analysis.channel_groups} == {
        "stem.0": 16, "blocks.0.conv1": 16, "blocks.1.conv1": 32,
        "blocks.1.conv2": 32, "blocks.2.conv1": 64, "blocks.2.conv2": 64,
    }  # fmt: skip
    assert [group.name for group in analysis.groups if group.frozen] == ["classifier"]


def test_members_say_who_makes_and_who_reads_the_channels(traced: tuple[torch.fx.GraphModule, Analysis]) -> None:
    members = {(one.tensor, one.dim): one.role for one in traced[1].group("blocks.1.conv1").members}
    assert members["blocks.1.conv1.weight", 0] == "out"
    assert members["blocks.1.conv2.weight", 1] == "in"
    assert members["blocks.1.bn1.running_var", 0] == "along"


def test_channels_of_a_flattened_map_are_repeated() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 2))
    analysis = find_groups(trace_model(net, torch.randn(1, 3, 2, 2)))
    assert analysis.channels("0", "2.weight", 1).tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4


def test_an_ignored_module_stays_whole(traced: tuple[torch.fx.GraphModule, Analysis]) -> None:
    analysis = find_groups(traced[0], ignore=["blocks.1.conv1"])
    assert analysis.group("blocks.1.conv1").frozen == "ignored by the user"


def test_macs_of_resnet8_are_those_of_the_paper(traced: tuple[torch.fx.GraphModule, Analysis]) -> None:
    assert count_macs(traced[1], full_widths(traced[1])) == 12_501_632


@pytest.mark.parametrize("fold", [False, True])
def test_a_linear_layer_counts_every_token_and_no_batch(fold: bool) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x.reshape(-1, 6) if fold else x)

    assert count_macs(find_groups(trace_model(Tokens(), torch.randn(3, 7, 6))), {}) == 7 * 6 * 4


def test_a_layer_on_the_token_axis_works_on_as_many_vectors_as_there_are_channels() -> None:
    net = Net(token_mixing, stem=nn.Linear(6, 8), up=nn.Linear(7, 10), down=nn.Linear(10, 7), head=nn.Linear(8, 5))
    analysis = find_groups(trace_model(net, torch.randn(2, 7, 6)))
    layers = {layer.name: layer for layer in analysis.layers}
    assert layers["up"].shape == LayerShape("linear", 7, 10, (1,), (1,), 1, (8,), (0,))
    assert layers["up"].at({"stem": 3, "up": 4, "up:branch": 1}) == LayerShape(
        "linear", 7, 4, (1,), (1,), 1, (3,), (0,)
    )
    assert layers["up"].at({"stem": 1, "up": 4, "up:branch": 1}) == LayerShape("linear", 7, 4)
    assert layers["up"].kinds == {"stem"}
    assert layers["stem"].space == ()
    assert count_macs(analysis, {"stem": 3, "up": 4}) == 7 * 6 * 3 + 3 * 7 * 4 + 3 * 4 * 7 + 7 * 3 * 5


def test_macs_at_given_widths_are_those_of_the_pruned_net(traced: tuple[torch.fx.GraphModule, Analysis]) -> None:
    program, analysis = traced
    keep = halves(analysis)
    pruned = find_groups(apply_plan(program, analysis, keep))
    widths = {name: len(kept) for name, kept in keep.items()}
    assert count_macs(analysis, widths) == count_macs(pruned, {})


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"stem.9": [0]}, "did you mean 'stem.0'"),
        ({"stem.0": []}, "at least one"),
        ({"stem.0": [2, 1]}, "ascending"),
        ({"stem.0": [1, 1]}, "ascending"),
        ({"stem.0": [0, 16]}, "do not lie in 0..15"),
        ({"stem.0": [-1, 3]}, "do not lie in"),
        ({"classifier": [0]}, "has to stay whole"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(
    traced: tuple[torch.fx.GraphModule, Analysis], keep: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        apply_plan(*traced, keep)


def test_what_views_its_channels_at_the_output_stays_whole() -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.last = nn.Linear(5, 8), nn.Linear(8, 12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.body(x))).view(-1, 3, 4)

    analysis = find_groups(trace_model(Viewed(), torch.randn(2, 5)))
    assert [group.name for group in analysis.channel_groups] == ["body"]
    frozen = {group.name.split("#")[0]: group.frozen for group in analysis.groups if group.frozen}
    assert frozen == {"last": "it reaches the model's output"}


def test_channels_go_in_multiples_of_a_groups_step(traced: tuple[torch.fx.GraphModule, Analysis]) -> None:
    program, analysis = traced
    stepped = tuple(replace(group, step=3) if group.name == "stem.0" else group for group in analysis.groups)
    by_three = replace(analysis, groups=stepped)
    with pytest.raises(PlanError, match=r"group 'stem\.0': 4 channels are not a multiple of 3"):
        apply_plan(program, by_three, {"stem.0": [0, 1, 2, 3]})
    for kept in ([0, 5, 7], list(range(15)), list(range(16))):
        assert apply_plan(program, by_three, {"stem.0": kept}).get_parameter("stem.0.weight").shape[0] == len(kept)


def test_the_original_is_untouched_and_shares_nothing(traced: tuple[torch.fx.GraphModule, Analysis]) -> None:
    program, analysis = traced
    before = {name: value.clone() for name, value in program.state_dict().items()}
    code = program.code
    pruned = apply_plan(program, analysis, {"stem.0": [0, 3, 5]})
    with torch.no_grad():
        for value in pruned.parameters():
            value.fill_(7.0)
    assert program.code == code
    assert all(torch.equal(value, before[name]) for name, value in program.state_dict().items())


def test_a_whole_plan_changes_nothing(traced: tuple[torch.fx.GraphModule, Analysis]) -> None:
    program, analysis = traced
    copy = apply_plan(program, analysis, {group.name: range(group.size) for group in analysis.groups})
    assert torch.equal(copy(EXAMPLE), program(EXAMPLE))


def test_the_pruned_net_trains_at_any_batch_and_its_statistics_move(
    traced: tuple[torch.fx.GraphModule, Analysis],
) -> None:
    program, analysis = traced
    pruned = apply_plan(program, analysis, halves(analysis))
    before = pruned.get_buffer("stem.1.running_mean").clone()
    set_training_(pruned, True)
    pruned(torch.randn(5, 3, 32, 32)).square().sum().backward()
    assert all(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in pruned.parameters())
    assert not torch.equal(pruned.get_buffer("stem.1.running_mean"), before)
    set_training_(pruned, False)
    settled = pruned.get_buffer("stem.1.running_mean").clone()
    pruned(torch.randn(5, 3, 32, 32))
    assert torch.equal(pruned.get_buffer("stem.1.running_mean"), settled)


def test_dropout_follows_the_training_flag() -> None:
    program = trace_model(MotionCNN(), torch.randn(1, 6, 64))
    window = torch.randn(4, 6, 64)
    assert torch.equal(program(window), program(window))
    set_training_(program, True)
    assert not torch.equal(program(window), program(window))


def test_a_pruned_net_is_pruned_again_and_exported(traced: tuple[torch.fx.GraphModule, Analysis]) -> None:
    program, analysis = traced
    once = apply_plan(program, analysis, halves(analysis))
    again = find_groups(once)
    keep = halves(again)
    twice = apply_plan(once, again, keep)
    assert check_surgery(once, again, keep, twice, EXAMPLE) < 1e-9
    assert count_parameters(twice) < count_parameters(once) < count_parameters(program)
    exported = reexport(twice, EXAMPLE).module()
    assert torch.allclose(exported(EXAMPLE), twice(EXAMPLE), atol=1e-6)


def test_tracing_leaves_the_batch_open_and_the_model_as_it_was() -> None:
    model = MotionCNN().train()
    program = trace_model(model, torch.randn(1, 6, 64))
    assert model.training
    assert is_dynamic(program)
    assert program(torch.randn(7, 6, 64)).shape == (7, 7)


def test_a_net_of_one_batch_only_is_traced_at_that_batch() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, 12).sum(1) if x.shape[0] == 2 else x.sum((1, 2))

    program = trace_model(Fixed(), torch.randn(2, 3, 4))
    assert not is_dynamic(program)


def test_a_net_of_several_inputs_is_traced_and_pruned() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.head = nn.Linear(3, 8), nn.Linear(5, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            both = torch.relu(self.left(x) + self.right(y))
            return self.head(both), self.head(-both)

    example = (torch.randn(2, 3), torch.randn(2, 5))
    program = trace_model(Two(), example)
    analysis = find_groups(program)
    assert [(group.name, group.size) for group in analysis.groups if not group.frozen] == [("left", 8)]
    pruned = apply_plan(program, analysis, {"left": [1, 4]})
    assert check_surgery(program, analysis, {"left": [1, 4]}, pruned, example) < 1e-9


def test_a_branch_on_values_cannot_be_traced() -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if bool(x.sum() > 0) else -x

    with pytest.raises(GraphError, match=r"Branch: torch\.export cannot trace it"):
        trace_model(Branch(), torch.randn(2, 3))


def test_in_place_operators_become_plain_ones_unless_memory_is_shared() -> None:
    class Writes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x + 1
            y[:, :1].mul_(2.0)
            z = torch.relu_(y * 3)
            early = z.flatten(1)
            return (y + torch.sigmoid(z).mul_(2)).flatten(1) + z.neg_().flatten(1) + early

    example = torch.randn(2, 3, 4)
    program = trace_model(Writes(), example)
    names = [str(node.target) for node in program.graph.nodes]
    assert "aten.mul_.Tensor" in names
    assert "aten.neg_.default" in names
    assert sum("_." in name for name in names) == 2
    assert torch.equal(program(example), Writes()(example))


def test_removed_channels_of_the_silenced_original_have_no_effect(
    traced: tuple[torch.fx.GraphModule, Analysis],
) -> None:
    program, analysis = traced
    keep = {"blocks.1.conv1": [0, 5, 9]}
    silent = neutralise(program, analysis, keep)
    image = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(silent(image), program(image))
    assert torch.allclose(silent(image), apply_plan(program, analysis, keep)(image), atol=1e-5)


@pytest.mark.parametrize("tensor", ["blocks.1.conv1.weight", "blocks.1.bn1.running_mean", "blocks.1.conv2.weight"])
def test_the_proof_catches_a_wrong_slice(traced: tuple[torch.fx.GraphModule, Analysis], tensor: str) -> None:
    program, analysis = traced
    with torch.no_grad():
        for name, value in program.named_buffers():
            if "running_var" in name:
                value.uniform_(0.5, 2.0)
            elif "running_mean" in name:
                value.normal_(0, 0.1)
    keep = {"blocks.1.conv1": [0, 2, 4, 6]}
    pruned = apply_plan(program, analysis, keep)
    assert check_surgery(program, analysis, keep, pruned, EXAMPLE) < 1e-9
    wrong = dict(pruned.named_parameters()) | dict(pruned.named_buffers())
    dim = 1 if tensor == "blocks.1.conv2.weight" else 0
    with torch.no_grad():
        wrong[tensor].copy_(wrong[tensor].roll(1, dim))
    assert check_surgery(program, analysis, keep, pruned, EXAMPLE) > 1e-6


def test_the_proof_catches_another_plan(traced: tuple[torch.fx.GraphModule, Analysis]) -> None:
    program, analysis = traced
    pruned = apply_plan(program, analysis, {"stem.0": [0, 1, 2]})
    assert check_surgery(program, analysis, {"stem.0": [0, 1, 3]}, pruned, EXAMPLE) > 1e-6


def test_the_proof_catches_an_output_of_another_shape_and_one_that_is_not_a_number() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    program = trace_model(net, torch.randn(2, 4))
    other = trace_model(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)), torch.randn(2, 4))
    assert check_surgery(program, find_groups(program), {}, other, torch.randn(2, 4)) == float("inf")
    with torch.no_grad():
        net[0].weight.fill_(float("nan"))
    broken = trace_model(net, torch.randn(2, 4))
    assert check_surgery(program, find_groups(program), {}, broken, torch.randn(2, 4)) == float("inf")


def test_a_cut_that_is_not_proven_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    program = trace_model(ResNet8(), EXAMPLE)
    analysis = find_groups(program)
    keep = {"stem.0": [0, 3]}
    pruned, error = proof.cut_proven(program, analysis, keep, EXAMPLE, "tell us")
    assert error <= proof.PROOF_LIMIT
    assert count_parameters(pruned) < count_parameters(program)
    monkeypatch.setattr(proof, "check_surgery", lambda *_: 2 * proof.PROOF_LIMIT)
    with pytest.raises(PlanError, match=r"by 2\.0e-09 of its outputs; tell us$"):
        proof.cut_proven(program, analysis, keep, EXAMPLE, "tell us")
