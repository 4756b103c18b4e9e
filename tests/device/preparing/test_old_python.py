"""What runs on boards keeps to Python 3.8, which JetPack 5 has; what is older is told so before anything is made.

There is no Python 3.8 in the registries that these tests may use: its grammar is held by `ast`, and what it lacks at
run time, generics in collections.abc and built-in types above all, by a list of our own.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import DEPLOY

from edgeprune.core.boards.doctor import MIN_PYTHON
from edgeprune.device.agent import client as agent
from edgeprune.device.preparing import doctor, setup, site
from edgeprune.device.releasing import releases

FILES = {str(path.relative_to(DEPLOY)): path.read_text() for path in sorted(DEPLOY.rglob("*.py"))}
FILES |= {
    "RECEIVE": releases.RECEIVE, "FROM_MEMORY": agent.FROM_MEMORY, "doctor's DESCRIBE": doctor.DESCRIBE,
    "CHECK": setup.CHECK, "VERSIONS": setup.VERSIONS,
}  # fmt: skip
NOT_GENERIC = ("dict", "list", "tuple", "set", "frozenset", "type", "deque", "defaultdict", "OrderedDict", "Counter")
NEWER = {
    "removeprefix", "removesuffix", "is_relative_to", "readlink", "file_digest", "hardlink_to", "with_stem", "cache",
    "lcm", "randbytes", "bit_count", "pairwise", "batched", "ExceptionGroup", "aclosing", "get_annotations",
    "TypeAlias", "ParamSpec", "Self", "Never", "assert_never", "LiteralString", "StrEnum", "UTC", "chdir",
}  # fmt: skip
"""Names of the standard library that came after 3.8."""
NEWER_MODULES = ("tomllib", "zoneinfo", "graphlib")


def find_newer(text: str) -> Iterator[str]:
    """What of a file Python 3.8 does not have."""
    tree = ast.parse(text, feature_version=(3, 8))
    lazy = any(isinstance(one, ast.ImportFrom) and one.module == "__future__" for one in tree.body)
    from_abc = {
        name.asname or name.name
        for one in ast.walk(tree) if isinstance(one, ast.ImportFrom) and one.module == "collections.abc"
        for name in one.names
    }  # fmt: skip
    annotations = set[ast.AST]()
    for one in ast.walk(tree):
        for notes in (getattr(one, "annotation", None), getattr(one, "returns", None)):
            if isinstance(notes, ast.AST) and lazy:
                annotations |= set(ast.walk(notes))
        if isinstance(one, ast.If) and ast.unparse(one.test) == "TYPE_CHECKING":
            annotations |= {node for statement in one.body for node in ast.walk(statement)}
    for one in ast.walk(tree):
        if isinstance(one, ast.Subscript) and one not in annotations and isinstance(one.value, ast.Name):
            if one.value.id in (*NOT_GENERIC, *from_abc):
                yield f"line {one.lineno}: {one.value.id}[...] when it is run"
        elif isinstance(one, ast.Attribute) and one.attr in NEWER and ast.unparse(one) != "os.readlink":
            yield f"line {one.lineno}: .{one.attr}"
        elif isinstance(one, ast.BinOp) and isinstance(one.op, ast.BitOr) and one not in annotations:
            if any(isinstance(side, ast.Dict | ast.DictComp) for side in (one.left, one.right)):
                yield f"line {one.lineno}: {{...}} | {{...}}"
        elif isinstance(one, ast.Import | ast.ImportFrom):
            names = [name.name for name in one.names] + [getattr(one, "module", None) or ""]
            yield from (f"line {one.lineno}: import {name}" for name in names if name in (*NEWER, *NEWER_MODULES))


@pytest.mark.parametrize("name", FILES)
def test_what_runs_on_a_board_is_python_3_8(name: str) -> None:
    assert list(find_newer(FILES[name])) == []


@pytest.mark.parametrize(
    "text",
    [
        "from collections.abc import Callable\nRun = Callable[[], int]", "Windows = dict[str, int]", "y = {} | x",
        "x.removeprefix('a')", "import tomllib", "from datetime import UTC", "def f(x: list[int]): ...",
        "from functools import cache",
    ],
)  # fmt: skip
def test_what_python_3_8_lacks_is_found(text: str) -> None:
    assert len(list(find_newer(text))) == 1


@pytest.mark.parametrize(
    "text", ["match x:\n  case 1: ...", "with (open(a) as b, open(c) as d): ...\n@x[0].y\ndef f(): ..."]
)
def test_grammar_that_came_later_is_found(text: str) -> None:
    with pytest.raises(SyntaxError):
        ast.parse(text, feature_version=(3, 8))


def test_the_survey_of_a_board_runs_on_python_2_too() -> None:
    """It has to say of an old Python that it is one: no f-strings, no annotations, no keyword-only syntax."""
    assert MIN_PYTHON == (3, 8)
    for text in (site.DESCRIBE, agent.START.replace("from edgeprune_agent.__main__ import main", "")):
        kinds = {type(one) for one in ast.walk(ast.parse(text))}
        assert not kinds & {ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Nonlocal}


def test_an_agent_in_an_old_python_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.version_info = (3, 6, 9, 'final', 0)")
    packed = tmp_path / "agent.pyz"
    packed.write_bytes(agent.pack_agent())
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run([sys.executable, packed], input="{}", capture_output=True, text=True, check=False)
    event = agent.parse_event(done.stdout.strip())
    assert event is not None
    assert (event["event"], event["kind"], done.returncode) == ("error", "runtime", 1)
    assert "Python 3.6 is too old" in event["message"]
    assert "3.8 or newer is needed: edgeprune devices setup" in event["message"]
