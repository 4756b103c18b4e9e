"""Where nets are trained: which device a name means, and that a program runs where it was moved to."""

from __future__ import annotations

import pytest
import torch
from prune_nets import TinyResidual, tiny_recipe
from torch import Tensor, nn

from edgeprune.errors import UsageError
from edgeprune.graph.trace import set_training_, trace_model
from edgeprune.pruning.accelerator import CPU, device_of, find_accelerator, move_
from edgeprune.pruning.pairs import read_pairs
from edgeprune.pruning.recover import noise_share, training_loss
from edgeprune.recipes.load import Finetune

META = torch.device("meta")
"""A device that every torch has: what is on it has a shape and no values."""


class MakesTensors(nn.Module):
    """Makes tensors of its own, keeps a buffer, and names a device in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("offset", torch.ones(4))

    def forward(self, inputs: Tensor) -> Tensor:
        """`[N, 4]` to `[N, 4]`."""
        steps = torch.arange(4, dtype=torch.float32, device=inputs.device)
        return self.layer(inputs).to(CPU if inputs.device == CPU else inputs.device) + self.offset * steps


def present(monkeypatch: pytest.MonkeyPatch, *kinds: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)


@pytest.mark.parametrize(
    ("kinds", "name", "device"),
    [
        ((), "auto", "cpu"),
        (("mps",), "auto", "mps"),
        (("cuda", "mps"), "auto", "cuda"),
        (("cuda",), "cpu", "cpu"),
        (("cuda", "mps"), "mps", "mps"),
    ],
)
def test_a_name_means_a_device(monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...], name: str, device: str) -> None:
    present(monkeypatch, *kinds)
    assert find_accelerator(name) == torch.device(device)


def test_what_is_not_here_is_refused_with_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    present(monkeypatch, "mps")
    with pytest.raises(UsageError, match=r"accelerator cuda: torch .* finds cpu, mps here; leave"):
        find_accelerator("cuda")
    with pytest.raises(UsageError, match=r"accelerator: 'cude'; did you mean 'cuda'"):
        find_accelerator("cude")


def test_a_program_that_was_moved_runs_there_and_back() -> None:
    program = trace_model(MakesTensors(), torch.zeros(1, 4))
    inputs = torch.randn(3, 4)
    before = program(inputs)
    assert device_of(program) == CPU
    weights = {name: value.detach().clone() for name, value in program.state_dict().items()}
    move_(program, META)
    assert device_of(program) == META
    outputs = program(inputs.to(META))
    assert (outputs.device, outputs.shape) == (META, (3, 4))
    program.to_empty(device=CPU)
    move_(program, CPU).load_state_dict(weights)
    assert torch.equal(program(inputs), before)


def test_a_training_step_is_on_one_device() -> None:
    """What is on META and on the processor does not add up: torch refuses it."""
    recipe = tiny_recipe(Finetune(epochs=1))
    inputs, targets = (part.to(META) for part in next(read_pairs(recipe.train_data())))
    program = move_(trace_model(TinyResidual(), recipe.example_input()), META)
    set_training_(program, True)
    outputs = program(inputs)
    loss = training_loss(recipe, outputs, targets, outputs.detach()) + noise_share(program(inputs), outputs, None)
    loss.backward()
    assert {value.grad.device for value in program.parameters() if value.grad is not None} == {META}
    with pytest.raises(RuntimeError, match=r"meta tensor|same device"):
        training_loss(recipe, outputs, targets.to(CPU), outputs.detach())
