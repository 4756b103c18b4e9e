"""Quantization-aware training: the copy rounds what runtimes round, and training through it helps nets that need it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from prune_nets import TinyResidual, stripes, tiny_recipe
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.core.target import Target
from edgeprune.errors import RecipeError
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.onnx.quantize import choose_onnx_scheme, quantize_onnx
from edgeprune.exporting.parity.chain import measure_sqnr_db
from edgeprune.exporting.runners import run_file
from edgeprune.graph.trace import named_tensors, trace_model
from edgeprune.pruning import quantization_aware
from edgeprune.pruning.accelerator import CPU
from edgeprune.pruning.held_out import HeldOut
from edgeprune.pruning.quantization_aware import (
    fake_quantize,
    round_activations,
    round_weights,
    train_quantization_aware,
)
from edgeprune.pruning.recalibrate import evaluate, recalibrate_
from edgeprune.pruning.recover import Course, noise_share, recover
from edgeprune.recipes.load import Finetune, parse_finetune
from edgeprune.stages.model import train_for_int8

EXAMPLE = torch.zeros(1, 2, 4, 4)
AWARE = Finetune(epochs=6, learning_rate=0.05, quantization_aware_epochs=6)
BATCHES = (stripes(64, 1),)
HELD_OUT = HeldOut(BATCHES, "calibration_data()", nn.functional.cross_entropy, None)


def silent(_: str) -> None:
    """Progress that nobody reads."""


@pytest.fixture(scope="module")
def trained() -> GraphModule:
    torch.manual_seed(0)
    program = recover(trace_model(TinyResidual(), EXAMPLE), None, tiny_recipe(AWARE), silent).program
    recalibrate_(program, BATCHES)
    return program


def accuracy(program: nn.Module) -> float:
    recipe = tiny_recipe(AWARE)
    return evaluate(program, recipe.eval_data(), recipe.metric)


def test_activations_lie_on_256_steps_with_an_exact_zero() -> None:
    values = torch.cat([torch.zeros(1), torch.linspace(-1.3, 2.9, 5000)])
    rounded = round_activations(values)
    assert rounded[0] == 0
    assert len(rounded.unique()) <= 256
    assert (rounded - values).abs().max() <= 4.2 / 255 * 0.51 + 1e-6 + 4.2 / 255 * 0.5  # the zero point rounds too
    positive = round_activations(torch.linspace(1.0, 2.0, 1000))
    assert len(positive.unique()) < 135  # the range begins at zero, as those of the runtimes do


def test_each_channel_of_weights_has_its_own_symmetric_grid() -> None:
    torch.manual_seed(0)
    weights = torch.randn(3, 4, 3, 3) * torch.tensor([1.0, 100.0, 0.01]).view(3, 1, 1, 1)
    rounded = round_weights(weights, 0, 8)
    steps = weights.abs().amax((1, 2, 3)) / 127
    assert ((rounded - weights).abs().amax((1, 2, 3)) <= steps * 0.501).all()
    assert torch.equal(round_weights(-weights, 0, 8), -rounded)
    dead = weights.clone()
    dead[1] = 0
    assert torch.isfinite(round_weights(dead, 0, 4)).all()


def test_gradients_pass_through_the_rounding() -> None:
    weights = torch.randn(4, 5, requires_grad=True)
    torch.autograd.backward((round_activations(round_weights(weights, 0, 4)) * 3).sum())
    assert weights.grad is not None
    assert torch.equal(weights.grad, torch.full_like(weights, 3.0))


def test_the_copy_shares_every_tensor_and_leaves_the_program_alone(trained: GraphModule) -> None:
    inputs, nodes = stripes(8, 3)[0], len(trained.graph.nodes)
    before = trained(inputs)
    copy = fake_quantize(trained)
    theirs = named_tensors(copy)
    assert all(theirs[name] is value for name, value in named_tensors(trained).items())
    assert torch.equal(trained(inputs), before)
    assert len(trained.graph.nodes) == nodes


def test_the_copy_is_as_far_from_float_as_the_int8_file(trained: GraphModule, tmp_path: Path) -> None:
    inputs = stripes(128, 7)[0]
    export_onnx(trained, EXAMPLE, tmp_path / "fp32.onnx")
    quantize_onnx(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [inputs], choose_onnx_scheme("aarch64", ("asimddp",)))
    wanted = run_file(tmp_path / "fp32.onnx", inputs.numpy())
    file_db = measure_sqnr_db(wanted, run_file(tmp_path / "int8.onnx", inputs.numpy(), optimised=False))
    copy_db = measure_sqnr_db(wanted, fake_quantize(trained)(inputs).detach().numpy())
    assert copy_db == pytest.approx(file_db, abs=4)


def test_a_net_that_few_bits_ruin_is_mended_by_training(trained: GraphModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bits stand for what eight bits do to a badly scaled net."""
    coarse = partial(fake_quantize, weight_bits=2)
    monkeypatch.setattr(quantization_aware, "fake_quantize", coarse)
    monkeypatch.setattr(quantization_aware, "LEARNING_RATE_SHARE", 1.0)
    done = train_quantization_aware(trained, trained, tiny_recipe(AWARE), silent, Course(held_out=HELD_OUT))
    assert done.kept
    assert done.standings[done.kept].loss < 0.7 * done.standings[0].loss
    assert accuracy(coarse(done.program)) >= accuracy(coarse(trained)) + 2


def test_it_does_no_harm_at_eight_bits_and_resumes(trained: GraphModule, tmp_path: Path) -> None:
    lines: list[str] = []
    checkpoint = tmp_path / "aware.safetensors"
    done = train_quantization_aware(
        trained, trained, tiny_recipe(AWARE), lines.append, Course(checkpoint, held_out=HELD_OUT)
    )
    assert accuracy(fake_quantize(done.program)) >= accuracy(fake_quantize(trained)) - 1
    assert lines[0].startswith("quantization-aware: epoch 1 of 6, loss ")
    again: list[str] = []
    same = train_quantization_aware(
        trained, trained, tiny_recipe(AWARE), again.append, Course(checkpoint, held_out=HELD_OUT)
    )
    assert again == []
    assert (same.standings, same.kept) == (done.standings, done.kept)


def test_a_training_that_does_harm_is_not_kept(trained: GraphModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization_aware, "LEARNING_RATE_SHARE", 100.0)
    recipe = tiny_recipe(Finetune(learning_rate=0.05, quantization_aware_epochs=1, distillation=0.0))
    done = train_quantization_aware(trained, trained, recipe, silent, Course(held_out=HELD_OUT))
    assert not done.kept
    assert all(torch.equal(done.program.state_dict()[name], value) for name, value in trained.state_dict().items())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.up = nn.Linear(6, 18), nn.ConvTranspose1d(6, 4, 3)
        self.cell = nn.GRU(4, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        x = nn.functional.scaled_dot_product_attention(q, k, v) + x
        return self.cell(self.up(x.transpose(1, 2)).transpose(1, 2))[0][:, -1]


def test_attention_transposed_convolutions_and_recurrent_cells_are_rounded() -> None:
    torch.manual_seed(0)
    program = trace_model(Attention(), torch.zeros(1, 7, 6))
    copy = fake_quantize(program)
    rounded = [str(node.args[0]) for node in copy.graph.nodes if node.target is round_weights]
    assert len(rounded) == 4  # qkv, up, and both of the cell
    assert sum(node.target is round_activations for node in copy.graph.nodes) >= 6
    inputs = torch.randn(3, 7, 6)
    assert 20 < measure_sqnr_db(program(inputs).detach().numpy(), copy(inputs).detach().numpy()) < 80
    assert np.isfinite(copy(inputs).detach().numpy()).all()


def test_the_setting_is_a_whole_number() -> None:
    assert parse_finetune({"quantization_aware_epochs": 3}, "here").quantization_aware_epochs == 3
    with pytest.raises(RecipeError, match="quantization_aware_epochs: expected a whole number from 0"):
        parse_finetune({"quantization_aware_epochs": 0.5}, "here")


@pytest.mark.parametrize(
    ("precision", "epochs", "runs"),
    [
        ("int8", 1, True),
        ("auto", 1, True),
        ("int16x8", 1, True),
        ("fp32", 1, False),
        ("fp16", 1, False),
        ("int8", 0, False),
    ],
)
def test_it_runs_where_int8_may_ship_and_the_recipe_asks_for_it(
    trained: GraphModule, tmp_path: Path, precision: str, epochs: int, runs: bool
) -> None:
    job: Any = SimpleNamespace(
        recipe=tiny_recipe(Finetune(learning_rate=0.05, quantization_aware_epochs=epochs)),
        target=Target("local", "a board", "litert", precision),
        detail=silent,
        accelerator=CPU,
        run=SimpleNamespace(path=tmp_path.joinpath),
    )
    _, steps = train_for_int8(job, SimpleNamespace(program=trained), trained, HELD_OUT)
    assert bool(steps) == runs == (tmp_path / "quantization_aware.safetensors").exists()
    for step in steps:
        losses = [standing["loss"] for standing in step.standings]
        assert step.kept == losses.index(min(losses))


class Cancelling(nn.Module):
    """Two channels that are nearly the same, with large weights of opposite signs: rounding is all that is left."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 8), nn.Linear(8, 3)
        with torch.no_grad():
            self.first.weight[1], self.first.bias[1] = self.first.weight[0] * 1.01, self.first.bias[0]
            self.second.weight[:, 0] += 8
            self.second.weight[:, 1] -= 8

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x.flatten(1))))


def test_a_net_learns_to_mind_the_rounding_less() -> None:
    """The loss says nothing: what changes the net is the noise alone."""
    torch.manual_seed(0)
    program, inputs = trace_model(Cancelling(), EXAMPLE), stripes(256, 11)[0]
    settings = Finetune(epochs=6, learning_rate=0.01, distillation=0.0)
    recipe = replace(tiny_recipe(settings), loss=lambda outputs, _: 1 + 0 * outputs.sum())

    def keep_db(one: GraphModule) -> float:
        return measure_sqnr_db(*(net(inputs).detach().numpy() for net in (one, fake_quantize(one))))

    assert (
        keep_db(recover(program, program, recipe, silent, Course(make_rounding_copy=fake_quantize)).program)
        > keep_db(program) + 5
    )


def test_noise_is_a_share_of_the_teachers_power() -> None:
    plain, taught = torch.full((2, 4), 3.0), torch.ones(2, 4)
    assert noise_share(plain + 0.1, plain, taught).item() == pytest.approx(0.01, rel=1e-5)
    assert noise_share(plain + 0.3, plain, None).item() == pytest.approx(0.01, rel=1e-5)
    assert torch.isfinite(noise_share(taught, taught, torch.zeros(2, 4)))
