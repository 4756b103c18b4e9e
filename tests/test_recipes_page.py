"""docs/recipes.md: its code is a recipe, and what it says of settings is so."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from places import ROOT

from edgeprune.core.planning.candidates import WidthRule
from edgeprune.recipes.check import check_recipe
from edgeprune.recipes.load import OPTIONAL, REQUIRED, Finetune, find_slips, load_recipe

PAGE = (ROOT / "docs" / "recipes.md").read_text()
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_code_of_the_page_is_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("\n".join(BLOCK.findall(PAGE)))
    recipe = load_recipe(str(path))
    assert check_recipe(recipe) == ()
    assert (recipe.metric.name, recipe.finetune.epochs, recipe.labels[0]) == ("error", 2, "north")
    assert recipe.widths == {"0": WidthRule(step=4, least=8)}


def test_the_page_names_all_that_a_recipe_may_have() -> None:
    for name in (*REQUIRED, *OPTIONAL, *(field.name for field in fields(WidthRule))):
        assert f"`{name}" in PAGE or f"def {name}(" in PAGE, name
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+) \|$", PAGE, re.MULTILINE))
    assert {name: float(value) for name, value in rows.items()} == {
        field.name: float(getattr(Finetune(), field.name)) for field in fields(Finetune)
    }


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("fine_tune", "finetune"),
        ("Metric", "metric"),
        ("lables", "labels"),
        ("validation", "validation_data"),
        ("helper", ""),
    ],
)
def test_a_slip_in_a_name_is_told(name: str, meant: str) -> None:
    told = find_slips({name: 1, "_finetune": 2})
    assert told == ((f"{name} is read by nothing; did you mean {meant}?",) if meant else ())


def test_a_name_beside_the_right_one_is_no_slip() -> None:
    assert find_slips({"finetune": {}, "fine_tune": {}, "Metric": 1, "metric": 2}) == ()
