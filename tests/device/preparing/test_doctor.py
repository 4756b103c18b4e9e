"""What is wrong with a board: the parser and the judge on what boards print, and examining one over SSH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from ssh_server import SshServer

from edgeprune.cli.boards import devices
from edgeprune.core.boards.doctor import (
    BoardState,
    Purpose,
    find_drift_s,
    judge_board,
    parse_board,
    render_findings,
)
from edgeprune.core.target import Target
from edgeprune.device.preparing.doctor import examine_board

TARGET = Target("rpi4", "a board of the tests")
PURPOSE = Purpose(("onnxruntime",), "edgeprune devices setup --target rpi4 --host board")
HEALTHY = """
== begun
1790000000

== machine
aarch64

== glibc
glibc 2.36

== cores
4

== governor
performance
performance
performance
performance

== throttled
throttled=0x0

== memory
MemTotal:        3884344 kB
SwapTotal:        102396 kB
SwapFree:         102396 kB

== load
0.08 0.03 0.01 1/143 1012

== disk
Filesystem     1024-blocks    Used Available Capacity Mounted on
/dev/root         30358152 5358152  23699908      19% /

== place
/home/pi
writable
rw,noatime

== temperature
42355

== power
cpu_thermal
rpi_volt
pmic

== python

{"path": "/home/pi/venv/bin/python", "version": "3.11.2", "runtimes": {"onnxruntime": "1.31.1"}, "broken": {}}

== ended
1790000002
"""
"""In the words of a Raspberry Pi OS 12."""


def judge(text: str, purpose: Purpose = PURPOSE) -> list[str]:
    return [one.describe() for one in judge_board(parse_board(text), purpose)]


def test_a_healthy_board_has_nothing_wrong() -> None:
    assert judge(HEALTHY) == []
    assert render_findings("board", []) == "board: nothing is wrong"


SICK = [
    ("throttled=0x0", "throttled=0x50005", r"under-voltage, throttled now\n.*power supply"),
    ("throttled=0x0", "throttled=0x20000", r"frequency capped since it was started\n.*cool it"),
    ("performance\nperformance\n\n", "performance\nondemand\n\n", r"governor is ondemand: .*\n.*scaling_governor"),
    ("SwapFree:         102396", "SwapFree:          2396", r"swap in use: 98 MiB.*\n.*swapoff"),
    ("23699908      19%", "204800      99%", r"disk nearly full: 200 MiB of .*\n.*release prune"),
    ("23699908      19%", "20480     100%", r"error    disk nearly full: 20 MiB"),
    ("rw,noatime", "ro,noatime", r"error    /home/pi is on a disk that is mounted read-only\n.*remount,rw"),
    ("writable", "closed", r"error    /home/pi cannot be written by this user\n.*chown"),
    ("rw,noatime", "rw,noexec", r"warning  /home/pi is on a disk that runs no programs \(noexec\)"),
    ("42355", "42355\n81000", r"hot: 81 C"),
    ("42355", "", r"note     no temperature sensor"),
    ("\npmic", "", r"note     no power sensor"),
    ("0.08", "3.20", r"busy in the last minute: load 3\.20 on 4 cores"),
    ('"version": "3.11.2"', '"version": "3.7.10"', r"error    Python 3\.7 is too old; 3\.8 or newer"),
    (
        '{"onnxruntime": "1.31.1"}',
        "{}",
        r"error    onnxruntime is not installed for .*\n.*mend: edgeprune devices setup",
    ),
    ('"broken": {}', '"broken": {"onnxruntime": "GLIBC_2.38 not found"}', r"does not load: GLIBC_2\.38 not found"),
]


@pytest.mark.parametrize(("healthy", "sick", "said"), SICK)
def test_each_thing_that_is_wrong_is_said_alone_with_its_remedy(healthy: str, sick: str, said: str) -> None:
    text = HEALTHY.replace(healthy, sick)
    assert text != HEALTHY
    (finding,) = judge(text)
    assert re.search(said, finding), finding
    assert re.search(r"\n +mend: \S", finding)


def test_an_old_c_library_is_named_only_where_the_wheels_are_to_come() -> None:
    old = HEALTHY.replace("glibc 2.36", "glibc 2.24")
    assert judge(old) == []
    missing = judge(old.replace('{"onnxruntime": "1.31.1"}', "{}"))
    assert len(missing) == 2
    assert "glibc 2.24 is too old for the wheels of onnxruntime: 2.28 or newer" in missing[1]
    litert = replace(PURPOSE, packages=("ai-edge-litert", "tflite-runtime"))
    assert not any("glibc" in one for one in judge(HEALTHY, litert))
    musl = judge(HEALTHY.replace("glibc 2.36", "").replace('{"onnxruntime": "1.31.1"}', "{}"))
    assert "no glibc was found" in musl[1]


def test_without_python_nothing_else_is_said_of_the_runtime() -> None:
    (finding,) = judge(re.sub(r'\{"path.*', "", HEALTHY))
    assert "error    no Python 3 that runs" in finding


def test_a_clock_is_off_only_if_no_delay_explains_it() -> None:
    assert find_drift_s((100, 103), 99.5, 104.0) == 0
    assert find_drift_s((100, 103), 100.9, 103.0) == 0
    assert find_drift_s((100, 103), 161.5, 165.0) == -60.5
    assert find_drift_s((200, 203), 99.5, 103.0) == 100
    assert find_drift_s((), 1.0, 2.0) == 0
    (finding,) = judge(HEALTHY, replace(PURPOSE, drift_s=-60.5))
    assert re.search(r"clock is at least 60 s behind .*\n.*set-ntp", finding)
    assert judge(HEALTHY, replace(PURPOSE, drift_s=4.0)) == []


def test_errors_come_first() -> None:
    text = HEALTHY.replace("42355", "").replace("0.08", "9.00").replace('{"onnxruntime": "1.31.1"}', "{}")
    findings = judge_board(parse_board(text), PURPOSE)
    assert [one.severity for one in findings] == ["error", "warning", "note"]
    assert render_findings("board", findings).endswith("board: 1 error, 1 warning, 1 note")


def test_a_board_that_tells_nothing_is_not_blamed_for_more_than_that() -> None:
    assert {one.severity for one in judge_board(BoardState(), PURPOSE)} == {"error", "note"}


@settings(deadline=None)
@given(
    st.text()
    | st.lists(st.sampled_from([*HEALTHY.splitlines(), "== python", "{", "[" * 9999, "-1 -1% 9", "é"])).map("\n".join)
)
def test_whatever_a_board_prints_is_read(text: str) -> None:
    for finding in judge_board(parse_board(text), PURPOSE):
        assert finding.what
        assert finding.remedy


# over SSH


def test_a_board_is_examined_by_one_command(ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeprune.device.ssh.transport import SshTransport

    commands = []
    run = SshTransport.run
    monkeypatch.setattr(
        SshTransport, "run", lambda self, command, **more: (commands.append(command), run(self, command, **more))[1]
    )
    host, findings = examine_board(TARGET, "board")
    assert (host, len(commands)) == ("board", 1)
    assert not [one for one in findings if one.severity == "error"]
    assert not (ssh_server.board / ".cache" / "edgeprune").exists()


def test_a_sick_board_is_examined_over_ssh(ssh_server: SshServer) -> None:
    """A firmware that throttles, a clock of another day, no runtime: made by programs that come first in its PATH."""
    ssh_server.stop()
    tools = ssh_server.folder / "bin"
    tools.mkdir()
    for name, text in (("vcgencmd", "echo throttled=0x4"), ("date", "echo 1600000000"), ("getconf", "echo glibc 2.24")):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    (ssh_server.board / ".local" / "share" / "edgeprune" / "venv").unlink()
    (tools / "python3").symlink_to(_make_bare_python(ssh_server.folder))
    ssh_server.prelude = f"export PATH='{tools}':\"$PATH\"; "
    ssh_server.start()
    done = CliRunner().invoke(devices, ["doctor", "--target", "rpi4", "--host", "board"])
    assert done.exit_code == 1
    for said in (
        "the firmware says throttled now",
        "behind this machine's",
        "onnxruntime is not installed for",
        "mend: edgeprune devices setup --target rpi4 --host board",
        "glibc 2.24 is too old",
    ):
        assert said in done.output


@pytest.mark.parametrize(("options", "said"), [("ro", "mounted read-only"), ("noexec", "runs no programs (noexec)")])
def test_a_home_that_cannot_be_used_is_found_where_it_is_one(ssh_server: SshServer, options: str, said: str) -> None:
    place = ssh_server.board / ".cache"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size=1m,{options}", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("needs root, to mount a small disk")
    try:
        _, findings = examine_board(TARGET, "board")
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    assert [one for one in findings if said in one.what]
    assert not [one for one in examine_board(TARGET, "board")[1] if "/.cache" in one.what]


def _make_bare_python(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "bare"], check=True)
    return folder / "bare" / "bin" / "python3"


def test_a_board_without_python_is_examined_too(ssh_server: SshServer) -> None:
    ssh_server.stop()
    tools = ssh_server.folder / "bin"
    tools.mkdir()
    for tool in ("sh", "date", "uname", "cat", "df", "grep", "ls", "sed", "head", "getconf"):
        (tools / tool).symlink_to(shutil.which(tool) or "")
    (ssh_server.board / ".local" / "share" / "edgeprune" / "venv").unlink()
    ssh_server.prelude = f"PATH='{tools}'; "
    ssh_server.start()
    _, findings = examine_board(TARGET, "board")
    assert "no Python 3 that runs" in findings[0].what


# devices.toml


def test_a_device_is_added_beside_those_that_are_there(no_devices: Path) -> None:
    path = no_devices / ".config" / "edgeprune" / "devices.toml"
    assert "no devices yet" in call("list")
    assert f"written to {path}; next: edgeprune devices trust bench" in call(
        "add", "bench", "--host", "pi@10.0.0.7:2222", "--target", "rpi4"
    )
    path.write_text("# mine\n" + path.read_text().rstrip("\n"))
    call("add", "shelf", "--host", "pi@[fe80::1%eth0]")
    assert path.read_text() == (
        '# mine\n[devices.bench]\nhost = "pi@10.0.0.7:2222"\ntarget = "rpi4"\n\n'
        '[devices.shelf]\nhost = "pi@[fe80::1%eth0]"\n'
    )
    assert re.search(r"bench +rpi4 +pi@10\.0\.0\.7:2222\nshelf +- +pi@\[fe80::1%eth0\]", call("list"))
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "a b", "--host", "pi@x"), "cannot be a device's name"),
        (("add", "local", "--host", "pi@x"), "cannot be a device's name"),
        (("add", "a]\n[devices.b", "--host", "pi@x"), "cannot be a device's name"),
        (("add", "bench", "--host", "pi@x y"), "is not an address"),
        (("add", "bench", "--host", 'x"\ntarget="y'), "is not an address"),
        (("add", "bench", "--host", "pi@x", "--target", "rpi44"), "no target 'rpi44'"),
        (("add", "there", "--host", "pi@x"), "has a device there already"),
        (("lock", "--target", "rpi4", "--reason", "x", "--for", "soon"), "is not a time"),
    ],
)
def test_a_device_that_cannot_be_is_refused_and_nothing_written(
    no_devices: Path, words: tuple[str, ...], said: str
) -> None:
    call("add", "there", "--host", "pi@there")
    path = no_devices / ".config" / "edgeprune" / "devices.toml"
    before = path.read_text()
    assert said in call(*words)
    assert path.read_text() == before


def test_a_list_that_cannot_be_added_to_is_left_alone(no_devices: Path) -> None:
    path = no_devices / ".config" / "edgeprune" / "devices.toml"
    path.parent.mkdir(parents=True)
    path.write_text('devices = { a = { host = "x" } }\n')
    assert "write [devices.bench] there by hand" in call("add", "bench", "--host", "pi@x")
    assert path.read_text() == 'devices = { a = { host = "x" } }\n'


def test_a_board_is_locked_and_unlocked(ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    board = ("--target", "local", "--host", "board")
    assert "board: was not locked" in call("unlock", *board)
    said = call("lock", *board, "--reason", "soak test", "--for", "2h")
    assert re.search(r"board: reserved for \S+@\S+ for 2 h 0 min", said)
    monkeypatch.setattr("edgeprune.device.lease.describe_owner", lambda: "ben@elsewhere")
    refused = call("lock", *board, "--reason", "mine")
    assert re.search(r"board: reserved by .* \(soak test\) for another", refused)
    assert "still reserved by" in call("unlock", *board)
    owner = re.search(r"--owner (\S+)", refused)
    assert owner is not None
    assert "no longer reserved by" in call("unlock", *board, "--owner", owner[1])
    assert "reserved for ben@elsewhere for 60 min" in call("lock", *board, "--reason", "mine")


def call(*words: str) -> str:
    """What a command of `devices` prints, or the error that ends it."""
    done = CliRunner().invoke(devices, words)
    return done.output if done.exit_code == 0 else f"{done.output}{done.exception}"
