"""Weights that are computed from others: multiplied out, exactly, so that nothing need be frozen because of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from edgeprune.errors import GraphError
from edgeprune.graph.groups import find_groups
from edgeprune.graph.trace import trace_model
from edgeprune.pruning.fold import copy_model, fold_weights

EXAMPLE = torch.zeros(1, 3, 6, 6)
INPUTS = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 4)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        if self.training:
            self.kept = x
        return self.last(x.mean((2, 3)))


class Halving(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def old_weight_norm(net: Net) -> None:
    for layer in (net.first, net.second):
        weight_norm(layer)  # type: ignore[no-untyped-call]


def both(net: Net) -> None:
    old_spectral_norm(net)
    prune.ln_structured(net.last, "weight", 0.5, 2, 0)  # type: ignore[no-untyped-call]


def old_spectral_norm(net: Net) -> None:
    for layer in (net.first, net.second):
        spectral_norm(layer)


def new_spectral_norm(net: Net) -> None:
    for layer in (net.first, net.second):
        parametrizations.spectral_norm(layer)


def new_weight_norm(net: Net) -> None:
    for layer in (net.first, net.second):
        parametrizations.weight_norm(layer)


def own(net: Net) -> None:
    parametrize.register_parametrization(net.second, "weight", Halving())
    parametrize.register_parametrization(net.second, "bias", Halving())
    net.last.register_buffer("scale", torch.ones(1))
    parametrize.register_parametrization(net.last, "scale", Halving())


CASES = [old_weight_norm, new_weight_norm, old_spectral_norm, new_spectral_norm, own, both]


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("change", CASES)
def test_folded_weights_compute_the_same_and_freeze_nothing(change: Callable[[Net], None]) -> None:
    net = Net()
    change(net)
    net(INPUTS).sum().backward()  # a step of training leaves tensors with a history behind
    net.eval()
    wanted = net(INPUTS)
    folded, names = fold_weights(net)
    assert names
    assert torch.equal(folded(INPUTS), wanted)
    assert torch.equal(net(INPUTS), wanted)
    plain = {name for name, _ in Net().named_parameters()}
    assert {name for name, _ in folded.named_parameters()} == plain
    analysis = find_groups(trace_model(folded, EXAMPLE))
    assert [(group.name, group.size) for group in analysis.channel_groups] == [("first", 8), ("second", 6)]


def test_the_names_of_what_was_folded_are_given() -> None:
    net = Net().eval()
    own(net)
    assert fold_weights(net)[1] == ("second.weight", "second.bias", "last.scale")


def test_what_was_not_trained_stays_so() -> None:
    net = Net().eval()
    net.second.requires_grad_(False)
    own(net)
    folded, _ = fold_weights(net)
    assert not folded.get_parameter("second.weight").requires_grad
    assert isinstance(folded.get_buffer("last.scale"), Tensor)


def test_a_net_with_plain_weights_is_given_back() -> None:
    net = Net()
    assert fold_weights(net) == (net, ())


def test_a_net_may_keep_tensors_of_its_last_training_step() -> None:
    net = Net()
    net(INPUTS).sum().backward()
    net.memory = {"losses": [net.kept], "pair": (net.kept, 3)}  # type: ignore[assignment]
    copy = copy_model(net)
    assert isinstance(copy, Net)
    assert copy.kept is not None
    assert copy.kept.is_leaf
    assert not copy.kept.requires_grad
    assert torch.equal(copy.first.weight, net.first.weight)
    assert copy.first.weight is not net.first.weight


def test_a_net_that_cannot_be_copied_says_why(tmp_path: Any) -> None:
    net = Net()
    with (tmp_path / "log").open("w") as file:
        net.log = file  # type: ignore[assignment]
        with pytest.raises(GraphError, match=r"Net: cannot be copied: .*; keep no open files"):
            copy_model(net)
