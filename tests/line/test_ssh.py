"""The main job over SSH, to a real OpenSSH server, and its release there."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from line import QUICK, TINY, command, deploy, environment
from recorded import record_stage
from ssh_server import SshServer, why_not

from edgeprune.run import open_run
from edgeprune.stages.results import Reported

RESERVED = {
    "token": "0" * 32, "owner": "ben@elsewhere", "reason": "soak test", "ttl_s": 3600, "client": {}, "boot": "x",
    "offset_s": 0,
}  # fmt: skip
"""What `edgeprune devices lock` of somebody else has left on the board."""


@pytest.fixture
def board(tmp_path: Path) -> Iterator[SshServer]:
    if why_not():
        pytest.skip(why_not())
    server = SshServer(tmp_path / "ssh")
    server.lend_runtimes()
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
def test_line_over_ssh_is_refused_while_somebody_else_has_the_board(board: SshServer, tmp_path: Path) -> None:
    lease = board.board / ".cache" / "edgeprune" / "board" / "lease-reserved.json"
    lease.parent.mkdir(parents=True)
    lease.write_text(json.dumps(RESERVED))
    begun = time.time()
    words = command(
        "deploy", "--target", QUICK, "--host", "board", "--recipe", TINY, "--allow-busy", "--run", tmp_path / "run"
    )
    done = subprocess.run(
        words, capture_output=True, text=True, env=environment(tmp_path / "cache", HOME=str(board.home)), check=False
    )
    left = 60 - (time.time() - begun) / 60
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()[-1]
    assert "board: reserved by ben@elsewhere (soak test) for another " in said
    assert left - 1 <= int(said.split("for another ")[1].split(" min")[0]) <= 60
    assert "edgeprune devices unlock --target TARGET --host board --owner ben@elsewhere" in said


@pytest.mark.slow
def test_line_over_ssh_names_the_host_and_its_key_and_is_released(board: SshServer, tmp_path: Path) -> None:
    report, printed = deploy(tmp_path / "run", tmp_path / "cache", host="board", HOME=str(board.home))
    assert report["device"]["host_key"] == board.fingerprint
    assert report["device"]["host"] in printed
    assert any("on the device" in row["link"] and row["ok"] for row in report["parity"])
    assert report["result"]["latency"]["count"] >= 20
    pushed = list(board.board.rglob("*.onnx"))
    assert {path.stem for path in pushed} >= {row["sha256"] for row in report["artifacts"] if row["format"] == "onnx"}
    assert not list(board.board.rglob("*.partial*"))
    assert not list(board.board.rglob("lease-*.json"))
    release_as_if_passed(board, tmp_path)


def release_as_if_passed(board: SshServer, folder: Path) -> None:
    """A run without gates is inconclusive or failed by its noise; what it ships is the same if it passes."""
    report = json.loads((folder / "run" / "report.json").read_text())
    (folder / "run" / "report.json").write_text(json.dumps({**report, "verdict": "pass"}))
    with open_run(folder / "run", {}) as run:
        record_stage(run, "report", Reported(verdict="pass"), ["report.json"])
    words = command("release", "push", "--run", folder / "run", "--activate")
    done = subprocess.run(
        words, capture_output=True, text=True, env=environment(folder / "cache", HOME=str(board.home)), check=False
    )
    assert done.returncode == 0, done.stderr
    run = board.board / ".cache" / "edgeprune" / "board" / "releases" / "current" / "run.py"
    shipped = next(row for row in report["artifacts"] if row["shipped"])
    assert f"there: {board.board}" in done.stdout
    python = done.stdout.split("there: ")[1].split()[0]
    checked = subprocess.run([python, "-I", run, "--check"], capture_output=True, text=True, check=False)
    assert json.loads(checked.stdout)["model_sha256"] == shipped["sha256"], checked.stderr
