"""The lease of this machine: one for all its users, in a folder that they share."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from device_models import QUICK, ignore, make_model
from edgeprune_agent import lease as board_side
from edgeprune_agent.errors import AgentError

from edgeprune.core.target import Target
from edgeprune.device import lease as leases
from edgeprune.device.agent.client import pack_agent
from edgeprune.device.agent.measure import measure_models
from edgeprune.device.connect import open_agent, open_device
from edgeprune.errors import DeviceError

LOCAL = Target("local", "this machine", protocol=QUICK)

HOLD = """
import sys
from edgeprune.core.target import Target
from edgeprune.device.connect import open_device
with open_device(Target("local", "this machine"), "local", lambda text: None) as device:
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(home: Path) -> subprocess.Popen[str]:
    """Another user's process that measures on this machine."""
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "EDGEPRUNE_CACHE": str(home / "cache")}
    words = [sys.executable, "-c", HOLD]
    holder = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_two_homes_of_one_machine_do_not_measure_at_once(no_devices: Path, tmp_path: Path) -> None:
    with start_holder(tmp_path / "other") as holder:
        with pytest.raises(DeviceError, match=r"local: in use by .* now"), open_device(LOCAL, None):
            pass
        holder.kill()
    with open_device(LOCAL, None) as device:  # its process has ended
        measure_models(device, [make_model(tmp_path, "onnxruntime")], 1, QUICK, ignore)


def test_a_reservation_of_this_machine_holds_for_every_home(
    no_devices: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open_agent("local", "local", "") as agent:
        leases.reserve(agent, "a talk", 600)
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(leases, "describe_owner", lambda: "ben@here")
    with pytest.raises(DeviceError, match=r"reserved by .* \(a talk\)"), open_device(LOCAL, None):
        pass
    with open_agent("local", "local", "") as agent:
        monkeypatch.undo()
        leases.unlock(agent, leases.describe_owner())


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which this machine's leases shall lie, beside the agent's own."""
    monkeypatch.setattr(board_side, "home", lambda: tmp_path / "home")
    return tmp_path / "leases"


def take(shared: Path, token: str, **more: Any) -> dict[str, Any]:
    request = {"name": "work", "token": token, "owner": "a@b", "reason": "", "ttl_s": 100.0, "client": {}, **more}
    with board_side.guarded({"machine": str(shared)}):
        return board_side.take({"machine": str(shared), **request})


def test_everybody_may_read_the_leases_of_a_machine_and_renew_their_own(shared: Path) -> None:
    path = Path(take(shared, "a")["path"])
    assert path.parent == shared
    modes = {one.name: stat.S_IMODE(one.lstat().st_mode) for one in (shared, *shared.iterdir())}
    assert modes == {"leases": 0o777, "lease-work.json": 0o644, "lease.guard": 0o644}


@pytest.mark.parametrize("name", ["lease-work.json", "lease.guard"])
def test_a_link_among_the_leases_is_not_followed(shared: Path, tmp_path: Path, name: str) -> None:
    shared.mkdir(mode=0o777)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (shared / name).symlink_to(victim)
    try:
        assert take(shared, "a")["taken"]
    except OSError as exc:
        assert name == "lease.guard", exc  # noqa: PT017
    assert victim.read_text() == "mine"
    assert stat.S_IMODE(victim.stat().st_mode) != 0o777


def test_a_pipe_among_the_leases_does_not_hang(shared: Path) -> None:
    shared.mkdir()
    os.mkfifo(shared / "lease-work.json")
    assert take(shared, "a")["taken"]


@pytest.mark.parametrize("what", ["link", "file", "closed"])
def test_a_folder_that_cannot_be_shared_is_told_with_what_to_do(shared: Path, tmp_path: Path, what: str) -> None:
    if what == "link":
        (tmp_path / "elsewhere").mkdir()
        shared.symlink_to(tmp_path / "elsewhere")
    elif what == "file":
        shared.write_text("")
    else:
        shared = tmp_path / "missing" / "leases"
    with pytest.raises(AgentError, match=r"leases.*set EDGEPRUNE_LEASES to a folder"):
        take(shared, "a")


AS_OTHER = """
import json, os, sys
os.setgid(65534); os.setgroups([]); os.setuid(65534)
sys.argv = [sys.argv[1]]
sys.path.insert(0, sys.argv[0])
from edgeprune_agent.__main__ import main
sys.exit(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_two_users_of_one_machine_keep_each_other_out(tmp_path: Path) -> None:
    """A lease of one user, seen, waited for and, once it is dead, taken over by another."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        Path(place).chmod(0o755)
        agent, shared = Path(place) / "agent.pyz", Path(place) / "leases"
        agent.write_bytes(pack_agent())
        shared.mkdir()
        shared.chmod(0o777)
        request = {
            "command": "lease", "action": "take", "name": "work", "owner": "a@b", "reason": "", "ttl_s": 100.0,
            "client": {}, "machine": str(shared),
        }  # fmt: skip

        def ask(other: bool, token: str, **more: Any) -> dict[str, Any]:
            words = ["-c", AS_OTHER, str(agent)] if other else [str(agent)]
            done = subprocess.run(
                ["/usr/bin/python3", "-I", "-B", *words], input=json.dumps({**request, "token": token, **more}),
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            row: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
            assert row["event"] == "result", row
            return row

        first = ask(True, "a")
        assert first["taken"]
        assert Path(first["path"]).stat().st_uid == 65534
        assert not ask(False, "b")["taken"]
        assert ask(False, "b", instead_of="a")["taken"]
        blocked = ask(True, "c")
        assert (blocked["taken"], blocked["holder"]["token"]) == (False, "b")
        old = time.time() - 200
        os.utime(first["path"], (old, old))
        assert ask(True, "c")["replaced"]["token"] == "b"
        assert ask(False, "", action="end")["ended"][0]["token"] == "c"
        assert sorted(one.name for one in shared.iterdir()) == ["lease.guard"]


def test_the_place_of_a_machines_leases_outlives_a_restart_and_is_the_same_for_all() -> None:
    assert board_side.SHARED[0] == Path("/var/tmp")
    request = {"machine": ""}
    folder = board_side.find_folder(request)
    assert folder.parent in board_side.SHARED
    assert folder.stat().st_mode & 0o777 == 0o777


def test_many_threads_of_one_process_take_turns(no_devices: Path) -> None:
    """As a fleet that has this machine by two names."""
    results: list[str] = []

    def work() -> None:
        try:
            with open_device(replace(LOCAL), None):
                results.append("in")
                time.sleep(0.2)
        except DeviceError as exc:
            results.append(str(exc))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "in" in results
    assert all(one == "in" or "in use by" in one for one in results), results
