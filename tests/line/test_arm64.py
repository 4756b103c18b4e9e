"""The main job into an ARM64 userland: another architecture, its own runtimes, the same line."""

from pathlib import Path

import pytest
from line import deploy
from ssh_server import SshServer


@pytest.mark.device
def test_line_into_arm64(arm64_server: SshServer, tmp_path: Path) -> None:
    """Emulated times mean nothing, so only what the artifacts compute and what the report says of the board counts."""
    report, _ = deploy(tmp_path / "run", tmp_path / "cache", host="board", HOME=str(arm64_server.home))
    assert report["device"]["machine"] == "aarch64"
    assert report["device"]["host_key"] == arm64_server.fingerprint
    links = {row["link"]: row for row in report["parity"] if "on the device" in row["link"]}
    assert len(links) == len(report["artifacts"])
    assert all(row["ok"] for row in links.values())
    assert all(row["quality"] is not None for row in report["artifacts"])
