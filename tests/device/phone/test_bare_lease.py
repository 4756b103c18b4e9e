"""A board without Python that several machines use: one has it at a time, whoever of them has a Python agent there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from device_models import ignore
from edgeprune_agent import lease as agent_lease
from edgeprune_agent.lease import Clock
from hypothesis import given
from hypothesis import strategies as st
from native_board import FolderBoard, lay_programs
from places import SUPPORT

from edgeprune.device import bare_lease
from edgeprune.device import lease as leases
from edgeprune.device.bare_lease import TAKE, Bare, blocks, seconds_left
from edgeprune.device.lease import hold_board, list_leases, reserve, unlock
from edgeprune.errors import DeviceError

FOLDER = Path(".cache") / "edgeprune" / "board"
HOLD = """
import sys, time
from pathlib import Path
from native_board import FolderBoard
from edgeprune.device.bare_lease import Bare
from edgeprune.device.lease import hold_board
with hold_board(Bare(FolderBoard(Path(sys.argv[1]))), "another", print):
    print("held", flush=True)
    time.sleep(60)
"""
USERLANDS = ("debian", "busybox", "toybox")


@pytest.fixture(params=USERLANDS)
def board(request: pytest.FixtureRequest, tmp_path: Path) -> FolderBoard:
    """A board with the programs of each kind of system."""
    return FolderBoard(tmp_path / "board", path=str(lay_programs(tmp_path / "bin", request.param)))


@pytest.fixture
def plain_board(tmp_path: Path) -> FolderBoard:
    return FolderBoard(tmp_path / "board")


def lease_file(board: FolderBoard, name: str = "work") -> Path:
    return board.home / FOLDER / f"lease-{name}.json"


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process is another person's on another machine."""
    monkeypatch.setattr(leases, "describe_owner", lambda: "ben@elsewhere")
    monkeypatch.setattr(leases, "_find_place", lambda: "elsewhere")


def ask_agent(board: FolderBoard, action: str, **more: Any) -> dict[str, Any]:
    """What the agent with Python says of that board's leases."""
    request = {"name": "work", "token": "f" * 32, "owner": "eve@agent", "reason": "by Python", "ttl_s": 180.0, **more}
    return agent_lease.ACTIONS[action](
        {**request, "client": {"place": "x", "pid": 1}, "machine": str(board.home / FOLDER)}
    )


def try_it(board: FolderBoard) -> str:
    """Hold the board in another thread; what came of it."""
    said: list[str] = []

    def hold() -> None:
        try:
            with hold_board(Bare(board), "mine", ignore):
                said.append("held")
        except DeviceError as exc:
            said.append(str(exc))

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    return said[0]


def test_a_lease_keeps_everybody_else_out_until_it_ends(board: FolderBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold_board(Bare(board), "soak test", ignore):
        assert lease_file(board).stat().st_mode & 0o777 == 0o600
        (lease,) = list_leases(Bare(board))
        assert lease.describe() == f"in use by {leases.describe_owner()} (soak test)"
        assert leases.TTL_S - 20 < lease.left_s <= leases.TTL_S
        elsewhere(monkeypatch)
        assert "(soak test) now (free in" in try_it(board)
        refused = ask_agent(board, "take")
        assert (refused["taken"], refused["holder"]["reason"]) == (False, "soak test")
    assert [path.name for path in (board.home / FOLDER).iterdir()] == ["lease.guard"]
    assert try_it(board) == "held"


def test_what_the_agent_holds_is_not_taken(board: FolderBoard) -> None:
    (board.home / FOLDER).mkdir(parents=True)
    assert ask_agent(board, "take")["taken"]
    assert re.search(
        r"board: in use by eve@agent \(by Python\) now \(free in .*unlock .*--owner eve@agent", try_it(board)
    )
    ended, remain = unlock(Bare(board), "eve@agent")
    assert ([lease.reason for lease in ended], remain) == (["by Python"], [])
    assert try_it(board) == "held"


def test_a_reservation_keeps_others_out_and_its_owner_in(board: FolderBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reserve(Bare(board), "a talk", 3600.0) is None
    assert try_it(board) == "held"
    elsewhere(monkeypatch)
    assert "reserved by" in try_it(board)
    assert "(a talk)" in try_it(board)
    assert [lease.reason for lease in unlock(Bare(board), "ben@elsewhere")[1]] == ["a talk"]


def test_a_killed_client_is_no_hindrance(plain_board: FolderBoard) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}
    words = [sys.executable, "-c", HOLD, str(plain_board.home)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert "(another) now" in try_it(plain_board)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    told: list[str] = []
    with hold_board(Bare(plain_board), "mine", told.append):
        assert re.fullmatch(r"board: took over the lease of .* \(another\): its process has ended", told[0])


@pytest.mark.parametrize(
    ("age_s", "changes", "said"),
    [
        (10.0, {}, "in use by"),
        (200.0, {}, "held"),
        (10.0, {"boot": "another start of it"}, "held"),
        (-3600.0, {}, "held"),
        (10.0, {"ttl_s": "long"}, "held"),
    ],
    ids=["renewed", "not renewed", "the board restarted", "of the future", "no lease"],
)
def test_a_lease_of_another_machine_lasts_while_it_is_renewed(
    age_s: float, changes: Mapping[str, Any], said: str, plain_board: FolderBoard
) -> None:
    with hold_board(Bare(plain_board), "old", ignore):
        left = json.loads(lease_file(plain_board).read_text())
    left |= {"token": "0" * 32, "owner": "ben@elsewhere", "client": {"place": "elsewhere", "pid": 1}, **changes}
    lease_file(plain_board).write_text(json.dumps(left))
    touched = time.time() - age_s
    os.utime(lease_file(plain_board), (touched, touched))
    assert said in try_it(plain_board)


@pytest.mark.parametrize("userland", ["debian", "toybox"])
def test_where_there_is_flock_the_agents_own_guard_is_locked(userland: str, tmp_path: Path) -> None:
    board = FolderBoard(tmp_path / "board", path=str(lay_programs(tmp_path / "bin", userland)))
    (board.home / FOLDER).mkdir(parents=True)
    words = ["sh", "-c", TAKE, "sh", str(FOLDER), "work", "a" * 32, bare_lease.EMPTY]
    done: list[int] = []
    take = threading.Thread(target=lambda: done.append(board.run(words, stdin=b"a" * 32, timeout_s=30).exit_code))
    with agent_lease.guarded({"machine": str(board.home / FOLDER)}):
        take.start()
        take.join(1.5)
        assert (done, lease_file(board).exists()) == ([], False)
    take.join()
    assert done == [0]


def test_who_was_faster_since_the_look_has_the_board(board: FolderBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    (board.home / FOLDER).mkdir(parents=True)
    look = bare_lease._look

    def look_and_lose(transport: Any) -> Any:
        seen = look(transport)
        ask_agent(board, "take")
        return seen

    monkeypatch.setattr(bare_lease, "_look", look_and_lose)
    assert "in use by eve@agent" in try_it(board)
    assert json.loads(lease_file(board).read_text())["owner"] == "eve@agent"


def test_of_two_that_write_at_once_the_last_one_has_it(tmp_path: Path) -> None:
    """Where nothing locks, both pass the look: who was overwritten finds out before it measures."""
    place = lay_programs(tmp_path / "bin", "debian", without=("flock", "sleep"))
    other = json.dumps({"token": "0" * 32, "owner": "ben@elsewhere", "reason": "theirs"})
    (place / "sleep").write_text(f"#!/bin/sh\nprintf %s '{other}' > lease-work.json\n")
    (place / "sleep").chmod(0o755)
    board = FolderBoard(tmp_path / "board", path=str(place))
    (board.home / FOLDER).mkdir(parents=True)
    words = ["sh", "-c", TAKE, "sh", str(FOLDER), "work", "a" * 32, bare_lease.EMPTY]
    assert board.run(words, stdin=b'{"token": "%s"}' % (b"a" * 32), timeout_s=10).exit_code == bare_lease.FASTER


def test_of_many_at_once_one_gets_the_board(plain_board: FolderBoard) -> None:
    said: list[str] = []
    release = threading.Event()

    def hold() -> None:
        try:
            with hold_board(Bare(FolderBoard(plain_board.home)), "mine", ignore):
                said.append("held")
                release.wait(30)
        except DeviceError:
            said.append("refused")

    threads = [threading.Thread(target=hold) for _ in range(6)]
    for thread in threads:
        thread.start()
    while len(said) < len(threads):
        time.sleep(0.05)
    release.set()
    for thread in threads:
        thread.join()
    assert sorted(said) == ["held", *["refused"] * 5]


def test_work_under_a_lease_that_somebody_ended_fails(
    plain_board: FolderBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.1)
    end = threading.Thread(target=lambda: (lease_file(plain_board).unlink(), time.sleep(1.0)))
    said = "board: lost the lease: somebody ended it or took it over"
    with pytest.raises(DeviceError, match=said), hold_board(Bare(plain_board), "mine", ignore):
        end.run()


def test_a_board_where_no_lease_can_lie_is_told(plain_board: FolderBoard) -> None:
    (plain_board.home / ".cache").write_text("a file")
    with (
        pytest.raises(DeviceError, match=r"board: \.cache/edgeprune/board cannot be written: mkdir:"),
        hold_board(Bare(plain_board), "mine", ignore),
    ):
        pass


TIMES = st.floats(-1000.0, 1000.0)


@given(st.sampled_from(["work", "reserved"]), st.sampled_from(["a", "b"]), st.tuples(TIMES, TIMES, TIMES, TIMES))
def test_leases_are_judged_as_the_agent_judges_them(
    name: str, boot: str, times_s: tuple[float, float, float, float]
) -> None:
    age_s, offset_s, wall, up = times_s
    lease = {"name": name, "boot": boot, "offset_s": offset_s, "ttl_s": 180.0}
    left_s = seconds_left(lease, wall - age_s, wall, up, "a")
    assert left_s == agent_lease.seconds_left(name, lease, wall - age_s, Clock(wall, up, "a"))


@pytest.mark.parametrize("holder", ["work", "reserved"])
@pytest.mark.parametrize("name", ["work", "reserved"])
@pytest.mark.parametrize("owner", ["a", "b"])
@pytest.mark.parametrize("instead_of", ["t", None])
def test_leases_are_in_the_way_as_the_agent_has_it(holder: str, name: str, owner: str, instead_of: str | None) -> None:
    lease = {"name": holder, "owner": "a", "token": "t", "left_s": 1.0}
    request = {"name": name, "owner": owner, "instead_of": instead_of}
    assert blocks(lease, request) == agent_lease.blocks(lease, request)
