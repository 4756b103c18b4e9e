"""Change one thing in our own logic at a time and see whether a test of that module fails: results/mutation.json.

    .venv/bin/python benchmarks/mutation.py [--mutants 220] [--only FILE] [--survivors]

Mutants are drawn from all places in core/, graph/, device/ and the board's agent where a comparison, a sign, a number,
a condition or a call can be changed (annotations, messages, decorators of classes, docstrings and `strict=` apart).
Each is tried in a copy of the project by the test files that import its module, those that bear its name first, up to
the first failure; a test that hangs is ended after `LIMIT_S` and counts as caught. Tests of whole lines, of boards
and slow ones are not run. Rows are written one by one, and a second call goes on; a row whose file has changed since
is tried anew. `--survivors` tries those again that lived on.

What lives on is listed with its change; `why` says why it may, where a person has looked at it (`WHY`).
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "mutation.json"
ROOMS = ("edgeprune/core", "edgeprune/graph", "edgeprune/device", "deploy/agent/edgeprune_agent")
SEED, WORKERS, LIMIT_S = 12, 2, 150.0
FEW, MOST = 3, 12
USERS = (*ROOMS, "edgeprune/stages", "edgeprune/pruning", "edgeprune/exporting", "edgeprune/recipes")
AGENT_TESTS = tuple(ROOT / "tests" / "device" / name for name in (
    "agent/test_turns.py", "transports/test_local.py", "agent/test_shapes.py", "agent/test_energy.py"
))  # fmt: skip
LEFT_OUT = ("line", "cli")
COPIED = (
    "edgeprune",
    "deploy",
    "tests",
    "targets",
    "hardware_profiles",
    "benchmarks",
    "docs",
    "pyproject.toml",
    "README.md",
)
COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
COUNTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
WHY: dict[str, str] = {
    "edgeprune/core/planning/planner.py:60.0 -> 120.1": "a limit of time that no net of the tests comes near",
    "edgeprune/core/planning/candidates.py:0.02 -> 0.14": "where nets are drawn from: a choice, which benchmarks judge",
    "edgeprune/core/planning/loop.py:3 -> 4": "how much near nets count: a choice, which benchmarks judge",
    "edgeprune/core/planning/mixed.py:0.0 -> 0.1": "the solver proves small nets optimal before it looks at the gap",
    "edgeprune/core/planning/mixed.py:float(added.max()) or 1.0 -> float(added.max()) and 1.0": "scales a row",
    "edgeprune/core/estimating/prior.py": "an assumption about boards, which benchmarks/estimates.py judges",
    "edgeprune/core/latency/correction.py:0.15 -> 0.4": "how far a part is expected off: benchmarks judge that choice",
    "edgeprune/core/measuring/windows.py:1 -> 2": "weighs all windows alike against a prior that is a guess",
    "edgeprune/core/releasing/release.py:60 -> 61": "how much of a foreign text is shown",
    "edgeprune/device/meters.py:True -> False": "a thread that is waited for in any case",
    "edgeprune/graph/groups.py:1 -> 2": "room for one more mark than there are",
    "edgeprune/graph/labels.py:False -> True": "scipy takes connections as weak by default, and so as undirected",
    "edgeprune/graph/trace.py:writer < user -> writer <= user": "leaves an operator in place where it need not",
    "deploy/agent/edgeprune_agent/nodes.py:1 -> 2": "how often a net ran for its nodes is shown, and decides nothing",
}
"""Why a mutant may live on, by `file:change`, or by file."""


def list_places(tree: ast.AST) -> Iterator[ast.AST]:
    """What can be changed, in order; what only people or type checkers read is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Raise | ast.JoinedStr) or (isinstance(node, ast.keyword) and node.arg == "strict"):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.arg | ast.AnnAssign):
            inner = getattr(node, "value", None)
            yield from list_places(ast.Expr(inner)) if inner is not None else ()
            continue
        if is_open_to_change(node):
            yield node
        if isinstance(node, ast.FunctionDef):
            defaults = [default for default in (*node.args.defaults, *node.args.kw_defaults) if default is not None]
            yield from list_places(ast.Module([*map(ast.Expr, defaults), *node.body], []))
        elif isinstance(node, ast.ClassDef):
            yield from list_places(ast.Module(node.body, []))
        else:
            yield from list_places(node)


def is_open_to_change(node: ast.AST) -> bool:
    """Whether a change of this node would be one of what the code does."""
    if isinstance(node, ast.Compare):
        return type(node.ops[0]) in COMPARED
    if isinstance(node, ast.BinOp):
        return type(node.op) in COUNTED and not isinstance(node.left, ast.Constant | ast.JoinedStr | ast.List)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bool | int | float) and not isinstance(node.value, complex)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in NAMES
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    return isinstance(node, ast.BoolOp | ast.If | ast.IfExp) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub)
    )


def change(node: ast.AST) -> str:
    """Change a node in place; says into what."""
    before = ast.unparse(node).splitlines()[0]
    if isinstance(node, ast.Compare):
        node.ops[0] = COMPARED[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp):
        node.op = COUNTED[type(node.op)]()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        node.value = node.value + 1 if isinstance(node.value, int) else node.value * 2 + 0.1
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        node.func.id = NAMES[node.func.id]
    elif isinstance(node, ast.Expr):
        node.value = ast.Constant(None)
    elif isinstance(node, ast.BoolOp):
        node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
    elif isinstance(node, ast.If | ast.IfExp):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not()
        node.operand = node.operand if isinstance(node.op, ast.UAdd) else ast.UnaryOp(ast.Not(), node.operand)
    return f"{before} -> {ast.unparse(node).splitlines()[0]}"


def draw_mutants(count: int) -> dict[str, tuple[str, int]]:
    """Files and the numbers of places in them, by what is changed and how often that was in the file before.

    Each place of all is as likely as any other, and goes on being drawn when something else changes.
    """
    places = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            file, before = str(path.relative_to(ROOT)), Counter[str]()
            for number, node in enumerate(list_places(ast.parse(path.read_text()))):
                description = change(copy.deepcopy(node))
                places[f"{file}: {description} #{before[description]}"] = (file, number)
                before[description] += 1
    return {name: places[name] for name in sorted(places, key=rank)[:count]}


def rank(name: str) -> str:
    """A place in an order by chance."""
    return hashlib.sha256(f"{SEED} {name}".encode()).hexdigest()


def mutate(file: str, number: int) -> tuple[str, dict[str, Any]]:
    """The text of a file with one change, and what the change is."""
    text = (ROOT / file).read_text()
    node: Any = list(list_places(ast.parse(text)))[number]
    description, source = change(node), node.test.operand if isinstance(node, ast.If) else node
    changed = node.test if isinstance(node, ast.If) else node
    lines = text.encode().splitlines(keepends=True)
    before = b"".join(lines[: source.lineno - 1]) + lines[source.lineno - 1][: source.col_offset]
    after = lines[source.end_lineno - 1][source.end_col_offset :] + b"".join(lines[source.end_lineno :])
    new = "None" if isinstance(node, ast.Expr) else f"({ast.unparse(changed)})"
    return (before + new.encode() + after).decode(), {"file": file, "line": node.lineno, "change": description}


def find_tests(file: str) -> list[str]:
    """The test files that import a module, those that bear its name first; where few do, what imports its users too."""
    own = importers(file, (ROOT / "tests").rglob("test_*.py"))
    if len(own) < FEW:
        users = importers(file, (path for room in USERS for path in (ROOT / room).rglob("*.py")))
        for user in users:
            own += importers(str(user.relative_to(ROOT)), (ROOT / "tests").rglob("test_*.py"))
    paths = [path for path in own if path.parent.name not in LEFT_OUT]
    paths += AGENT_TESTS if "deploy" in file else ()
    name = Path(file).stem.strip("_")
    ordered = sorted(dict.fromkeys(paths), key=lambda path: (name not in path.name, paths.index(path)))
    return [str(path.relative_to(ROOT)) for path in ordered[:MOST]]


def importers(file: str, paths: Iterable[Path]) -> list[Path]:
    """Those of some files that import a module, the short ones first."""
    path = Path(file).with_suffix("")
    dotted = f"edgeprune_agent.{path.name}" if "deploy" in path.parts else ".".join(path.parts)
    parent, _, name = dotted.rpartition(".")
    whole, part = re.escape(dotted), re.escape(parent)
    imports = re.compile(rf"(from {whole} import|from {part} import [^\n]*\b{name}\b|import {whole}\b)")
    return sorted(
        (candidate for candidate in paths if imports.search(candidate.read_text())),
        key=lambda candidate: candidate.stat().st_size,
    )


def try_mutant(place: Path, file: str, number: int) -> dict[str, Any]:
    """Whether a test in a copy of the project fails with one change."""
    text, row = mutate(file, number)
    tests, original = find_tests(file), (ROOT / file).read_text()
    (place / file).write_text(text)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not device and not slow",
        *tests,
    ]
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=LIMIT_S if tests else 1)
        outcome = {0: "lived", 5: "no test"}.get(process.returncode, "caught")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, outcome = process.communicate()[0], "too long"
    finally:
        (place / file).write_text(original)
    failure = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    return {**row, "outcome": outcome if tests else "no test", "by": failure[1] if failure else "", "tests": tests}


def copy_project(place: Path) -> None:
    """What the tests need of the project."""
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, place / name)


def work(todo: queue.SimpleQueue[tuple[str, str, int]], rows: dict[str, Any], lock: threading.Lock) -> None:
    """Try mutants in a copy of its own until none is left."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "project"
        place.mkdir()
        copy_project(place)
        while not todo.empty():
            try:
                name, file, number = todo.get_nowait()
            except queue.Empty:
                return
            row = try_mutant(place, file, number)
            with lock:
                rows[name] = {**row, "sha256": digest(file)}
                write(rows)
                print(f"{len(rows)}: {row['outcome']:8} {file}:{row['line']}: {row['change'][:110]}", flush=True)


def digest(file: str) -> str:
    """By which a changed file is told."""
    return hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:16]


def write(rows: dict[str, Any]) -> None:
    """Rows of files that have changed since stay in the sum until they are tried anew."""
    shown = copy.deepcopy(rows)
    for row in shown.values():
        why = WHY.get(f"{row['file']}:{row['change']}", WHY.get(row["file"], ""))
        row["why"] = why if row["outcome"] in ("lived", "no test") else ""
    caught = sum(row["outcome"] in ("caught", "too long") for row in shown.values())
    lived = [
        f"{row['file']}:{row['line']}: {row['change']}"
        for row in shown.values()
        if row["outcome"] in ("lived", "no test")
    ]
    document = {
        "summary": {"mutants": len(shown), "caught": round(caught / max(1, len(shown)), 4)},
        "machine": describe_machine(["pytest", "hypothesis"]),
        "survivors": lived,
        "rows": shown,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=220)
    parser.add_argument("--only", default="")
    parser.add_argument("--survivors", action="store_true")
    options = parser.parse_args()
    rows: dict[str, Any] = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    todo: queue.SimpleQueue[tuple[str, str, int]] = queue.SimpleQueue()
    mutants = draw_mutants(options.mutants)
    rows = {name: row for name, row in rows.items() if name in mutants}
    for name, (file, number) in mutants.items():
        row = rows.get(name)
        is_known = (
            row is not None
            and row["sha256"] == digest(file)
            and not (options.survivors and row["outcome"] in ("lived", "no test"))
        )
        if options.only in file and not is_known:
            todo.put((name, file, number))
    print(f"{todo.qsize()} mutants to try", flush=True)
    lock = threading.Lock()
    threads = [threading.Thread(target=work, args=(todo, rows, lock)) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(json.loads(RESULTS.read_text())["summary"]))


if __name__ == "__main__":
    main()
