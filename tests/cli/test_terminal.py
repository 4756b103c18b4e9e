"""What a terminal is shown: 80 columns, colours where they are wanted, help and completion at once."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_command
from judged_run import judge_run
from places import ROOT

from edgeprune.cli.completion import SHELLS
from edgeprune.cli.output import find_width, paint, uses_colour
from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.latency.table import LatencyPoint, LatencyTable, TableKey, render_table

HEAVY = (
    "numpy",
    "scipy",
    "torch",
    "onnx",
    "onnxruntime",
    "paramiko",
    "cryptography",
    "msgspec",
    "matplotlib",
    "sklearn",
)
HELP = """
import contextlib, io, sys
from edgeprune.cli import main
from edgeprune.cli.root import cli

def show(words, command):
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    wide = [line for line in text.getvalue().splitlines() if len(line) > 80]
    assert "Usage: edgeprune" in text.getvalue() and not wide, (words, wide)
    for name, inner in getattr(command, "commands", {}).items():
        show([*words, name], inner)

show([], cli)
print(" ".join(sorted(set(sys.argv[1:]) & set(sys.modules))))
"""


def run_python(*words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment).stdout


def test_no_help_imports_what_is_slow_or_is_wider_than_80_columns() -> None:
    """Time itself depends on the machine; what takes it is imports."""
    assert run_python("-c", HELP, *HEAVY).strip() == ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a baseline, a latency table, and a history, in a folder of their own."""
    place = tmp_path_factory.mktemp("terminal")
    notes = tuple(f"a note of some length that the board had to tell, number {number}" for number in range(3))
    judge_run(place / "run", problems=["throttled: under-voltage", *notes])
    judge_run(place / "passed")
    shapes = [
        LayerShape("conv", cin, 4 * n, (3, 3), (1, 1), 1, (8, 8), (1, 1)) for cin in (4, 8) for n in range(1, 130)
    ]
    points = tuple(LatencyPoint(shape, 1e-3 * shape.cout, 9e-4 * shape.cout, 2e-3 * shape.cout) for shape in shapes)
    key = TableKey("0123456789abcdef", "onnxruntime", "1.31.1", "int8", 4)
    (place / "table.json").write_text(render_table(LatencyTable(key, points)))
    return place


@pytest.mark.parametrize(
    "words",
    [
        "report --run run", "gate --run run", "report --run passed", "explain --run run", "compare run passed run",
        "deploy --dry-run --run run", "history take-in run", "history", "history --recipe mine", "targets",
        "targets rpi4", "recipes", "recipes copy motion-cnn", "cache list", "profile show --table table.json",
        "devices list", "devices add bench --host pi@raspberrypi.local --target rpi4", "baseline set main --run passed",
        "baseline list", "baseline show main", "completion",
    ],
)  # fmt: skip
def test_nothing_is_wider_than_80_columns(
    words: str, folder: Path, no_devices: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path or another word that is longer stands alone in its line: cut in two it could not be copied."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("EDGEPRUNE_HISTORY", "history.sqlite")
    _, printed, told = run_command(capsys, *words.split())
    assert printed or told
    wide = [line for line in printed.splitlines() if len(line) > 80]
    assert not [line for line in wide if len(line.split()) > 1], told
    assert not re.search(r"^ +[▁▂▃▄▅▆▇█]+$", printed, re.MULTILINE)  # a chart whose rows were broken


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),  # by no-color.org an empty one says nothing
        (False, {"FORCE_COLOR": "1"}, True),
        (True, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"CI": "true"}, False),
        (True, {"CI": "true", "FORCE_COLOR": "1"}, True),
    ],
)
def test_colours_are_for_terminals_and_those_who_ask(
    terminal: bool, environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert uses_colour(Stream(terminal)) == coloured


def test_verdicts_and_doubts_are_what_is_coloured() -> None:
    text = "gate pass         speedup\ngate inconclusive p50\na pass\nrun  NOT VALID\nverdict: fail"
    text += "\nfail: latency\ninit_ms  30 %  pass\npassing by\npass the salt"
    painted = paint(text)
    assert re.sub(r"\x1b\[[\d;]*m", "", painted) == text
    colours = re.findall(r"\x1b\[(\d+)m(?:\x1b\[1m)?([a-zA-Z ]+)\x1b\[0m", painted)
    assert colours == [
        ("32", "pass"),
        ("33", "inconclusive"),
        ("33", "NOT VALID"),
        ("31", "fail"),
        ("31", "fail"),
        ("32", "pass"),
    ]


def test_a_pipe_gets_neither_colour_nor_width(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "EDGEPRUNE_HISTORY": ""}
    command = [sys.executable, "-m", "edgeprune", "report", "--run", "passed"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=True, env=environment)
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr
    assert "verdict: pass" in done.stdout
    coloured = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=True,
        env=environment | {"FORCE_COLOR": "1"},
    )  # fmt: skip
    assert "verdict: \x1b[32m\x1b[1mpass\x1b[0m" in coloured.stdout


@pytest.mark.parametrize(("terminal", "columns", "width"), [(True, "100", 100), (False, "60", 60), (False, "", None)])
def test_the_width_is_that_of_the_terminal_or_as_is_said(
    terminal: bool, columns: str, width: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert find_width(Stream(terminal)) == width


def complete(words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What bash is offered for the last word."""
    monkeypatch.setenv("_EDGEPRUNE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    _, printed, _ = run_command(capsys)
    return [line.partition(",")[2] for line in printed.splitlines()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("edgeprune deploy --target rp", ["rp2040", "rp2350", "rpi-zero-2w", "rpi3", "rpi4", "rpi5"]),
        ("edgeprune devices doctor --target mi", ["mine.toml"]),
        ("edgeprune targets jetson-o", ["jetson-orin-nano"]),
        ("edgeprune plan --recipe m", ["motion-cnn", "mine.py"]),
        ("edgeprune recipes copy c", ["cifar10-resnet8"]),
        ("edgeprune gate --run ", ["runs/second", "runs/first", ""]),
        ("edgeprune gate --run runs/f", ["runs/first", "runs/f"]),
        ("edgeprune gate --baseline m", ["main", "m"]),
        ("edgeprune deploy --host b", ["bench"]),
        ("edgeprune history exp", ["export"]),
        ("edgeprune gate --js", ["--json"]),
    ],
)
def test_words_are_completed(
    words: str, offered: list[str], no_devices: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("runs/first", "runs/second", "runs/other", "baselines/main"):
        Path(name).mkdir(parents=True)
    for name in ("runs/first/request.json", "runs/second/request.json", "mine.py", "mine.toml"):
        Path(name).touch()
    run_command(capsys, "devices", "add", "bench", "--host", "pi@192.0.2.7")
    assert complete(words, monkeypatch, capsys) == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = run_command(capsys, "completion", shell)
    assert (code, "_EDGEPRUNE_COMPLETE" in printed) == (0, True)


def test_bash_completes_by_the_script(tmp_path: Path) -> None:
    program = tmp_path / "edgeprune"
    program.write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)} -m edgeprune "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(edgeprune completion bash)"\nCOMP_WORDS=(edgeprune deploy --target rpi)\nCOMP_CWORD=3\n'
        '_edgeprune_completion edgeprune\necho "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    assert done.stdout.split() == ["rpi-zero-2w", "rpi3", "rpi4", "rpi5"]
