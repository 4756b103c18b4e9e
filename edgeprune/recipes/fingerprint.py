"""What tells two recipes apart: their code, with what they import from beside it, and the batches that they give."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from torch import Tensor

from edgeprune.recipes.load import Recipe


def hash_code(recipe: Recipe) -> str:
    """Hexadecimal SHA-256 of a recipe's file and of the modules from its folder that are loaded.

    Of Python, its packages and edgeprune the versions tell.
    """
    source = recipe.source.resolve()
    names = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    files = {Path(name).resolve() for name in names if name and Path(name).is_file()}
    beside = {path for path in files if path.is_relative_to(source.parent) and not _is_installed(path)}
    digest = hashlib.sha256()
    for path in sorted({source, *beside}):
        digest.update(str(path.relative_to(source.parent)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _is_installed(path: Path) -> bool:
    places = (sys.prefix, sys.base_prefix, Path(__file__).parent.parent)
    return any(path.is_relative_to(Path(place).resolve()) for place in places)


def hash_batches(batches: Iterable[tuple[Tensor, Tensor | None]], most: int | None = None) -> str:
    """Hexadecimal SHA-256 of the values, types and sizes of batches, of the first `most` where that is given."""
    digest = hashlib.sha256()
    for batch in islice(batches, most):
        for tensor in batch:
            if tensor is not None:
                digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
