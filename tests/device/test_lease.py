"""Exclusive use of a board: one of two clients gets it, a dead client's lease is taken over, a reservation holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from device_models import ignore
from edgeprune_agent.lease import Clock, seconds_left
from hypothesis import given, settings
from hypothesis import strategies as st
from ssh_server import SshServer

from edgeprune.core.target import Target
from edgeprune.device import lease as leases
from edgeprune.device.agent.client import Agent
from edgeprune.device.connect import Device, open_agent, open_device
from edgeprune.device.lease import hold_lease, list_leases, parse_duration, parse_lease, reserve, unlock
from edgeprune.errors import ConnectionFailed, DeviceError, RemoteError, UsageError

TARGET = Target("rpi4", "a board of the tests")
HOLD = """
import sys, time
from edgeprune.device.connect import open_agent
from edgeprune.device.lease import hold_lease
with open_agent("rpi4", "board", "") as agent, hold_lease(agent, "another", print):
    print("held", flush=True)
    time.sleep(float(sys.argv[1]))
"""


@pytest.fixture
def somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as another person's on another machine."""
    monkeypatch.setattr(leases, "describe_owner", lambda: "ben@elsewhere")
    monkeypatch.setattr(leases, "_find_place", lambda: "elsewhere")


def start_holder(seconds: float) -> subprocess.Popen[str]:
    """Another process that holds the board."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def end_holder(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.communicate()


def lease_file(server: SshServer, name: str = "work") -> Path:
    return server.board / ".cache" / "edgeprune" / "board" / f"lease-{name}.json"


def write_lease(server: SshServer, age_s: float = 0, **changes: Any) -> None:
    """What another machine's client, long gone, has left."""
    lease_file(server).unlink(missing_ok=True)
    with open_agent("rpi4", "board", "") as agent, hold_lease(agent, "old", ignore):
        left = json.loads(lease_file(server).read_text())
    left |= {"token": "0" * 32, "owner": "ben@elsewhere", "client": {"place": "elsewhere", "pid": 1}, **changes}
    lease_file(server).write_text(json.dumps(left))
    touched = time.time() - age_s
    os.utime(lease_file(server), (touched, touched))


def test_a_lease_is_held_privately_and_let_go(agent: Agent, ssh_server: SshServer) -> None:
    with hold_lease(agent, "soak test", ignore):
        (held,) = list_leases(agent)
        assert held.describe() == f"in use by {leases.describe_owner()} (soak test)"
        assert leases.TTL_S - 20 < held.left_s <= leases.TTL_S + 3
        assert lease_file(ssh_server).stat().st_mode & 0o777 == 0o600
        with hold_lease(agent, "nested", ignore):
            pass
        assert [one.token for one in list_leases(agent)] == [held.token]
    assert list_leases(agent) == []


def test_a_board_that_another_thread_holds_is_refused(agent: Agent, ssh_server: SshServer) -> None:
    """As when a fleet has one board by two names."""
    said: list[str] = []

    def try_it() -> None:
        with open_agent("rpi4", "board", "") as other:
            try:
                with hold_lease(other, "mine", ignore):
                    said.append("held")
            except DeviceError as exc:
                said.append(str(exc))

    with hold_lease(agent, "first", ignore):
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    try_it()
    assert "(first) now (free in" in said[0]
    assert said[1:] == ["held"]


def test_of_two_processes_one_gets_the_board(agent: Agent, ssh_server: SshServer) -> None:
    holder = start_holder(600)
    try:
        with (
            pytest.raises(
                DeviceError,
                match=r"board: in use by .*\(another\) now \(free in .*\); .*unlock .*--host board --owner",
            ),
            hold_lease(agent, "mine", ignore),
        ):
            pass
        with pytest.raises(DeviceError, match="in use by"), open_device(TARGET, "board"):
            pass
    finally:
        end_holder(holder)


def test_many_at_once_never_share(ssh_server: SshServer) -> None:
    """Over a stale lease too, and in one process: each thread holds the board alone or is refused."""
    write_lease(ssh_server, age_s=leases.TTL_S + 60)
    inside, most, won = 0, 0, []

    def compete() -> None:
        nonlocal inside, most
        with open_agent("rpi4", "board", "") as agent:
            try:
                with hold_lease(agent, "race", ignore):
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0.3)
                    inside -= 1
                    won.append(1)
            except DeviceError as exc:
                assert "in use by" in str(exc)  # noqa: PT017

    threads = [threading.Thread(target=compete) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won
    assert most == 1
    with open_agent("rpi4", "board", "") as agent:
        assert list_leases(agent) == []


def test_the_lease_of_a_killed_process_is_taken_over_at_once(agent: Agent, ssh_server: SshServer) -> None:
    end_holder(start_holder(600))
    said: list[str] = []
    with hold_lease(agent, "mine", said.append):
        assert said == [f"board: took over the lease of {leases.describe_owner()} (another): its process has ended"]
    assert list_leases(agent) == []


def test_a_lease_that_was_not_renewed_is_taken_over(agent: Agent, ssh_server: SshServer) -> None:
    write_lease(ssh_server, age_s=leases.TTL_S - 30)
    with pytest.raises(DeviceError, match="in use by ben@elsewhere"), hold_lease(agent, "mine", ignore):
        pass
    write_lease(ssh_server, age_s=leases.TTL_S + 5)
    said: list[str] = []
    with hold_lease(agent, "mine", said.append):
        assert said == ["board: took over the lease of ben@elsewhere (old): it was not renewed"]


def test_a_lease_from_before_a_restart_of_the_board_is_dead(agent: Agent, ssh_server: SshServer) -> None:
    write_lease(ssh_server, boot="another start")
    with hold_lease(agent, "mine", ignore):
        assert len(list_leases(agent)) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"token": 1}', '{"token": "a", "ttl_s": "long"}'])
def test_a_lease_that_is_none_is_no_hindrance(agent: Agent, ssh_server: SshServer, text: str) -> None:
    lease_file(ssh_server).write_text(text)
    with hold_lease(agent, "mine", ignore):
        assert len(list_leases(agent)) == 1


def test_a_lease_is_renewed_while_it_is_held(
    agent: Agent, ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.1)
    with hold_lease(agent, "mine", ignore):
        os.utime(lease_file(ssh_server), (0, 0))
        end = time.monotonic() + 20
        while lease_file(ssh_server).stat().st_mtime == 0:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_lease_that_was_lost_ends_the_work(ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.1)
    with (
        pytest.raises(DeviceError, match="board: lost the lease"),
        open_agent("rpi4", "board", "") as agent,
        hold_lease(agent, "mine", ignore),
    ):
        lose_and_work(ssh_server, agent)
    assert "ben@elsewhere" in lease_file(ssh_server).read_text()


def lose_and_work(server: SshServer, agent: Agent) -> None:
    """Somebody else takes the lease, in the middle of a long command."""
    taken = json.loads(lease_file(server).read_text()) | {"token": "1" * 32, "owner": "ben@elsewhere"}
    lease_file(server).write_text(json.dumps(taken))
    agent.transport.run(["sleep", "60"], timeout_s=70)


def test_after_a_cut_link_the_same_process_goes_on(ssh_server: SshServer) -> None:
    with pytest.raises(ConnectionFailed), open_device(TARGET, "board") as device:
        cut_and_work(ssh_server, device)
    assert lease_file(ssh_server).exists()
    with open_device(TARGET, "board"):
        pass
    assert not lease_file(ssh_server).exists()


def cut_and_work(server: SshServer, device: Device) -> None:
    server.signal_sessions(signal.SIGKILL)
    device.transport.run(["true"], timeout_s=10)


def test_a_reservation_keeps_others_out_and_its_owner_in(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reserve(agent, "soak", 3600) is None
    with hold_lease(agent, "mine", ignore):
        assert [one.name for one in list_leases(agent)] == ["reserved", "work"]
    replaced = reserve(agent, "longer", 7200)
    assert replaced is not None
    assert replaced.reason == "soak"
    owner = leases.describe_owner()
    monkeypatch.setattr(leases, "describe_owner", lambda: "ben@elsewhere")
    with (
        pytest.raises(DeviceError, match=r"reserved by .* \(longer\) for another 2 h 0 min"),
        hold_lease(agent, "b", ignore),
    ):
        pass
    with pytest.raises(DeviceError, match="reserved by"):
        reserve(agent, "mine", 60)
    assert unlock(agent, "ben@elsewhere")[0] == []
    ended, remain = unlock(agent, owner)
    assert ([one.reason for one in ended], remain) == (["longer"], [])
    with hold_lease(agent, "b", ignore):
        pass


def test_nobody_reserves_what_somebody_else_uses(agent: Agent, ssh_server: SshServer) -> None:
    write_lease(ssh_server)
    with pytest.raises(DeviceError, match="in use by ben@elsewhere"):
        reserve(agent, "mine", 60)


NOW = Clock(wall=1_000_000.0, up=5_000.0, boot="a")
LEASE = {"ttl_s": 100.0, "boot": "a", "offset_s": NOW.wall - NOW.up}


@settings(deadline=None)
@given(st.floats(0, 300), st.floats(-1e9, 1e9))
def test_setting_the_clock_neither_ends_nor_keeps_a_lease(age: float, jump: float) -> None:
    """The clock is set by `jump` s, after the lease was last renewed: its age counts as it was."""
    jumped = NOW._replace(wall=NOW.wall + jump)
    left = seconds_left("work", LEASE, NOW.wall - age, jumped)
    if abs(jump) > 500:
        assert left == pytest.approx(max(0.0, 100 - age), abs=1e-3) or (jump < 0 and left == 0 and age > 98)
    assert left >= max(0.0, 100 - age) - 1e-3


def test_a_reservation_outlives_a_restart_and_a_lease_does_not() -> None:
    restarted = NOW._replace(boot="b", up=10.0)
    assert seconds_left("reserved", LEASE, NOW.wall - 40, restarted) == 60
    assert seconds_left("work", LEASE, NOW.wall - 40, restarted) == 0
    assert seconds_left("reserved", LEASE, NOW.wall + 9, NOW) == 0


def test_times_are_read_strictly() -> None:
    assert [parse_duration(text) for text in ("90s", "30m", "2h", "7d")] == [90, 1800, 7200, 604800]
    for text in ("", "2", "h", "0s", "-1h", "8d", "1e3s", "2 h"):
        with pytest.raises(UsageError, match="is not a time"):
            parse_duration(text)


def test_what_others_wrote_cannot_reach_into_the_terminal() -> None:
    row = {"name": "work", "owner": "a\x1b[2J", "reason": "b\nc", "token": "t", "left_s": 1, "client": {}}
    assert parse_lease(row, "board").describe() == "in use by a?[2J (b?c)"


KEYS = st.sampled_from(["name", "owner", "reason", "token", "left_s", "client", "x"])
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@settings(deadline=None)
@given(st.recursive(PLAIN, lambda one: st.lists(one) | st.dictionaries(KEYS, one), max_leaves=12))
def test_a_lease_in_other_words_is_an_error_of_ours(row: object) -> None:
    try:
        parse_lease(row, "board")
    except RemoteError as exc:
        assert "not whole" in str(exc)  # noqa: PT017
