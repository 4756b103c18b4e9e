"""`edgeprune recipes check`: the names that a recipe's `widths` may use, before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run_command

from edgeprune.core.planning.plan import BRANCH, ChannelGroup, explain_width
from edgeprune.errors import RecipeError
from edgeprune.graph.groups import find_groups
from edgeprune.recipes.load import load_recipe
from edgeprune.stages.model import trace_recipe
from edgeprune.stages.net import find_width_rules

RECIPE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 16, 1)
        self.last = nn.Linear(16, 4)
    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        return self.last(x.mean((2, 3)))

def model():
    return Block()
def train_data():
    return [(torch.randn(8, 3, 6, 6), torch.arange(8) % 4)]
eval_data = calibration_data = train_data
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "mine.py"
    path.write_text(RECIPE)
    return path


def check(path: Path, capsys: Any) -> tuple[int, str, str]:
    return run_command(capsys, "recipes", "check", path)


def test_what_can_be_cut_is_listed_by_name(recipe: Path, capsys: Any) -> None:
    code, said, _ = check(recipe, capsys)
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.startswith(("stem", "inner"))}
    assert code == 0
    assert rows["stem"] == ["16", "stem,", "outer"]
    assert rows["inner"] == ["8", "inner"]
    assert rows["inner:branch"][:2] == ["a", "branch"]
    assert "note: last stays whole: it reaches the model's output" in said


def test_every_listed_name_may_be_ruled(recipe: Path, capsys: Any) -> None:
    _, said, _ = check(recipe, capsys)
    names = [line.split()[0] for line in said.splitlines()[2:] if not line.startswith("note")]
    assert len(names) == 3
    assert {name for name in names if name in rules_of(recipe, dict.fromkeys(names, "whole"))} == set(names)
    assert rules_of(recipe, {"outer": {"fixed": 12}})["stem"].fixed == 12  # a layer stands for its group


def rules_of(recipe: Path, widths: dict[str, Any]) -> Any:
    recipe.write_text(RECIPE + f"widths = {widths!r}\n")
    loaded = load_recipe(str(recipe))
    return find_width_rules(loaded, find_groups(trace_recipe(loaded)[0]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "outter",
            r"widths: no layer 'outter' that may be cut; did you mean 'outer'\?; `edgeprune recipes check` lists",
        ),
        ("last", "widths: no layer 'last' that may be cut: it reaches the model's output"),
        ("zzz", "valid: inner, inner:branch, outer, stem; `edgeprune recipes check` lists them"),
    ],
)
def test_a_rule_for_what_cannot_be_cut_says_what_can(recipe: Path, name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        rules_of(recipe, {name: "whole"})


def test_a_net_with_nothing_to_cut_and_a_broken_recipe_are_refused(recipe: Path, capsys: Any) -> None:
    recipe.write_text(RECIPE.replace("return Block()", "return nn.Sequential(nn.Flatten(), nn.Linear(108, 4))"))
    code, _, told = check(recipe, capsys)
    assert (code, "no channel of this net can be pruned: " in told) == (1, True)
    recipe.write_text(RECIPE.replace("return Block()", "return Block"))
    code, _, told = check(recipe, capsys)
    assert (code, "gave the class Block" in told) == (2, True)


@pytest.mark.parametrize(
    ("kind", "width", "offered", "is_fixed", "reason"),
    [
        ("channels", 8, (8, 16), False, "saves 1 ms"),
        ("channels", 8, (8, 16), True, "as the recipe says; saves 1 ms"),
        ("channels", 16, (8, 16), False, "whole: no narrower width is worth its loss"),
        ("channels", 16, (16,), False, "whole: no narrower width is on offer"),
        ("channels", 16, (16,), True, "whole: as the recipe says"),
        ("channels", 16, (8, 16), True, "whole: as the recipe says"),
        (BRANCH, 0, (0, 1), False, "saves 1 ms"),
        (BRANCH, 1, (0, 1), False, "kept: cutting it is not worth its loss"),
        (BRANCH, 1, (1,), True, "kept: as the recipe says"),
    ],
)
def test_why_a_group_has_its_width(
    kind: str, width: int, offered: tuple[int, ...], is_fixed: bool, reason: str
) -> None:
    group = ChannelGroup("one", 1 if kind == BRANCH else 16, (), kind=kind)
    assert explain_width(group, width, offered, is_fixed, "saves 1 ms") == reason
