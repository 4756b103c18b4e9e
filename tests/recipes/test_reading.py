"""Batches as users give them: what is taken, in which form it is handed on, and which batch is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeprune.errors import RecipeError
from edgeprune.recipes.reading import Data, first_inputs, read_batch, wrap_data


def example() -> Tensor:
    return torch.zeros(1, 2, 3)


def pair(count: int = 4, *sizes: int, kind: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.ones(count, *(sizes or (2, 3))).to(kind), torch.arange(count)


def read(*batches: Any) -> list[tuple[Tensor, Tensor | None]]:
    return list(Data("train_data()", "mine.py", list(batches), example))


class Loader:
    """A length and an iterator that need not agree."""

    def __init__(self, length: int, batches: Iterator[Any]) -> None:
        self.length, self.batches = length, batches

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        return self.batches


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (pair(4, 2, 5), r"inputs of shape \[4, 2, 5\], where the example input is \[1, 2, 3\]"),
        (pair(4, 2), r"inputs of shape \[4, 2\]"),
        (pair(kind=torch.uint8), "inputs are torch.uint8, where the example input is torch.float32"),
        ((pair()[0] / 0, pair()[1]), "input 0 holds NaN or infinity"),
        ((pair(5)[0], pair(4)[1]), "5 inputs and 4 targets"),
        ((pair(0)[0], pair(0)[1]), "0 inputs and 0 targets"),
        (None, "found None; expected a pair"),
        ({"image": 1, "label": 2}, "found a dict with the keys 'image', 'label'"),
        ((*pair(), 1), r"found a tuple of 3 \(Tensor, Tensor, int\)"),
        ((pair(), pair()[1]), r"inputs: found a tuple of 2 \(Tensor, Tensor\)"),
        ((pair()[0], [0, 1, 2, 3]), "targets: found a list of 4"),
        ((pair()[0], torch.tensor(3)), "targets: a tensor without dimensions"),
        (pair(kind=torch.complex64), "inputs: complex numbers"),
        ((np.array(["a", "b"]), pair(2)[1]), "inputs: TypeError: .* give a plain tensor of numbers"),
    ],
)
def test_the_batch_that_differs_is_named_by_its_number(batch: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=rf"mine\.py: train_data\(\): batch 3: {message}"):
        read(pair(), pair(), batch)
    assert len(read(pair(), pair(1))) == 2


def test_the_input_that_is_not_finite_is_named() -> None:
    inputs, targets = pair()
    inputs[2, 1, 1] = float("nan")
    with pytest.raises(RecipeError, match="batch 1: input 2 holds NaN"):
        read((inputs, targets))


def test_missing_values_in_targets_are_the_loss_s_business() -> None:
    assert read((pair()[0], torch.full((4,), float("nan"))))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_are_handed_on_in_float32(kind: torch.dtype) -> None:
    inputs, targets = read_batch((pair(kind=kind)[0] * 1.5, pair()[1].to(kind)), "here")
    assert targets is not None
    assert inputs.dtype == targets.dtype == torch.float32
    assert torch.equal(inputs, pair()[0] * 1.5)


def test_arrays_views_and_tensors_with_a_history_are_taken() -> None:
    inputs, targets = read_batch((np.ones((4, 2, 3)), np.arange(4)), "here")
    assert targets is not None
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    (kept, _) = read_batch(((torch.ones(4, 2, 3, requires_grad=True) * 2), pair()[1]), "here")
    assert not kept.requires_grad
    (dense, none) = read_batch(torch.eye(4).to_sparse(), "here")
    assert torch.equal(dense, torch.eye(4))
    assert none is None


@pytest.mark.parametrize(("length", "given"), [(3, 2), (2, 0)])
def test_fewer_batches_than_the_length_says_are_refused(length: int, given: int) -> None:
    data = Data("train_data()", "mine.py", Loader(length, iter([pair()] * given)), example)
    with pytest.raises(RecipeError, match=rf"gave {given} batches where its length is {length}.*read only once"):
        list(data)


def test_data_without_an_end_stop_at_their_length() -> None:
    def endless() -> Iterator[Any]:
        while True:
            yield pair()

    iterator = iter(Data("train_data()", "mine.py", Loader(2, endless()), example))
    assert len([next(iterator), next(iterator)]) == 2
    with pytest.raises(RecipeError, match="batch 3: its length is 2 batches"):
        next(iterator)


def test_a_worker_s_error_is_told_by_its_own_words() -> None:
    def fail() -> Iterator[Any]:
        yield pair()
        raise ValueError(
            "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback:\nValueError: no such image"
        )

    with pytest.raises(RecipeError, match=r"^mine\.py: train_data\(\) raised ValueError: no such image$"):
        list(Data("train_data()", "mine.py", Loader(3, fail()), example))


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (iter([1]), "gave an iterator, which can be read only once"),
        (3, "gave int; expected batches"),
        ([], "gave no batches.*drop_last"),
        (Loader(2.5, iter([])), "the length of what eval_data.. gave raised TypeError"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_data_set_is_refused(batches: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        wrap_data(batches, "eval_data", "mine.py", example)


def test_the_first_input_may_have_any_size() -> None:
    data = Data("eval_data()", "mine.py", [pair(4, 7)], example)
    assert first_inputs(data).shape == (1, 7)
