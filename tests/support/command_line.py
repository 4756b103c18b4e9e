"""The command line, called as a user would, in this process."""

from __future__ import annotations

import pytest

from edgeprune.cli import main


def run_command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run a command; gives its exit code, what it printed and its error."""
    try:
        main([str(word) for word in words])
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err
