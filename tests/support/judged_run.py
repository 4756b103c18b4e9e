"""A run that was measured and judged, and its report document, made without a board."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from measured_run import record_measured_run

from edgeprune.cli import main
from edgeprune.run import read_json


def judge_run(folder: Path, gates: str = "", pruned_ms: float = 0.4, **more: Any) -> Path:
    """Record and judge a run in `folder`; `gates` is the TOML of other gates than a speed-up of 2."""
    record_measured_run(folder, pruned_ms, **more)
    words = ["gate", "--run", str(folder)]
    if gates:
        (folder.parent / "gates.toml").write_text(gates)
        words += ["--gates", str(folder.parent / "gates.toml")]
    with pytest.MonkeyPatch.context() as patch, suppress(SystemExit):
        patch.setenv("EDGEPRUNE_HISTORY", "")
        main(words)
    return folder


def read_report(folder: Path) -> Mapping[str, Any]:
    """Its report document."""
    document: Mapping[str, Any] = read_json(folder / "report.json")
    return document
