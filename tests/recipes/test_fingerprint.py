"""What tells two recipes apart: their code, with all that it imports from beside it, and their batches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edgeprune.recipes.fingerprint import hash_batches, hash_code

RECIPE = """
import torch, helper

def loss(outputs, targets):
    from lazy.weights import factor
    return factor
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Any:
    (tmp_path / "lazy").mkdir()
    for name, text in {"mine.py": RECIPE, "helper.py": "import deep", "deep.py": "x = 1", "other.py": "x = 1"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "lazy" / "__init__.py").write_text("")
    (tmp_path / "lazy" / "weights.py").write_text("factor = 1")
    return SimpleNamespace(source=tmp_path / "mine.py")


@pytest.mark.parametrize("name", ["mine.py", "helper.py", "deep.py", "lazy/weights.py", "lazy/__init__.py"])
def test_what_a_recipe_imports_from_beside_it_tells(recipe: Any, tmp_path: Path, name: str) -> None:
    before = hash_code(recipe.source)
    assert hash_code(recipe.source) == before
    (tmp_path / name).write_text((tmp_path / name).read_text() + "\ny = 2")
    assert hash_code(recipe.source) != before


def test_what_it_does_not_import_tells_nothing(recipe: Any, tmp_path: Path) -> None:
    before = hash_code(recipe.source)
    (tmp_path / "other.py").write_text("x = 2")
    (tmp_path / "torch.txt").write_text("x = 2")
    assert hash_code(recipe.source) == before


def test_a_module_that_is_no_python_is_hashed_as_it_is(recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "deep.py").write_bytes(b"\xff\x00 def")
    assert len(hash_code(recipe.source)) == 64


def test_batches_tell_by_values_types_and_sizes() -> None:
    ones, targets = torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)
    hashes = [
        hash_batches(batches)
        for batches in (
            [(ones, targets)],
            [(ones * 2, targets)],
            [(ones.double(), targets)],
            [(ones.reshape(2, 4), targets)],
            [(ones, None)],
            [(ones, targets), (ones, targets)],
        )
    ]
    assert len(set(hashes)) == len(hashes)
    assert hash_batches([(ones, targets), (ones, targets)], 1) == hashes[0]
