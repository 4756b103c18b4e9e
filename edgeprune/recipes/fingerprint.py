"""What tells two recipes apart: their code, what it imports from beside it, their batches. Imports nothing heavy."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def hash_code(recipe: Path) -> str:
    """Hexadecimal SHA-256 of a recipe's file and of all that it imports from its folder, wherever the import stands.

    Of Python, its packages and edgeprune the versions tell.
    """
    source = recipe.resolve()
    pending, digest, files = [source], hashlib.sha256(), dict[Path, bytes]()
    while pending:
        path = pending.pop()
        if path not in files:
            files[path] = path.read_bytes()
            pending += _imports_beside(files[path], source.parent)
    for path in sorted(files):
        digest.update(str(path.relative_to(source.parent)).encode() + b"\0" + files[path])
    return digest.hexdigest()


def _imports_beside(content: bytes, folder: Path) -> list[Path]:
    """Files in a folder that a module's import statements mean, as far as its text tells; none of what is no Python."""
    try:
        nodes = list(ast.walk(ast.parse(content)))
    except (SyntaxError, ValueError):
        return []
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names += [node.module or "", *(f"{node.module or ''}.{alias.name}".strip(".") for alias in node.names)]
    parts = {tuple(name.split(".")[:depth]) for name in names if name for depth in range(1, name.count(".") + 2)}
    places = [folder.joinpath(*part) for part in parts]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return [file.resolve() for file in files if file.is_file() and file.resolve().is_relative_to(folder)]


def hash_batches(batches: Iterable[tuple[Tensor, Tensor | None]], most: int | None = None) -> str:
    """Hexadecimal SHA-256 of the values, types and sizes of batches, of the first `most` where that is given."""
    digest = hashlib.sha256()
    for batch in islice(batches, most):
        for tensor in batch:
            if tensor is not None:
                digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
