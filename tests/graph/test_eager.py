"""Plans on the user's own module and on an optimizer."""

from __future__ import annotations

import pytest
import torch
from graph_cases import CASES
from graph_nets import Case, example_of, random_keep, randomise
from torch import nn

from edgeprune.errors import GraphError, PlanError
from edgeprune.graph.eager import apply_to_module
from edgeprune.graph.groups import find_groups
from edgeprune.graph.surgery import apply_plan, apply_to_optimizer_
from edgeprune.graph.trace import trace_model
from edgeprune.recipes.networks import ResNet8

EASY = """
    conv1d conv3d transposed depthwise batch_norm layer_norm group_norm prelu residual squeeze_excitation cat pooling
    linear lstm
"""


@pytest.mark.parametrize("case", [case for case in CASES if case.name in EASY.split()], ids=lambda case: case.name)
def test_the_users_own_module_gets_the_sizes_of_the_graph(case: Case) -> None:
    model, example = randomise(case.net()).eval(), example_of(case)
    program = trace_model(model, example)
    analysis = find_groups(program)
    keep = random_keep(analysis)
    module = apply_to_module(model, program, analysis, keep, example)
    assert type(module) is type(model)
    expected = [tuple(value.shape) for value in apply_plan(program, analysis, keep).parameters()]
    assert [tuple(value.shape) for value in module.parameters()] == expected
    assert torch.equal(model(example), trace_model(model, example)(example))


def test_attributes_of_standard_layers_follow() -> None:
    model, example = ResNet8().train(), torch.randn(2, 3, 32, 32)
    program = trace_model(model, example)
    module = apply_to_module(model, program, find_groups(program), {"stem.0": [0, 5], "blocks.0.conv1": [1]}, example)
    assert isinstance(module, ResNet8)
    assert module.training
    assert "Conv2d(2, 1, kernel_size" in repr(module.blocks[0].conv1)
    assert "BatchNorm2d(2" in repr(module.stem[1])
    assert "Conv2d(16, 16" in repr(model.blocks[0].conv1)


@pytest.mark.parametrize("name", ["split", "attention_by_matmul", "made_of_literals"])
def test_a_module_with_sizes_in_its_code_is_refused(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    model, example = randomise(case.net()), example_of(case)
    program = trace_model(model, example)
    analysis = find_groups(program)
    with pytest.raises(GraphError, match="use the pruned graph"):
        apply_to_module(model, program, analysis, random_keep(analysis), example)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def test_an_optimizer_goes_on_with_the_momenta_of_what_stays() -> None:
    program, example = trace_model(net(), torch.randn(2, 4)), torch.randn(8, 4)
    optimizer = torch.optim.Adam(program.parameters(), lr=0.1)
    program(example).square().sum().backward()
    optimizer.step()
    names = dict(program.named_parameters())
    momentum = optimizer.state[names["0.weight"]]["exp_avg"].clone()
    analysis, keep = find_groups(program), {"0": [1, 2, 5]}
    pruned = apply_plan(program, analysis, keep)
    apply_to_optimizer_(optimizer, program, pruned, analysis, keep)
    weight = pruned.get_parameter("0.weight")
    assert torch.equal(optimizer.state[weight]["exp_avg"], momentum[[1, 2, 5]])
    assert float(optimizer.state[weight]["step"]) == 1.0
    before = weight.detach().clone()
    optimizer.zero_grad()
    pruned(example).square().sum().backward()
    optimizer.step()
    assert not torch.equal(weight, before)


def test_an_optimizer_of_another_model_is_refused() -> None:
    program = trace_model(net(), torch.randn(2, 4))
    analysis = find_groups(program)
    pruned = apply_plan(program, analysis, {"0": [0]})
    with pytest.raises(PlanError, match="parameters that this program has not"):
        apply_to_optimizer_(torch.optim.SGD(net().parameters(), lr=0.1), program, pruned, analysis, {"0": [0]})


class Unused(nn.Module):
    """With a layer that its forward leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.unused = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), nn.Conv2d(5, 6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(self.a(x).relu()).mean((2, 3))
        return out


def test_a_layer_that_the_net_leaves_out_stays_as_it_is() -> None:
    model, example = Unused().eval(), torch.randn(2, 3, 8, 8)
    program = trace_model(model, example)
    module = apply_to_module(model, program, find_groups(program), {"a": [0, 3]}, example)
    assert isinstance(module, Unused)
    assert (module.a.out_channels, module.unused.in_channels, module.unused.groups) == (2, 5, 1)
