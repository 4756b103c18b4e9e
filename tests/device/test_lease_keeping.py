"""Keeping a lease: renewals that fail, hang or come too late, clocks that jump."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from device_models import QUICK, ignore, make_model
from edgeprune_agent import events as agent_events
from edgeprune_agent import lease as board_side
from edgeprune_agent.errors import AgentError
from hypothesis import given
from hypothesis import strategies as st
from ssh_server import SshServer

from edgeprune.core.target import Target
from edgeprune.device import lease as leases
from edgeprune.device.agent.client import Agent
from edgeprune.device.agent.measure import sustain_model
from edgeprune.device.connect import open_agent, open_device
from edgeprune.device.lease import LOST, hold_lease, list_leases
from edgeprune.device.transports.local import LocalTransport
from edgeprune.device.transports.transport import Completed
from edgeprune.errors import ConnectionFailed, DeviceError

LOCAL = Target("local", "this machine", protocol=QUICK)
RESULTS = st.lists(st.sampled_from(["renewed", "failed", "broken", "lost"]), max_size=12)


class Renewals:
    """A transport whose renewals end as a test wants it; `closed` once the work there was stopped."""

    name, host, host_key = "ssh", "board", ""

    def __init__(self, results: Iterator[str]) -> None:
        self.closed, self.ended, self.count = threading.Event(), False, 0
        self._results = results

    def run(self, command: Sequence[str], *, stdin: bytes = b"", timeout_s: float, on_line: Any = None) -> Completed:
        if self.closed.is_set():
            raise ConnectionFailed("board: was let go of")
        if command[2] == leases.END:
            self.ended = True
            return Completed(0, b"", "")
        self.count += 1
        result = next(self._results, "renewed")
        if result == "hang":
            self.closed.wait(20)
        if result in ("broken", "hang"):
            raise ConnectionFailed("board: no sign of life")
        return Completed({"renewed": 0, "failed": 1, "lost": LOST}[result], b"", "touch: Read-only file system")

    def put(self, local: Path, remote: str) -> None:
        pass

    def get(self, remote: str, local: Path) -> None:
        pass

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that live for one and a half seconds."""
    for name, value in {"TTL_S": 1.5, "MARGIN_S": 0.3, "RENEW_S": 0.2, "RETRY_S": 0.05, "LOOK_S": 0.02}.items():
        monkeypatch.setattr(leases, name, value)


def work_under(board: Renewals, enough: Callable[[], bool]) -> None:
    """Work until there was enough of it, or it was stopped."""
    with leases._held_by(Agent(board, "python3", "/b/agent.pyz"), "/b/lease-work.json", "a token"):
        end = time.monotonic() + 20
        while not enough() and not board.closed.is_set():
            assert time.monotonic() < end
            time.sleep(0.01)
        if board.closed.is_set():
            raise ConnectionFailed("board: was let go of")


@pytest.mark.parametrize("trouble", ["broken", "failed"])
def test_a_renewal_that_fails_is_tried_again_and_the_work_goes_on(soon: None, trouble: str) -> None:
    board = Renewals(iter([trouble, trouble, "renewed", trouble, "renewed"]))
    begun = time.monotonic()
    work_under(board, lambda: board.count > 8 and time.monotonic() - begun > 2 * leases.TTL_S)
    assert board.ended
    assert not board.closed.is_set()


@pytest.mark.parametrize("trouble", ["broken", "failed", "hang"])
def test_the_work_is_stopped_before_a_lease_ends_that_cannot_be_renewed(soon: None, trouble: str) -> None:
    board = Renewals(iter(["renewed", *[trouble] * 1000]))
    said = r"board: lost the lease: it could not be renewed for 1 s.*somebody else may use the board.*was stopped"
    with pytest.raises(DeviceError, match=said) as caught:
        work_under(board, lambda: False)
    assert not board.ended  # it may be somebody else's by now
    assert {"broken": "no sign of life", "failed": "Read-only file system", "hang": ""}[trouble] in str(caught.value)


def test_a_lease_that_somebody_took_stops_the_work_at_once(soon: None) -> None:
    board = Renewals(iter(["renewed", "lost"]))
    with pytest.raises(DeviceError, match="lost the lease: somebody ended it or took it over"):
        work_under(board, lambda: False)
    assert board.count == 2
    assert not board.ended


def test_work_that_needs_no_board_is_told_too(soon: None) -> None:
    """Nothing in the body meets the closed link."""
    board = Renewals(iter(["lost"]))
    with (
        pytest.raises(DeviceError, match="lost the lease"),
        leases._held_by(Agent(board, "python3", "/b/agent.pyz"), "/b/lease", "a token"),
    ):
        assert board.closed.wait(20)


def wake(monkeypatch: pytest.MonkeyPatch, clock: Callable[[], float]) -> None:
    """An hour later, and a moment in which that is noticed."""
    monkeypatch.setattr(leases, "read_clock_s", lambda: clock() + 3600)
    time.sleep(1)


def test_a_machine_that_slept_through_its_lease_stops(soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of `wait` stands still while a machine sleeps, and the one that is asked does not."""
    monkeypatch.setattr(leases, "RENEW_S", 60.0)
    board, clock = Renewals(iter([])), time.monotonic
    monkeypatch.setattr(leases, "read_clock_s", clock)
    with (
        pytest.raises(DeviceError, match="could not be renewed"),
        leases._held_by(Agent(board, "python3", "/b/agent.pyz"), "/b/lease", "a token"),
    ):
        wake(monkeypatch, clock)
    assert (board.count, board.closed.is_set()) == (0, True)


def test_setting_the_clock_does_not_matter_to_a_keeper() -> None:
    assert abs(leases.read_clock_s() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 5


@given(results=RESULTS)
def test_never_does_anybody_work_on_beyond_the_end_of_a_lease(results: list[str]) -> None:
    """Whatever renewals do: by a clock that the test turns, the work stops before the board lets another in."""
    now = [1000.0]
    board = Renewals(iter(results))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "read_clock_s", lambda: now[0])
        renewal = leases._Renewal(board, "/b/lease", "a token")
        renewed = now[0]
        for result in results:
            now[0] += leases.RENEW_S
            if renewal.gone:
                break
            renewal._renew()
            renewed = now[0] if result == "renewed" else renewed
        end = threading.Thread(target=renewal._watch)
        now[0] = renewed + leases.TTL_S - 0.1
        patch.setattr(leases, "LOOK_S", 0.001)
        end.start()
        end.join(20)
        assert renewal.gone
        assert board.closed.is_set()


# really stopped, on every transport that is here


def hold_and_work(agent: Agent) -> None:
    with hold_lease(agent, "mine", ignore):
        agent.transport.run(["sleep", "60"], timeout_s=70)


def test_what_runs_on_this_machine_is_ended_with_its_lease(
    no_devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soon: None
) -> None:
    monkeypatch.setattr(leases, "RENEW", "exit 1")
    script = f"echo $$ > {tmp_path}/pid; sleep 60"
    with (
        pytest.raises(DeviceError, match=r"local: lost the lease: it could not be renewed for 1 s: exit code 1"),
        open_device(LOCAL, None) as device,
    ):
        device.transport.run(["sh", "-c", script], timeout_s=70)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with closing(LocalTransport()) as again:
        assert again.run(["echo", "on"], timeout_s=20).stdout == b"on\n"


def test_nothing_more_runs_on_a_link_that_was_let_go_of(no_devices: Path) -> None:
    link = LocalTransport()
    link.close()
    with pytest.raises(ConnectionFailed, match="local: was let go of"):
        link.run(["true"], timeout_s=20)


def test_what_runs_on_a_board_ends_with_its_lease(
    ssh_server: SshServer, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client stops, and the next one is let in."""
    monkeypatch.setattr(leases, "RENEW", "exit 1")
    with (
        pytest.raises(DeviceError, match="board: lost the lease: it could not be renewed"),
        open_agent("rpi4", "board", "") as agent,
    ):
        hold_and_work(agent)
    with open_agent("rpi4", "board", "") as agent, hold_lease(agent, "next", ignore):
        assert len(list_leases(agent)) == 1


@pytest.mark.slow
def test_an_agent_whose_client_is_gone_stops_when_its_lease_is_somebody_elses(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    """As with a link that is dead and nobody notices: the agent looks itself, every few seconds."""
    model, said = make_model(tmp_path, "onnxruntime"), list[str]()
    path = ssh_server.board / ".cache" / "edgeprune" / "board" / "lease-work.json"

    def take_over(text: str) -> None:
        said.append(text)
        found = json.loads(path.read_text())
        path.write_text(json.dumps(found | {"token": "1" * 32, "owner": "ben@elsewhere"}))

    with open_device(Target("rpi4", "a board", protocol=QUICK), "board") as device:
        with pytest.raises(DeviceError, match="the lease of this command is over"):
            sustain_model(device, model, Target("rpi4", "a board", protocol=QUICK), 120.0, take_over)
        assert "token" in device.agent.settings["lease"]
        path.unlink()


def test_a_command_of_an_agent_may_be_ended_from_where_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    events = agent_events.Events(written)

    def end() -> None:
        raise AgentError("request", "over")

    events.watch = end
    events.alive()
    events.progress("so far")
    monkeypatch.setattr(agent_events, "WATCH_S", -1.0)
    for step in (events.alive, lambda: events.progress("too far")):
        with pytest.raises(AgentError, match="over"):
            step()
    assert "too far" not in written.getvalue()


def test_a_lease_beyond_its_time_is_not_its_own_clients_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_side, "home", lambda: tmp_path)
    request = {"name": "work", "token": "a", "owner": "ada@desk", "reason": "", "ttl_s": 100.0, "client": {}}
    path = Path(board_side.take(request)["path"])
    under = {"lease": {"token": "a"}}
    board_side.require_held(under)
    os.utime(path, (time.time() - 99, time.time() - 99))
    board_side.require_held(under)
    os.utime(path, (time.time() - 101, time.time() - 101))
    for told in (under, {"lease": {"token": "b"}}):
        with pytest.raises(AgentError, match="is over"):
            board_side.require_held(told)
    os.utime(path)
    with pytest.raises(AgentError, match="is over"):
        board_side.require_held({"lease": {"token": "b"}})
    path.unlink()
    with pytest.raises(AgentError, match="is over"):
        board_side.require_held(under)


# whose process it was


def gone_pid() -> int:
    """A process that was there and is no more."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_a_client_of_another_machine_never_counts_as_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    here, pid = leases._find_place(), gone_pid()
    assert leases._has_ended({"place": here, "pid": pid})
    assert leases._has_ended({"place": here, "pid": os.getpid()})  # ours, and let go of
    assert not leases._has_ended({"place": here, "pid": os.getppid()})
    for place in ("elsewhere", "", None, here + "x", here.upper()):
        assert not leases._has_ended({"place": place, "pid": pid})
    for odd in (0, -1, "1", None, 1.5, 1 << 80):
        assert not leases._has_ended({"place": here, "pid": odd})


def test_machines_of_one_name_are_not_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither the start nor the process numbers can be told, only this very process is known."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "readlink", lambda self: (_ for _ in ()).throw(OSError()))
        place = leases._find_place()
    assert place == leases._PROCESS
    code = "from edgeprune.device import lease; print(lease._PROCESS)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other != place
    assert leases._find_place() != place


def test_another_machines_lease_is_not_taken_though_its_process_is_not_here(
    ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(leases, "_find_place", lambda: "elsewhere")
        patch.setattr(leases.os, "getpid", gone_pid)
        patch.setattr(leases, "describe_owner", lambda: "ben@elsewhere")
        with open_agent("rpi4", "board", "") as agent:
            leases._take(agent, leases._request("work", "0" * 32, "old", leases.TTL_S))
    with (
        open_agent("rpi4", "board", "") as agent,
        pytest.raises(DeviceError, match="in use by ben@elsewhere"),
        hold_lease(agent, "mine", ignore),
    ):
        pass


def test_ended_clients_in_a_row_are_all_passed_over(ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_agent("rpi4", "board", "") as agent:
        taken, left = leases._take, [2]

        def take_and_die(agent: Agent, request: Any) -> dict[str, Any]:
            """Between our two questions a third client came, and ended."""
            row = taken(agent, request)
            if "instead_of" in request and left[0]:
                left[0] -= 1
                dead = {"place": leases._find_place(), "pid": gone_pid()}
                leases.ask_agent(
                    agent,
                    {"command": "lease", **leases._request("work", f"{left[0]}", "x", 60), "client": dead,
                     "instead_of": request["token"]},
                )  # fmt: skip
                return taken(agent, {**request, "instead_of": "nobody"})
            return row

        dead = {"place": leases._find_place(), "pid": gone_pid()}
        leases.ask_agent(agent, {"command": "lease", **leases._request("work", "first", "x", 60), "client": dead})
        monkeypatch.setattr(leases, "_take", take_and_die)
        with hold_lease(agent, "mine", ignore):
            assert left == [0]
