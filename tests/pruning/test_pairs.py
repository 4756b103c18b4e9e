"""Batches of a single input, which leave a batch norm without a variance, and where NaN comes from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prune_nets import TinyResidual, stripes, tiny_recipe
from torch import Tensor, nn

from edgeprune.errors import EdgepruneError
from edgeprune.graph.trace import named_tensors, trace_model
from edgeprune.pruning.finite import check_tensors, find_source
from edgeprune.pruning.lesson import prepare_lesson
from edgeprune.pruning.pairs import merge_singles
from edgeprune.pruning.recalibrate import mean_loss, recalibrate_, recalibrate_if_better
from edgeprune.pruning.recover import recover
from edgeprune.pruning.sensitivity import label_batches
from edgeprune.recipes.load import Finetune

EXAMPLE = torch.zeros(1, 2, 4, 4)


class Flat(nn.Module):
    """A batch norm over single numbers: of one input it has no variance."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(2, 6, 3), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(torch.relu(self.conv(x)).mean((2, 3))))


def batches(*counts: int) -> list[tuple[Tensor, Tensor]]:
    images, labels = stripes(sum(counts))
    return list(zip(images.split(list(counts)), labels.split(list(counts)), strict=True))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12))
def test_no_batch_of_one_is_left_and_every_input_comes_once_in_order(counts: list[int]) -> None:
    numbers = torch.arange(float(sum(counts)))
    parts = [(part, part) for part in numbers.split(counts)]
    merged = list(merge_singles(parts))
    assert torch.equal(torch.cat([one for one, _ in merged]), numbers)
    assert all(torch.equal(one, other) for one, other in merged)
    assert all(len(one) > 1 for one, _ in merged) or sum(counts) == 1
    if 1 not in counts:
        assert [len(one) for one, _ in merged] == counts


def test_a_single_input_whose_target_has_another_size_is_left_out() -> None:
    parts = [(torch.zeros(3, 2), torch.zeros(3, 4)), (torch.zeros(1, 2), torch.zeros(1, 5))]
    ((inputs, targets),) = merge_singles(parts)
    assert (len(inputs), targets.shape) == (3, (3, 4))


@pytest.mark.parametrize("counts", [(32, 32, 1), (1, 32, 32), (1,) * 64])
def test_training_on_batches_of_one_keeps_the_statistics_finite(counts: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    program = trace_model(Flat(), EXAMPLE)
    recipe = tiny_recipe(Finetune(epochs=1, learning_rate=0.05), batches(*counts))
    trained = recover(program, None, recipe, lambda _: None).program
    assert all(bool(value.isfinite().all()) for value in named_tensors(trained).values())
    lesson = prepare_lesson(program, recipe, nets=1)
    lesson.give_(program)
    assert bool(program.get_buffer("norm.running_var").isfinite().all())
    assert sum(len(inputs) for inputs, _, _ in lesson.exercises) >= sum(counts)


@pytest.mark.parametrize("counts", [(1, 1, 1, 1), (8, 1), (3, 2)])
def test_calibration_on_batches_of_one_keeps_the_statistics_finite(counts: tuple[int, ...]) -> None:
    program = trace_model(Flat(), EXAMPLE)
    labelled = label_batches(program, batches(*counts))
    recalibrate_(program, labelled[:1])
    kept, _ = recalibrate_if_better(program, labelled, nn.functional.cross_entropy)
    assert bool(kept.get_buffer("norm.running_var").isfinite().all())
    assert sum(len(inputs) for inputs, _ in labelled) == sum(counts)


def test_where_nan_comes_from_is_named() -> None:
    class Log(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.log(-torch.relu(self.first(x)) - 1))

    program = trace_model(Log(), torch.zeros(1, 4))
    inputs = torch.ones(3, 4)
    assert find_source(program, inputs).startswith("layer log (aten.log) gives NaN or infinity from finite values")
    assert find_source(program, inputs / 0) == "the inputs hold NaN or infinity"
    with pytest.raises(EdgepruneError, match=r"the loss is not finite: layer log \(aten.log\)"):
        mean_loss(program, [(inputs, torch.tensor([0, 1, 2]))], nn.functional.cross_entropy)
    with torch.no_grad():
        program.get_parameter("first.weight")[2] = 3e38
    assert find_source(program, inputs * 3).startswith("layer first (aten.linear)")
    with torch.no_grad():
        program.get_parameter("second.bias")[1] = float("nan")
    assert find_source(program, inputs) == "second.bias holds NaN or infinity"
    with pytest.raises(EdgepruneError, match=r"^then: second\.bias holds NaN or infinity; mend it$"):
        check_tensors(program, "then", "mend it")


def test_a_loss_that_is_nan_by_itself_is_told_apart_from_the_net() -> None:
    program = trace_model(TinyResidual(), EXAMPLE)
    (pair,) = batches(8)
    with pytest.raises(EdgepruneError, match="the net's outputs are finite: it is the loss, or the targets"):
        mean_loss(program, [pair], lambda outputs, _: outputs.sum() / 0)


def test_a_training_that_diverges_names_the_tensor_and_the_rate() -> None:
    program, wild = trace_model(TinyResidual(), EXAMPLE), Finetune(epochs=1, learning_rate=1e30)
    with pytest.raises(
        EdgepruneError, match=r"short training .*: \S+ holds NaN .* learning_rate in stripes\.py .now 1e\+30"
    ):
        prepare_lesson(program, tiny_recipe(wild), nets=1)
    recipe = replace(tiny_recipe(replace(wild, epochs=4), batches(8)), loss=lambda outputs, _: outputs.square().sum())
    with pytest.raises(EdgepruneError, match=r"recover: .* lower finetune learning_rate"):
        recover(program, None, recipe, lambda _: None)
