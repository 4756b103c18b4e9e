"""Fixtures that several rooms' tests share: boards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssh_server import SshServer, why_not

AGENT = Path(__file__).parent.parent / "deploy" / "agent"
sys.path.insert(0, str(AGENT))


@pytest.fixture
def no_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home that knows no board: no SSH configuration, no agent, no devices.toml; its path."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    for name in ("XDG_CONFIG_HOME", "EDGEPRUNE_HOST", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def ssh_server(no_devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    """A running SSH server with the inference runtimes; this process's home knows it as Host `board`."""
    if why_not():
        pytest.skip(why_not())
    server = SshServer(tmp_path / "ssh")
    server.lend_runtimes()
    monkeypatch.setenv("HOME", str(server.home))
    server.start()
    yield server
    server.stop()
