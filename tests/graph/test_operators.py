"""Names of operators stand in `graph/operators` alone, each in one record; exporters name what their formats name."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from places import ROOT

from edgeprune.graph.operators.table import OPERATORS, SUBJECTS

PACKAGE = ROOT / "edgeprune"
EXEMPT = (PACKAGE / "graph" / "operators", PACKAGE / "exporting", PACKAGE / "recipes")
SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if not any(path.is_relative_to(one) for one in EXEMPT)]
NAMED = re.compile(r"\baten\.")
UNMISTAKABLE = {name.removeprefix("aten.") for name in OPERATORS if re.search(r"\d|\w_\w", name.removeprefix("aten."))}
"""Names that are hardly anything else: `conv2d`, `batch_norm`."""


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Texts that are statements: docstrings, and those behind constants and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def names_in(text: str) -> set[str]:
    """What of a module's source names an operator."""
    tree = ast.parse(text)
    told = set(docstrings(tree))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in told:
            words = set(re.findall(r"[\w.]+", node.value))
            found |= {word for word in words if NAMED.search(word)} | (words & UNMISTAKABLE)
        elif isinstance(node, ast.Attribute) and node.attr == "aten":
            found.add(ast.unparse(node))
    return found


def test_operator_names_stand_only_in_graph_operators() -> None:
    assert len(SOURCES) > 100
    named = {str(path.relative_to(ROOT)): names_in(path.read_text()) for path in SOURCES}
    assert {path: names for path, names in named.items() if names} == {}


@pytest.mark.parametrize(
    "line", ["torch.ops.aten.add.Tensor", "'aten.relu'", "{'conv2d': 1}", "'max_pool2d mean'.split()", "f'aten.{one}'"]
)
def test_a_name_elsewhere_would_be_seen(line: str) -> None:
    assert names_in(f'"""Of `aten.relu`."""\nnamed = {line}\n')
    assert not names_in('"""Of `aten.relu` and conv2d."""\nnamed = "linear, add, mean"\n')


def test_every_operator_has_one_record() -> None:
    times = Counter(name for subject in SUBJECTS for family in subject.FAMILIES for name in family.names)
    assert [name for name, count in times.items() if count > 1] == []
    assert times.keys() == OPERATORS.keys()


def test_every_aten_operator_of_the_table_is_there_in_torch() -> None:
    names = [name.removeprefix("aten.") for name in OPERATORS if name.startswith("aten.")]
    assert [name for name in names if not hasattr(torch.ops.aten, name)] == []
