"""A history of the test's own, and commands that are called as a user would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeprune.cli import main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the history of this test is to be."""
    path = tmp_path / "kept" / "history.sqlite"
    monkeypatch.setenv("EDGEPRUNE_HISTORY", str(path))
    return path


@pytest.fixture
def call(history: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command; gives its exit code and what it printed."""

    def run(*words: object) -> tuple[int, str, str]:
        code = 0
        try:
            main([str(word) for word in words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
