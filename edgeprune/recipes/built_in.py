"""The recipes that come with edgeprune: their names, what each is, and copies to start from. Imports nothing heavy."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

from edgeprune.core.text import suggest
from edgeprune.errors import RecipeError

BUILT_IN = {
    name: Path(__file__).parent / f"{name.replace('-', '_')}.py"
    for name in (
        "digits-resnet8",
        "cifar10-resnet8",
        "motion-cnn",
        "kws-dscnn",
        "vww-mobilenetv1-025",
        "ad-autoencoder",
    )
}
BUILT_IN["ic-resnet8"] = BUILT_IN["cifar10-resnet8"]
"""Built-in recipes by name; each is a file that a user can copy. `ic-resnet8` is what MLPerf Tiny calls ResNet-8."""


def copy_recipe(name: str, directory: Path) -> Path:
    """Copy a built-in recipe's file into a directory, to be changed there.

    Raises:
        RecipeError: no such built-in recipe, or the file exists already.
    """
    if name not in BUILT_IN:
        raise RecipeError(f"recipe {name!r} is not built in{suggest(name, BUILT_IN)}")
    copy = directory / BUILT_IN[name].name
    if copy.exists():
        raise RecipeError(f"{copy}: exists already and is not overwritten; remove it or choose another directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(BUILT_IN[name], copy)
    except OSError as exc:
        raise RecipeError(f"{copy}: cannot be written: {exc.strerror}") from exc
    return copy


def describe_built_in() -> dict[str, str]:
    """What each built-in recipe is, in a line: the first of its docstring."""
    texts = {name: ast.get_docstring(ast.parse(path.read_text())) or "" for name, path in BUILT_IN.items()}
    return {name: text.splitlines()[0] for name, text in texts.items()}
