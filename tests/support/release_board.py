"""A board with releases, as the tests look at it, and runs that become releases."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from device_models import CONV, FORMATS, make_model
from edgeprune_agent import releases as board_side
from recorded import record_run
from ssh_server import SshServer

from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.metric import TOP1
from edgeprune.core.releasing.release import Release
from edgeprune.core.target import Target
from edgeprune.device.releasing.releases import read_release

TARGET = Target("local", "a board of the tests")
LARGE = LayerShape("linear", 1024, 1024)
"""4 MiB of weights."""


@dataclass(frozen=True)
class Board:
    """What lies on the board."""

    server: SshServer

    @property
    def folder(self) -> Path:
        return self.server.board / ".cache" / "edgeprune" / "board" / "releases"

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the active release, as an application there does."""
        command = [sys.executable, "-I", str(self.folder / "current" / "run.py"), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)

    def active(self) -> str:
        """The active release, which runs."""
        completed = self.run("--check")
        assert completed.returncode == 0, completed.stderr
        return str(json.loads(completed.stdout)["release"])

    def half_written(self) -> list[str]:
        """What is under a release's name and not what that says."""
        names = [path for path in self.folder.iterdir() if not path.is_symlink() and path.is_dir()]
        return [path.name for path in names if path.suffix != ".part" and not board_side.is_whole(path)]


def make_run(
    folder: Path, shape: LayerShape = CONV, runtime: str = "onnxruntime", precision: str = "fp32", **changes: Any
) -> Path:
    """A run directory as the line leaves it, as far as a release needs it."""
    (folder / "artifacts").mkdir(parents=True)
    model = make_model(folder / "artifacts", runtime, shape, precision)
    path = f"artifacts/{model.path.name}"
    row = {
        "path": path, "role": "pruned", "format": FORMATS[runtime], "precision": precision,
        "bytes": model.path.stat().st_size, "sha256": model.sha256, "scheme": "", "inputs": [], "outputs": [],
    }  # fmt: skip
    report = {
        "version": 2, "verdict": "pass", "metric": TOP1.to_dict(), "target": "local", "recipe": "tiny",
        "created": "2026-11-21T10:00:00+00:00",
        "edgeprune": "0.1.0", "runtime": f"{runtime} 1.0", "conditions": {"threads": 1},
        "device": {"fingerprint": "0" * 16, "cpu": "a CPU"},
        "result": {"artifact": path, "quality": 90.5, "latency": {"p50_ms": 1.25, "p95_ms": 1.5}},
    }  # fmt: skip
    return write_run(folder, {**report, **changes}, row)


def write_run(folder: Path, report: dict[str, Any], row: dict[str, Any], model: str = "") -> Path:
    """Record a run that reports so, of an artifact described so; `model` is its file, if not as described."""
    (folder / "report.json").write_text(json.dumps(report))
    stages = {"export": {"artifacts": [row]}, "report": {"verdict": report["verdict"]}}
    files = {"export": [model or row["path"]], "report": ["report.json"]}
    return record_run(folder, {"target": "local", "host": None}, stages, files)


def read_run(folder: Path, shape: LayerShape = CONV, **changes: Any) -> tuple[Release, bytes]:
    return read_release(make_run(folder, shape, **changes), TARGET)


def install(folder: Path, release: Release, model: bytes) -> None:
    """Let a release be active, by the agent's own functions and without a link."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    request = {"id": release.id, **asdict(release)}
    if not (answer := board_side.prepare(folder, request))["there"]:
        Path(answer["part"]).write_bytes(model)
        board_side.finish(folder, request)
    board_side.activate(folder, request)
