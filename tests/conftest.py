"""Fixtures that several rooms' tests share: boards."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from places import AGENT
from ssh_server import Arm64Server, SshServer, why_not

import edgeprune
from edgeprune.device.agent.client import Agent
from edgeprune.device.connect import open_agent

CANNOT_BUILD = 3
"""Exit code of arm64_userland.sh where it may not build."""
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")  # two runs try the same cases; `--hypothesis-profile default` draws others
sys.path.insert(0, str(AGENT))

if TYPE_CHECKING:
    from release_board import Board


@pytest.fixture(scope="session", autouse=True)
def whole_package() -> None:
    """Every module is there before a test replaces a name in one: a module that is first imported meanwhile would keep
    the replacement, and a later test of the same process would get it."""
    for module in pkgutil.walk_packages(edgeprune.__path__, "edgeprune."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


@pytest.fixture(scope="session", autouse=True)
def own_leases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """This machine's leases are the tests' own: whoever else measures here is no matter of theirs."""
    folder = tmp_path_factory.mktemp("leases")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_LEASES", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def own_history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What tests measure is not the user's history."""
    path = tmp_path_factory.mktemp("history") / "history.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_HISTORY", str(path))
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
            patch.delenv(name, raising=False)
        yield path


@pytest.fixture(scope="session", autouse=True)
def no_terminal() -> Iterator[None]:
    """What the shell that runs the tests says of its terminal, and a CI server of itself, changes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "CI", "GITHUB_STEP_SUMMARY"):
            patch.delenv(name, raising=False)
        yield


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


@pytest.fixture
def agent(ssh_server: SshServer) -> Iterator[Agent]:
    """The agent on the SSH server's board."""
    with open_agent("rpi4", "board", "") as agent:
        yield agent


@pytest.fixture
def board(ssh_server: SshServer) -> Board:
    """What lies on the SSH server's board."""
    from release_board import Board

    return Board(ssh_server)


@pytest.fixture(scope="session")
def arm64_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """The SSH server of an emulated ARM64 userland, which is built once and kept in the cache."""
    cache = Path(os.environ.get("EDGEPRUNE_CACHE") or Path.home() / ".cache" / "edgeprune") / "arm64"
    script = AGENT.parent / "setup" / "arm64_userland.sh"
    environment = {**os.environ, "HOST_PYTHON": sys.executable}
    built = subprocess.run([script, cache], env=environment, capture_output=True, text=True, check=False)
    if built.returncode == CANNOT_BUILD:
        pytest.skip(built.stderr.strip().splitlines()[-1])
    assert built.returncode == 0, built.stderr
    server = Arm64Server(tmp_path_factory.mktemp("arm64"), userland=cache)
    server.start()
    yield server
    server.stop()
