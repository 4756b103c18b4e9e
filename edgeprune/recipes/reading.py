"""Batches as a recipe's data functions give them, held against what the net takes each time that they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeprune.errors import RecipeError
from edgeprune.recipes.user_code import describe_error, guarded

END = object()
"""In place of a batch, behind the last one."""


@dataclass(frozen=True)
class Data:
    """A recipe's data set: batches `(inputs, targets)`, readable again and again; targets are None where not given.

    Tensors come on the processor, without history; floats in float32, as the files of every format take them.
    Inputs have the sizes and type of `example` but for their number, where there is one, and are finite.
    """

    where: str
    source: str
    batches: Any
    example: Callable[[], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        iterator, count, length = guarded(self.where, self.source, lambda: iter(self.batches)), 0, len(self)
        example = self.example() if self.example is not None else None
        while (batch := guarded(self.where, self.source, lambda: next(iterator, END))) is not END:
            count += 1
            place = f"{self.source}: {self.where}: batch {count}"
            if count > length:
                raise RecipeError(f"{place}: its length is {length} batches; give as many as __len__() says")
            inputs, targets = read_batch(batch, place)
            if example is not None:
                _check_inputs(inputs, example, place)
            yield inputs, targets
        if count < length:
            raise RecipeError(
                f"{self.source}: {self.where}: gave {count} batches where its length is {length}; give as many as "
                "__len__() says each time that it is read (an iterator can be read only once): a list or a DataLoader"
            )


def wrap_data(batches: Any, function: str, source: str, example: Callable[[], Tensor]) -> Data:
    """What a data function gave, required to be readable again and again.

    Raises:
        RecipeError: it is none such.
    """
    where = f"{source}: {function}()"
    if isinstance(batches, Iterator):
        raise RecipeError(f"{where} gave an iterator, which can be read only once; return a list or a DataLoader")
    if not hasattr(batches, "__iter__") or not hasattr(batches, "__len__"):
        raise RecipeError(
            f"{where} gave {type(batches).__name__}; expected batches of (inputs, targets) with a length: "
            "a list or a DataLoader"
        )
    if guarded(f"the length of what {function}() gave", source, lambda: len(batches)) == 0:
        raise RecipeError(f"{where} gave no batches; expected at least one (does drop_last leave any?)")
    return Data(f"{function}()", source, batches, example)


def first_inputs(data: Data) -> Tensor:
    """The first input of the first batch, `[1, ...]`, whatever its sizes.

    Raises:
        RecipeError: there is none.
    """
    for inputs, _ in replace(data, example=None):
        return inputs[:1]
    raise RecipeError(f"{data.source}: {data.where} gave no batches; expected at least one")


def read_batch(batch: Any, place: str) -> tuple[Tensor, Tensor | None]:
    """Inputs and targets of a batch, which is a pair of tensors or arrays, or inputs alone.

    Raises:
        RecipeError: it is something else, or their numbers differ.
    """
    if isinstance(batch, Tensor | np.ndarray):
        inputs, targets = plain_tensor(batch, f"{place}: inputs"), None
    elif isinstance(batch, tuple | list) and len(batch) == 2:
        inputs, targets = (plain_tensor(part, f"{place}: {name}") for part, name in zip(batch, PARTS, strict=True))
    else:
        raise RecipeError(f"{place}: found {_describe(batch)}; expected a pair of tensors (inputs, targets)")
    if len(inputs) == 0 or (targets is not None and len(inputs) != len(targets)):
        count = "no" if targets is None else len(targets)
        raise RecipeError(f"{place}: {len(inputs)} inputs and {count} targets; expected as many, above 0")
    return inputs, targets


PARTS = ("inputs", "targets")


def plain_tensor(value: Any, place: str) -> Tensor:
    """A tensor or array as a dense tensor on the processor, without history, floats in float32.

    Raises:
        RecipeError: it is neither, has no batch dimension, or holds complex numbers.
    """
    if not isinstance(value, Tensor | np.ndarray):
        raise RecipeError(f"{place}: found {_describe(value)}; expected one tensor with a batch dimension")
    try:
        tensor = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as exc:
        raise RecipeError(f"{place}: {describe_error(exc)}; give a plain tensor of numbers") from exc
    if tensor.ndim == 0:
        raise RecipeError(f"{place}: a tensor without dimensions; expected one with a batch dimension")
    if tensor.is_complex():
        raise RecipeError(f"{place}: complex numbers ({tensor.dtype}); give their parts as channels of real numbers")
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    return tensor.float() if tensor.is_floating_point() else tensor


def _describe(value: Any) -> str:
    """What was given in place of tensors, and what to make of it."""
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with the keys {', '.join(map(repr, list(value)[:4]))}"
    if isinstance(value, tuple | list):
        kinds = ", ".join(type(part).__name__ for part in value[:4])
        return f"a {type(value).__name__} of {len(value)} ({kinds}{', ...' if len(value) > 4 else ''})"
    return "None" if value is None else f"a {type(value).__name__}"


def _check_inputs(inputs: Tensor, example: Tensor, place: str) -> None:
    """Require the sizes and type of the example, and finite values.

    Raises:
        RecipeError: they differ.
    """
    if inputs.shape[1:] != example.shape[1:]:
        raise RecipeError(
            f"{place}: inputs of shape {list(inputs.shape)}, where the example input is {list(example.shape)}: all but "
            "the number of inputs must agree, as a file has fixed sizes; resize or pad them, or mend example_input()"
        )
    if inputs.dtype != example.dtype:
        raise RecipeError(
            f"{place}: inputs are {inputs.dtype}, where the example input is {example.dtype}; give all in one type"
        )
    if inputs.is_floating_point() and not bool(inputs.isfinite().all()):
        row = int((~inputs.isfinite()).flatten(1).any(1).nonzero()[0]) if inputs.ndim > 1 else 0
        raise RecipeError(f"{place}: input {row} holds NaN or infinity; clean the data, or check their normalisation")
