"""The main job over SSH, to a real OpenSSH server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from line import deploy
from ssh_server import SshServer, why_not


@pytest.fixture
def board(tmp_path: Path) -> Iterator[SshServer]:
    if why_not():
        pytest.skip(why_not())
    server = SshServer(tmp_path / "ssh")
    server.lend_runtimes()
    server.start()
    yield server
    server.stop()


def test_line_over_ssh_names_the_host_and_its_key(board: SshServer, tmp_path: Path) -> None:
    report, printed = deploy(tmp_path / "run", tmp_path / "cache", host="board", HOME=str(board.home))
    assert report["device"]["host_key"] == board.fingerprint
    assert report["device"]["host"] in printed
    assert any("on the device" in row["link"] and row["ok"] for row in report["parity"])
    assert report["result"]["latency"]["count"] >= 20
    pushed = list(board.board.rglob("*.onnx"))
    assert {path.stem for path in pushed} >= {row["sha256"] for row in report["artifacts"] if row["format"] == "onnx"}
    assert not list(board.board.rglob("*.partial*"))
