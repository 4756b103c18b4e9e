"""The whole line on the tiny net, run as a user would: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
TINY = FOLDER / "recipes" / "tiny.py"
QUICK = FOLDER / "targets" / "quick.toml"
VERDICTS = {0: "pass", 3: "fail", 4: "inconclusive"}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edgeprune.cli", *map(str, arguments)]


def environment(cache: Path, **changes: str) -> dict[str, str]:
    """A user's environment with a cache and a history of its own."""
    own = {"EDGEPRUNE_CACHE": str(cache), "EDGEPRUNE_HISTORY": str(cache / "history.sqlite")}
    return {**os.environ, **own, "OMP_NUM_THREADS": "1", **changes}


def deploy(run: Path, cache: Path, *options: object, host: str = "local", **changes: str) -> tuple[dict[str, Any], str]:
    """Run the line; its report and what it printed. The verdict must agree with the exit code."""
    arguments = command(
        "deploy", "--target", QUICK, "--host", host, "--recipe", TINY, "--allow-busy", "--run", run, *options
    )
    completed = subprocess.run(
        arguments, capture_output=True, text=True, env=environment(cache, **changes), timeout=600, check=False
    )
    assert completed.returncode in VERDICTS, completed.stderr
    report = json.loads((run / "report.json").read_text())
    assert report["verdict"] == VERDICTS[completed.returncode]
    return report, completed.stdout
