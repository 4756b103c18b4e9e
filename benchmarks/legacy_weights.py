"""Read the tensors of a weight file that torch wrote before 1.6, without unpickling anything.

Such a file is four pickled documents (magic number, version, system, tensors by name), a pickled list of storage
names, and then the storages in that order: a count in 8 bytes and the raw numbers.
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from edgeprune.errors import RecipeError
from edgeprune.recipes.pickled_arrays import STEPS, Stack

DTYPES: dict[str, np.dtype[Any]] = {"torch FloatStorage": np.dtype("<f4"), "torch LongStorage": np.dtype("<i8")}
TENSOR, DICT = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"


def _reduce(stack: Stack, _: Any) -> None:
    arguments, kind = stack.pop(), stack.pop()
    if kind not in (TENSOR, DICT):
        raise ValueError(f"call of {kind!r}")
    stack.append({} if kind == DICT else arguments)


def _set_item(stack: Stack, _: Any) -> None:
    value, key = stack.pop(), stack.pop()
    stack[-1][key] = value


def _skip(stack: Stack, _: Any) -> None:
    stack.pop()


OWN_STEPS = STEPS | {
    **dict.fromkeys(("GLOBAL", "LONG1"), lambda stack, argument: stack.append(argument)),
    "BINPERSID": lambda stack, argument: None,  # the name of a storage stays on the stack
    "REDUCE": _reduce,
    "SETITEM": _set_item,
    "BUILD": _skip,  # version numbers of modules
}


def _document(file: BinaryIO) -> Any:
    stack: Stack = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        else:
            OWN_STEPS[opcode.name](stack, argument)
    return stack.pop()


def read_legacy_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by parameter name, in the order of the file.

    Raises:
        RecipeError: the file has anything but float32 and int64 tensors.
    """
    with path.open("rb") as file:
        try:
            *_, tensors, names = (_document(file) for _ in range(5))
            dtypes = {storage[2]: DTYPES[storage[1]] for storage, *_ in tensors.values()}
            storages = {name: _storage(file, dtypes[name]) for name in names}
            return {
                name: storages[storage[2]].as_strided(size, stride, offset)
                for name, (storage, offset, size, stride, *_) in tensors.items()
            }
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError) as exc:
            raise RecipeError(f"{path}: no plain weight file of torch before 1.6 ({type(exc).__name__} {exc})") from exc


def _storage(file: BinaryIO, dtype: np.dtype[Any]) -> Tensor:
    count = int.from_bytes(file.read(8), "little")
    return torch.from_numpy(np.frombuffer(file.read(count * dtype.itemsize), dtype, count).copy())
