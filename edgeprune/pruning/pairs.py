"""Batches of inputs and targets to train on and to take statistics from, none of a single input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from edgeprune.errors import EdgepruneError
from edgeprune.recipes.reading import Data

Pair = tuple[Tensor, Tensor]


def read_pairs(data: Data) -> Iterator[Pair]:
    """Batches for training, those of one input merged with their neighbours.

    Raises:
        EdgepruneError: a batch has no targets.
    """
    return merge_singles(_require_targets(data))


def _require_targets(data: Data) -> Iterator[Pair]:
    for inputs, targets in data:
        if targets is None:
            raise EdgepruneError(f"{data.where}: training needs batches of (inputs, targets); this one has inputs only")
        yield inputs, targets


def merge_singles(batches: Iterable[Pair]) -> Iterator[Pair]:
    """The batches, each of one input merged with the next, the last with the one before; the only input alone as it is.

    A batch norm over one value has no variance: torch refuses it in a module, and gives NaN in a traced graph. Where
    targets have another size than the neighbour's, a single input is left out.
    """
    pending: Pair | None = None
    single: Pair | None = None
    for pair in batches:
        current = _merge(single, pair) if single is not None else pair
        single = current if len(current[0]) == 1 else None
        if single is None:
            if pending is not None:
                yield pending
            pending = current
    if pending is not None:
        yield _merge(pending, single) if single is not None else pending
    elif single is not None:
        yield single


def _merge(first: Pair, second: Pair) -> Pair:
    """Both batches in one; the larger where their targets differ in size."""
    if first[1].shape[1:] != second[1].shape[1:]:
        return max(first, second, key=lambda pair: len(pair[0]))
    return torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])
