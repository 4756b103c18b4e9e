"""Which of several states of a net is kept, by which data, and in which words it is said."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from prune_nets import TinyResidual, stripes, tiny_recipe
from torch import nn
from torch.fx import GraphModule

from edgeprune.core.metric import Metric
from edgeprune.graph.trace import copy_program, trace_model
from edgeprune.pruning.evidence import Batch
from edgeprune.pruning.held_out import Choice, HeldOut, Standing, hold_out
from edgeprune.pruning.recover import Recovered
from edgeprune.recipes.load import TOP1_ACCURACY, Finetune, Recipe
from edgeprune.recipes.reading import Data
from edgeprune.stages.model import describe_step, say_step

RMSE = Metric(
    "RMSE", lambda outputs, targets: float(np.sqrt(np.square(outputs - targets).mean())), better="lower", unit="K"
)
NAN, INF = math.nan, math.inf


def held(metric: Metric | None, inputs: int = 100) -> HeldOut:
    return HeldOut(((torch.zeros(inputs, 1), torch.zeros(inputs)),), "here", nn.functional.cross_entropy, metric)


@pytest.mark.parametrize(
    ("metric", "standings", "kept"),
    [
        (TOP1_ACCURACY, [(98.4, 1.0), (94.1, 0.1)], 0),
        (TOP1_ACCURACY, [(50.0, 1.0), (90.0, 9.0), (70.0, 0.1)], 1),
        (TOP1_ACCURACY, [(90.0, 1.0), (92.0, 0.9)], 1),
        (TOP1_ACCURACY, [(90.0, 1.0), (92.0, 1.1)], 0),  # within a standard error of 100 inputs: the loss decides
        (TOP1_ACCURACY, [(90.0, 1.0), (96.0, 1.1)], 1),
        (TOP1_ACCURACY, [(100.0, 0.1), (100.0, 0.1)], 1),
        (TOP1_ACCURACY, [(92.0, 0.5), (90.0, 0.4), (88.0, 0.3), (86.0, 0.2)], 1),  # no slipping down step by step
        (RMSE, [(0.33, 1.0), (2.9, 0.1)], 0),
        (RMSE, [(2.9, 0.1), (0.33, 1.0)], 1),
        (RMSE, [(0.33, 0.5), (0.33, 0.4)], 1),
        (RMSE, [(0.33, 0.5), (0.33, 0.6)], 0),
        (RMSE, [(NAN, 0.1), (5.0, 9.0)], 1),
        (RMSE, [(5.0, 9.0), (NAN, 0.1)], 0),
        (replace(RMSE, better="higher"), [(0.33, 1.0), (2.9, 9.0)], 1),
        (None, [(None, 1.0), (None, 2.0), (None, 0.5), (None, 0.7)], 2),
        (None, [(None, INF), (None, 2.0)], 1),
        (None, [(None, 2.0), (None, NAN)], 0),
    ],
)
def test_the_metric_decides_and_then_the_loss(
    metric: Metric | None, standings: list[tuple[float | None, float]], kept: int
) -> None:
    choice = Choice(held(metric))
    for number, (quality, loss) in enumerate(standings):
        assert choice.offer_(Standing(quality, loss)) == (choice.kept == number)
    assert choice.kept == kept


def test_a_share_within_its_standard_error_is_as_good() -> None:
    """Of 100 inputs, 90.5 right of 101: sqrt(0.896 * 0.104 / 100) is 3.052 points."""
    for quality, kept in ((86.96, 1), (86.94, 0)):
        choice = Choice(held(TOP1_ACCURACY))
        choice.offer_(Standing(90.0, 1.0))
        choice.offer_(Standing(quality, 0.9))
        assert choice.kept == kept


@pytest.fixture
def program() -> GraphModule:
    torch.manual_seed(0)
    return trace_model(TinyResidual(), torch.zeros(1, 2, 4, 4))


def recipe_with(calibration: list[Any], **changes: Any) -> Recipe:
    made = tiny_recipe(Finetune())
    return replace(made, calibration_data=lambda: Data("calibration_data()", "here", calibration), **changes)


def test_validation_data_judge_and_all_calibration_inputs_are_fitted_to(program: GraphModule) -> None:
    validation: list[Batch] = [stripes(30, 5), stripes(10, 6)]
    recipe = recipe_with([stripes(64, 1)], validation_data=lambda: Data("validation_data()", "here", validation))
    held_out, fitted = hold_out(recipe, program)
    assert held_out.description == "40 inputs of validation_data()"
    assert torch.equal(torch.cat([inputs for inputs, _ in held_out.batches]), torch.cat([one for one, _ in validation]))
    assert torch.equal(torch.cat([inputs for inputs, _ in fitted]), stripes(64, 1)[0])


def test_without_them_every_fourth_calibration_input_judges_and_no_other(program: GraphModule) -> None:
    inputs, targets = stripes(40, 1)
    held_out, fitted = hold_out(recipe_with([(inputs[:24], targets[:24]), (inputs[24:], targets[24:])]), program)
    assert held_out.description == "10 inputs of calibration_data()"
    assert torch.equal(torch.cat([one for one, _ in held_out.batches]), inputs[3::4])
    assert torch.equal(torch.cat([one for _, one in held_out.batches]), targets[3::4])
    assert torch.equal(torch.cat([one for one, _ in fitted]), inputs[torch.arange(40) % 4 != 3])


def test_few_inputs_are_fitted_to_and_judged_by(program: GraphModule) -> None:
    held_out, fitted = hold_out(recipe_with([stripes(15, 1)]), program)
    assert held_out.inputs == sum(len(inputs) for inputs, _ in fitted) == 15


def test_targets_of_several_sizes_are_judged_by_the_loss(program: GraphModule) -> None:
    ragged = [(stripes(20, seed)[0], torch.zeros(20, seed)) for seed in (1, 2)]
    held_out, fitted = hold_out(recipe_with(ragged, loss=lambda outputs, _: outputs.square().mean()), program)
    assert held_out.metric is None
    assert (held_out.inputs, sum(len(inputs) for inputs, _ in fitted)) == (10, 30)
    assert held_out.judge(program).quality is None


def test_inputs_without_targets_are_judged_by_the_originals_answers(program: GraphModule) -> None:
    held_out, _ = hold_out(recipe_with([stripes(64, 1)[0]]), program)
    assert held_out.metric is None
    itself = held_out.judge(program)
    other = copy_program(program)
    with torch.no_grad():
        other.get_parameter("classifier.weight").neg_()
    assert itself.quality is None
    assert held_out.judge(other).loss > itself.loss


def test_a_standing_is_the_metric_and_the_mean_loss_over_all_inputs(program: GraphModule) -> None:
    images, labels = stripes(50, 3)
    parts = tuple(zip(images.split(32), labels.split(32), strict=True))
    held_out = HeldOut(parts, "here", nn.functional.cross_entropy, TOP1_ACCURACY)
    outputs = program(images).detach()
    found = held_out.judge(program)
    assert found.quality == pytest.approx(100 * float((outputs.argmax(1) == labels).float().mean()))
    assert found.loss == pytest.approx(float(nn.functional.cross_entropy(outputs, labels)), rel=1e-5)


@pytest.mark.parametrize(
    ("kept", "states", "words"),
    [
        (
            0,
            2,
            "fine-tuning: the net as it was before is kept (before RMSE 0.33 K, loss 1; then RMSE 2.9 K, loss 0.1, on",
        ),
        (1, 2, "fine-tuning: epoch 1 of 2 is kept (before RMSE 0.33 K, loss 1; then RMSE 0.2 K, loss 0.5, on 7 inputs"),
        (
            1,
            1,
            "fine-tuning: its result is kept (before RMSE 0.33 K, loss 1; then RMSE 0.2 K, loss 0.5, on 7 inputs of",
        ),
    ],
)
def test_what_ships_is_said_with_the_figures_before_and_after(kept: int, states: int, words: str) -> None:
    standings = (Standing(0.33, 1.0), Standing(0.2, 0.5), Standing(2.9, 0.1))[: states + 1]
    step = describe_step("fine-tuning", Recovered(GraphModule({}, torch.fx.Graph()), standings, kept))
    assert say_step(step, held(RMSE, 7)).startswith(words)


def test_no_epochs_are_said_too() -> None:
    step = describe_step("fine-tuning", Recovered(GraphModule({}, torch.fx.Graph())))
    assert say_step(step, held(None)) == "fine-tuning: none, as the recipe asks for no epochs"


def test_a_standing_without_figures_is_null_in_json() -> None:
    assert Standing(NAN, INF).to_dict() == {"quality": None, "loss": None}
