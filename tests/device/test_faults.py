"""What goes wrong with boards in a lab: a clear error in time, the release in use untouched, the same command again.

The table docs/faults.md is rendered from FAULTS; `EDGEPRUNE_WRITE_DOCS=1 pytest -k table` writes it anew.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
import pytest
from lab import Lab, LabServer, Scissors, prepare
from network import laid_cable, run, why_no_network
from places import ROOT
from ssh_server import why_not

from edgeprune.device.transports.commands import SHORT_S

PAGE = ROOT / "docs" / "faults.md"
POINTS = 20
ELF_OF_S390 = bytes.fromhex("7f454c46020201") + bytes(9) + bytes.fromhex("000200160000000100000000") + bytes(36)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if why_not() or why_no_network():
        pytest.skip(why_not() or why_no_network())
    folder = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch, laid_cable(59) as cable:
        for name in ("XDG_CONFIG_HOME", "EDGEPRUNE_HOST", "SSH_AUTH_SOCK"):
            patch.delenv(name, raising=False)
        patch.setenv("EDGEPRUNE_CACHE", str(folder / "cache"))
        server = LabServer(folder / "ssh", address=cable.address, cable=cable)
        server.lend_runtimes()
        patch.setenv("HOME", str(server.home))
        server.start()
        try:
            yield prepare(server, folder)
        finally:
            server.stop()


# faults


@dataclass(frozen=True)
class Fault:
    """Something that happens in the body of `happen`. `says` is a pattern that the error holds, empty for none."""

    name: str
    what: str
    says: str
    then: str
    happen: Callable[[Lab], Any]


FAULTS: list[Fault] = []


def fault(name: str, what: str, says: str, then: str) -> Callable[[Callable[[Lab], Any]], Callable[[Lab], Any]]:
    def register(happen: Callable[[Lab], Any]) -> Callable[[Lab], Any]:
        FAULTS.append(Fault(name, what, says, then, contextmanager(happen)))
        return happen

    return register


LINK = Fault(
    f"link cut at {POINTS} points",
    f"the cable is cut, at {POINTS} points from the first byte of the upload into the measurement",
    "no sign of life for|the connection was lost|no answer within|No route to host",
    "the link is back; an upload goes on where it broke",
    lambda lab: None,
)


@fault("no link at all", "the board is not in the network", "no answer within|No route to host", "the link is there")
def no_link(lab: Lab) -> Iterator[None]:
    lab.server.cable.cut()
    yield
    lab.server.cable.plug()


@fault("slow link", "0.4 Mbit/s both ways", "", "not needed: it takes longer, as signs of life still come")
def slow_link(lab: Lab) -> Iterator[None]:
    lab.server.cable.slow(400)
    usual, lab.silence_s = lab.silence_s, SHORT_S  # a piece of an upload takes longer than other faults wait here
    yield
    lab.silence_s = usual
    for words in (["tc"], [*lab.server.cable.inside, "tc"]):
        name = "board" if len(words) > 1 else f"ep{lab.server.cable.number}"
        run(*words, "qdisc", "del", "dev", name, "root")


@fault("full disk", "the board's disk has 64 KiB left", "no space for|No space left on device", "room is made")
def full_disk(lab: Lab) -> Iterator[None]:
    with small_disk(lab) as disk:
        filler = disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        os.truncate(filler, max(0, filler.stat().st_size - (1 << 16)))
        yield
        filler.unlink()
        lab.work()
        lab.check()


@contextmanager
def small_disk(lab: Lab) -> Iterator[Path]:
    """A disk of 4 MiB, with all that is on the board; what lies below it is hidden meanwhile."""
    lab.server.stop()
    kept = lab.workspace.with_name("kept")
    shutil.copytree(lab.workspace, kept, symlinks=True)
    run("mount", "-t", "tmpfs", "-o", "size=4m", "none", str(lab.workspace))
    try:
        shutil.copytree(kept, lab.workspace, symlinks=True, dirs_exist_ok=True)
        lab.server.start()
        yield lab.workspace
    finally:
        lab.server.stop()
        run("umount", "-l", str(lab.workspace))
        shutil.rmtree(kept)
        lab.server.start()


@fault("disk fills up in mid-upload", "another program takes the room that was there", "No space left", "room is made")
def disk_fills_up(lab: Lab) -> Iterator[None]:
    send, sent = paramiko.Channel.send, [0]
    with small_disk(lab) as disk, pytest.MonkeyPatch.context() as patch:

        def fill_then_send(channel: paramiko.Channel, content: bytes) -> int:
            sent[0] += len(content)
            if sent[0] > len(lab.content) / 2 and not (disk / "filler").exists():
                with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(1 << 14))
            return send(channel, content)

        patch.setattr(paramiko.Channel, "send", fill_then_send)
        yield
        patch.undo()
        (disk / "filler").unlink()
        lab.work()


@fault(
    "agent killed",
    "the kernel kills the agent in mid-measurement, as when memory runs out",
    "the agent was killed; the board may be out of memory",
    "there is room again",
)
def agent_killed(lab: Lab) -> Iterator[None]:
    lab.hook = lambda: kill(lab, b"agent-")
    yield


def kill(lab: Lab, word: bytes) -> None:
    for pid in lab.server.sessions():
        with suppress(OSError):
            if word in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)


@fault(
    "sshd killed",
    "every process of the SSH server ends in mid-measurement",
    "the connection was lost",
    "the server runs again",
)
def sshd_killed(lab: Lab) -> Iterator[None]:
    lab.hook = lab.server.stop
    yield
    lab.server.start()


@fault(
    "reboot",
    "the board restarts in mid-measurement: all is gone that ran, and the lease that lay there is dead",
    "the connection was lost|no sign of life for",
    "it is up again",
)
def reboot(lab: Lab) -> Iterator[None]:
    boot = lab.server.folder / lab.server.boot
    before = boot.read_text()
    lab.hook = lambda: (lab.server.stop(), lab.server.start())[1]
    yield
    assert boot.read_text() != before


@fault(
    "unknown host key",
    "nobody has trusted this board yet",
    "unknown host key",
    "edgeprune devices trust, after comparing",
)
def unknown_host_key(lab: Lab) -> Iterator[None]:
    known = lab.server.known_hosts.read_text()
    lab.server.known_hosts.unlink()
    yield
    lab.server.known_hosts.write_text(known)


@fault(
    "changed host key",
    "another machine answers, or the board was set up anew",
    "THE HOST KEY HAS CHANGED",
    "ssh-keygen -R and devices trust, if it was set up anew",
)
def changed_host_key(lab: Lab) -> Iterator[None]:
    kept = lab.server.folder / "host_key.kept"
    shutil.copy(lab.server.folder / "host_key", kept)
    public = (lab.server.folder / "host_key.pub").read_text()
    lab.server.stop()
    lab.server.make_key(lab.server.folder / "host_key")
    lab.server.start()
    yield
    lab.server.stop()
    shutil.copy(kept, lab.server.folder / "host_key")
    (lab.server.folder / "host_key.pub").write_text(public)
    lab.server.start()


LEASE = (
    '{{"token": "{token}", "owner": "ada@elsewhere", "reason": "a long run", "ttl_s": 180.0, "client": {{}}, '
    '"boot": "{boot}", "offset_s": {offset}}}'
)


def write_lease(lab: Lab, shift_s: float) -> Path:
    """A lease of another machine's, renewed so long ago by the board's clock."""
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    boot = (lab.server.folder / lab.server.boot).read_text().strip()
    path = lab.workspace / "lease-work.json"
    path.write_text(LEASE.format(token="1" * 32, boot=boot, offset=time.time() - up))
    os.utime(path, (time.time() + shift_s,) * 2)
    return path


@fault(
    "in use by somebody else",
    "a command on another machine holds the board's lease",
    "in use by ada@elsewhere",
    "it ends, or edgeprune devices unlock --owner",
)
def in_use(lab: Lab) -> Iterator[None]:
    path = write_lease(lab, 0.0)
    yield
    path.unlink()


@fault(
    "expired lease",
    "a lease lies there that was not renewed for three minutes",
    "",
    "not needed: it is taken over, and told",
)
def expired_lease(lab: Lab) -> Iterator[None]:
    write_lease(lab, -200.0)
    yield


@fault(
    "clock jump",
    "the board's clock was set back by a year while a lease lay there",
    "",
    "not needed: leases are not believed to be of the future",
)
def clock_jump(lab: Lab) -> Iterator[None]:
    write_lease(lab, 365 * 86400.0)
    yield


@fault("two clients at once", "another process of this machine works with the board", "in use by", "it has ended")
def two_clients(lab: Lab) -> Iterator[None]:
    code = (
        "import sys; from edgeprune.device.connect import open_agent; from edgeprune.device.lease import hold_lease\n"
        "with open_agent('rpi4', 'board', '') as agent, hold_lease(agent, 'the first', print):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        yield
        other.stdin.close()
        assert other.wait(60) == 0


@contextmanager
def interpreter(lab: Lab, place: Callable[[Path], None]) -> Iterator[None]:
    """Another interpreter in place of the board's."""
    venv = lab.server.board / ".local" / "share" / "edgeprune" / "venv"
    target = venv.readlink()
    venv.unlink()
    place(venv)
    try:
        yield
    finally:
        shutil.rmtree(venv)
        venv.symlink_to(target)


@fault(
    "wrong architecture",
    "the board's interpreter was made for another processor",
    "the agent did not start",
    "edgeprune devices setup",
)
def wrong_architecture(lab: Lab) -> Iterator[None]:
    def place(venv: Path) -> None:
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").write_bytes(ELF_OF_S390)
        (venv / "bin" / "python").chmod(0o755)

    with interpreter(lab, place):
        yield


@fault(
    "missing runtime", "the board's Python has no inference runtime", "is not installed for", "edgeprune devices setup"
)
def missing_runtime(lab: Lab) -> Iterator[None]:
    def place(venv: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)

    with interpreter(lab, place):
        yield


@pytest.mark.device
@pytest.mark.parametrize("one", FAULTS, ids=lambda one: str(one.name))
def test_a_fault_ends_in_time_and_harms_nothing(one: Fault, lab: Lab) -> None:
    lab.forget()
    with one.happen(lab):
        met, took_s = lab.attempt()
    lab.hook = lambda: None
    if one.says:
        assert re.search(one.says, met), met
        assert "board" in met
    else:
        assert met == ""
    assert took_s < lab.limit_s + (60 if "slow" in one.name else 0)
    lab.check()
    lab.work()
    lab.check()


@pytest.fixture(scope="module")
def moments(lab: Lab) -> int:
    """How often something is sent or comes in the whole work."""
    lab.forget()
    scissors = Scissors(lab.server.cable, None)
    with scissors.lying_ready():
        lab.work()
    return scissors.count


@pytest.mark.device
@pytest.mark.parametrize("point", range(POINTS))
def test_a_link_that_is_cut_anywhere_loses_nothing(point: int, lab: Lab, moments: int) -> None:
    assert moments > 2 * POINTS
    lab.forget()
    at = 1 + point * (moments * 4 // 5) // (POINTS - 1)
    with Scissors(lab.server.cable, at).lying_ready():
        met, took_s = lab.attempt()
    lab.server.cable.plug()
    assert re.search(LINK.says, met), met
    assert "board" in met
    assert took_s < lab.limit_s
    lab.check()
    lab.work()
    lab.check()


# the table


def render_page() -> str:
    """docs/faults.md."""
    rows = [f"| {one.name} | {one.what} | {_quote(one.says)} | {one.then} |" for one in (LINK, *FAULTS)]
    return "\n".join(
        [
            "# Faults",
            "",
            "What was made to happen to a board, with a real SSH server in a network of its own",
            "(`make test-devices`; this page is rendered from `tests/device/test_faults.py`). The command was to",
            "bring a release to the board and to measure a model there. Each time it ended by itself, with an error",
            "that names the board and holds the words below; the release in use went on running, and nothing was",
            "left half-written. Then the same command was run again, and passed.",
            "",
            "| fault | what happens | edgeprune says | then |",
            "|---|---|---|---|",
            *rows,
            "",
            "A silent link is given up after 10 s while connecting, 60 s in short commands and 120 s in long ones (the",
            "agent gives a sign of life every 5 s); the tests wait less.",
            "",
        ]
    )


def _quote(says: str) -> str:
    return " or ".join(f"`{part}`" for part in says.split("|")) if says else "nothing: it passes"


def test_the_table_is_what_the_tests_show() -> None:
    if os.environ.get("EDGEPRUNE_WRITE_DOCS"):
        PAGE.write_text(render_page())
    assert PAGE.read_text() == render_page(), "run EDGEPRUNE_WRITE_DOCS=1 pytest tests/device/test_faults.py -k table"
    assert len({one.name for one in FAULTS}) == len(FAULTS) >= 15
    assert not re.search(r"\n\n\n|\t", PAGE.read_text())
