"""A phone over adb, against a real adbd: commands, files, measuring, and every way in which it is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adb_phone import Phone, fetch_adbd, switched_on
from device_models import QUICK, ignore, make_model
from places import RECORDS

from edgeprune.core.target import Target
from edgeprune.device.agent.measure import evaluate_model, measure_models
from edgeprune.device.board import Session
from edgeprune.device.boards import measure_files
from edgeprune.device.connect import open_device
from edgeprune.device.phone.benchmark import cool_down
from edgeprune.device.ssh.trust import fetch_host_key
from edgeprune.device.transports import adb
from edgeprune.device.transports.adb import AdbTransport, call_adb, connect_adb, explain
from edgeprune.device.transports.address import AdbAddress, Address, parse_host
from edgeprune.device.transports.lookup import add_device, resolve_host
from edgeprune.device.transports.transport import Completed
from edgeprune.errors import ConnectionFailed, DeviceError, RemoteError, RuntimeMissing, TargetError, UsageError

TEXTS = {record["phone"]: record["output"][0] for record in json.loads((RECORDS / "phones.json").read_text())}
CALLS = 2 * QUICK.processes
TARGET = Target("pixel8", "a phone of the tests", runtime="litert", protocol=QUICK)
BARE = replace(TARGET, python="/no/python")
"""As if that phone had no Python, which this system's programs there do not hide."""
device = pytest.mark.device


@pytest.fixture
def phone(no_devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    """A phone that is on, in a network of its own; it has no Python."""
    with switched_on(tmp_path / "phone", fetch_adbd(), 58, monkeypatch) as phone:
        yield phone


@pytest.fixture
def link(phone: Phone) -> AdbTransport:
    return connect_adb(AdbAddress(phone.serial))


def lend_python(phone: Phone) -> None:
    place = phone.tmp / ".local" / "share" / "edgeprune"
    place.mkdir(parents=True)
    (place / "venv").symlink_to(sys.prefix)


HELP = "Flags:\n\t--graph=\tstring\n\t--num_runs=50\tint32\n\t--use_xnnpack=false\tbool\n\t--output_filepath=\tstring\n"


def lend_benchmark(phone: Phone, text: str) -> None:
    """A benchmark_model that prints a record, and notes how it was called to time a file."""
    (phone.tmp / "printed").write_text(text)
    (phone.tmp / "help").write_text(HELP)
    called = """case "$*" in --help) cat help; exit 1;; *report_peak*) cat printed; exit;; esac
echo "$@" >> called; grep -i cpus_allowed: /proc/self/status >> called; cat printed"""
    phone.script("benchmark_model", called, phone.tmp)
    phone.script("getprop", 'case $1 in ro.soc.model) echo "Tensor G3";; ro.product.model) echo "Pixel 8";; esac')
    phone.script("dumpsys", f'cat {phone.bin}/$1 2>/dev/null || echo "Can\'t find service: $1"')
    (phone.bin / "battery").write_text(TEXTS["on battery"])
    (phone.bin / "power").write_text(TEXTS["lit"])
    (phone.bin / "thermalservice").write_text(TEXTS["Samsung A52 5G, Android 12"])


# addresses


@pytest.mark.parametrize("serial", ["R58M12ABCDE", "12345", "emulator-5554", "10.0.0.7:5555", "[fe80::1%eth0]:5555"])
def test_a_phone_is_named_by_its_serial(serial: str) -> None:
    assert parse_host(f"adb:{serial}", "--host") == AdbAddress(serial)
    assert str(AdbAddress(serial)) == f"adb:{serial}"


@pytest.mark.parametrize("text", ["adb:", "adb:-s", "adb:a b", "adb:$(id)", "adb:a\nb"])
def test_what_is_no_serial_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match="is no phone; expected adb:SERIAL"):
        parse_host(text, "--host")


def test_a_phone_can_be_written_into_devices_toml(no_devices: Path) -> None:
    add_device("bench-phone", "adb:R58M12ABCDE", "pixel8")
    assert resolve_host("pixel8", None) == AdbAddress("R58M12ABCDE")
    assert resolve_host("pixel8", "adb.local:22") == Address("adb.local", None, 22)
    with pytest.raises(UsageError, match="a phone has no host key; it asks on its screen"):
        fetch_host_key("adb:R58M12ABCDE")


# what adb says


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", "allow USB debugging"),
        ("error: device offline", "plug it in again"),
        ("error: device 'x' not found", "no such phone"),
        ("adb: no devices/emulators found", "no such phone"),
        ("error: insufficient permissions for device: user in plugdev group; no permissions", "may not use the USB"),
        ("error: closed", r"the connection was lost; .* run the same command again \(error: closed\)"),
        ("", r"the connection was lost; .* \(nothing was said\)"),
    ],
)
def test_what_adb_says_is_explained(said: str, meaning: str) -> None:
    with pytest.raises(ConnectionFailed, match=meaning):
        raise ConnectionFailed(explain(Completed(1, b"", said)))


def test_without_adb_it_is_told_what_to_install(no_devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(no_devices))
    with pytest.raises(ConnectionFailed, match="adb:x: adb is not installed here; on Debian: apt install adb"):
        connect_adb(AdbAddress("x"))


def fake_adb(folder: Path, text: str) -> AdbTransport:
    path = folder / "adb"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return AdbTransport(AdbAddress("x"), str(path))


def test_an_end_without_its_marker_is_a_lost_link_whatever_the_exit_code(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match="adb:x: the connection was lost"):
        fake_adb(tmp_path, "echo out; exit 0").run(["true"], timeout_s=5)


def test_a_phone_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match=r"adb:x: no output for 0\.3 s"):
        fake_adb(tmp_path, "sleep 600").run(["true"], timeout_s=0.3)


def test_an_old_android_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_adb(tmp_path, "echo cmd")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConnectionFailed, match="Android 7 or newer is needed"):
        connect_adb(AdbAddress("x"))


def test_an_adb_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "CONNECT_S", 0.3)
    fake_adb(tmp_path, "exec sleep 600")
    assert call_adb([str(tmp_path / "adb")]).stderr == "no answer within 0.3 s"


# heat


class Says:
    """A phone that answers one text after the other, the last again and again."""

    host, name, host_key = "adb:x", "adb", "adb serial x"

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def run(self, command: Any, **more: Any) -> Completed:
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        return Completed(0, f"== thermal\n{text}\n== end\n".encode(), "")


def test_a_warm_phone_cools_down_first_or_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.device.phone.benchmark.COOLING_POLL_S", 0.0)
    hot, cool = TEXTS["the same layout, hot"], TEXTS["Samsung A52 5G, Android 12"]
    protocol, told = replace(QUICK, start_temperature_c=45.0), list[str]()
    assert cool_down(Says(hot, hot, cool), protocol, told.append) is None  # type: ignore[arg-type]
    assert told == ["cooling down: 91.4 C, wanted 45 C"] * 2
    assert cool_down(Says(hot), replace(protocol, max_cooldown_s=0.0), told.append) == 91.4  # type: ignore[arg-type]
    assert told[-1] == "still 91.4 C, wanted 45 C: gave up after 0 s"
    assert cool_down(Says(hot), QUICK, told.append) is None  # type: ignore[arg-type]
    with pytest.raises(RemoteError, match="adb:x: start_temperature_c: it does not tell its temperature"):
        cool_down(Says(""), protocol, told.append)  # type: ignore[arg-type]


# a real adbd


@device
def test_arguments_reach_the_phone_as_they_are(link: AdbTransport) -> None:
    hostile = ["a b", "$HOME", "`id`", "'; touch pwned; '", '"', "*", "\\", "", "ü", "-n", "a\nb"]
    lines: list[str] = []
    done = link.run(["printf", "%s|", *hostile], timeout_s=10, on_line=lines.append)
    assert done.stdout.decode() == "".join(f"{one}|" for one in hostile)
    assert "\n".join(lines) == done.stdout.decode()


@device
def test_much_input_output_and_noise_do_not_block(link: AdbTransport) -> None:
    script = "wc -c; head -c 5000000 /dev/zero >&2; head -c 5000000 /dev/zero; pwd; exit 7"
    done = link.run(["sh", "-c", script], stdin=b"x" * 5_000_000, timeout_s=30)
    assert (done.exit_code, len(done.stderr), done.stdout[:8]) == (7, 5_000_000, b"5000000\n")
    assert done.stdout.endswith(b"\0/data/local/tmp\n")


@device
def test_a_file_goes_and_comes_back_whole(link: AdbTransport, phone: Phone, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(3 << 20))
    remote = "we ird/it's $HOME;x"
    link.put(source, remote)
    place = phone.tmp / remote
    node = place.stat().st_ino
    link.put(source, remote)
    assert (place.stat().st_ino, place.stat().st_mode & 0o777) == (node, 0o600)
    link.get(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes() == place.read_bytes()
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    with pytest.raises(DeviceError, match=r"/no/file cannot be read: .*No such file"):
        link.get("/no/file", tmp_path / "none")


@device
def test_a_phone_with_python_is_measured_by_the_agent(phone: Phone, tmp_path: Path) -> None:
    lend_python(phone)
    lend_benchmark(phone, "")
    model = make_model(tmp_path, "litert")
    with open_device(TARGET, phone.host) as board:
        assert (board.facts.host, board.facts.host_key) == (phone.host, f"adb serial {phone.serial}")
        one = measure_models(board, [model], 1, QUICK, ignore)[model.name]
        outputs = evaluate_model(board, model, _inputs(), ignore)
    assert len(one.samples_ms) >= QUICK.min_samples
    assert one.conditions.notes == ("screen on", "on battery", "battery 90 %", "thermal status none")
    assert len(outputs) == 2
    assert (phone.tmp / ".cache" / "edgeprune" / "board").is_dir()


def _inputs() -> Any:
    import numpy as np

    return np.zeros((2, 16, 16, 3), np.float32)


@device
def test_a_phone_without_python_is_measured_by_benchmark_model(
    phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lend_benchmark(phone, TEXTS["TensorFlow 2.17"])
    models = [make_model(tmp_path, "litert", precision=precision) for precision in ("fp32", "int8")]
    core = max(os.sched_getaffinity(0))
    facts, measured = measure_files(replace(BARE, cores=(core,)), phone.host, models, Session(), ignore)
    assert (facts.model, facts.cpu, facts.python) == ("Pixel 8", "Tensor G3", "")
    one = measured[models[0].name]
    assert (one.init_ms, one.first_ms, one.peak_memory_mib) == (12.75, 14.744, 18.7227)
    assert one.samples_ms == (13.5202,) * CALLS
    assert one.samples_by_process == dict.fromkeys(range(CALLS), (13.5202,))
    assert (one.problems, one.conditions.affinity) == ((), (core,))
    assert "a sample is the mean of 74 runs, which lie 3.5% apart (standard deviation)" in one.conditions.notes
    calls = (phone.tmp / "called").read_text().splitlines()
    graphs = [word for line in calls for word in line.split() if word.startswith("--graph=")]
    first, second = (f"--graph=edgeprune/{model.file}" for model in models)
    assert graphs == [first, second, second, first] * (CALLS // 2)
    masks = {int(line.split()[1].replace(",", ""), 16) for line in calls if "allowed" in line.lower()}
    assert masks == {1 << core}


@device
def test_a_hot_phone_makes_the_run_invalid(phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lend_benchmark(phone, TEXTS["TensorFlow 2.3, Android"])
    (phone.bin / "thermalservice").write_text(TEXTS["the same layout, hot"])
    model = make_model(tmp_path, "litert")
    _, measured = measure_files(BARE, phone.host, [model], Session(), ignore)
    assert measured[model.name].problems == ("throttled: thermal status moderate",)
    assert measured[model.name].conditions.temperature_c == (91.4, 91.4)


@device
@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("ERROR: Failed to load model net.tflite\nERROR: Benchmarking failed.", RemoteError, "Benchmarking failed"),
        ("", RemoteError, r"benchmark_model failed \(exit code 0\)"),
    ],
)
def test_what_a_phone_lacks_is_told(
    text: str, kind: type[Exception], said: str, phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeMissing, match="neither Python nor benchmark_model is there; put TFLite's"):
        measure_files(BARE, phone.host, [make_model(tmp_path, "litert")], Session(), ignore)
    lend_benchmark(phone, text)
    with pytest.raises(kind, match=said):
        measure_files(BARE, phone.host, [make_model(tmp_path, "litert")], Session(), ignore)
    with pytest.raises(RemoteError, match=r"without Python only \.tflite files run there"):
        measure_files(BARE, phone.host, [make_model(tmp_path, "onnxruntime")], Session(), ignore)


@device
def test_a_phone_that_is_not_there_is_told(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionFailed, match="adb:nope: no such phone"):
        connect_adb(AdbAddress("nope"))
    phone.stop()
    with pytest.raises(ConnectionFailed, match=r"adb:10\.213\.58\.2:5555: cannot be reached; is wireless debugging on"):
        connect_adb(AdbAddress(phone.serial))


@device
@pytest.mark.parametrize("way", ["adbd killed", "cable cut", "shell killed"])
def test_a_command_that_loses_its_phone_ends_and_can_be_run_again(way: str, phone: Phone) -> None:
    """A killed adbd gives exit code 0 and no output, a cut cable nothing at all."""
    link = connect_adb(AdbAddress(phone.serial))
    begun = time.monotonic()
    threading.Timer(0.5, lose, (way, phone)).start()
    with pytest.raises(ConnectionFailed, match=f"{phone.host}: (the connection was lost|no output for 3 s)"):
        link.run(["sh", "-c", "echo begun; sleep 60"], timeout_s=3)
    assert time.monotonic() - begun < 30
    if way == "cable cut":
        phone.cable.plug()
    elif way == "adbd killed":
        phone.start()
    again = connect_adb(AdbAddress(phone.serial))
    assert again.run(["echo", "here"], timeout_s=10).stdout == b"here\n"


def lose(way: str, phone: Phone) -> None:
    if way == "cable cut":
        phone.cable.cut()
    elif way == "adbd killed":
        phone.stop()
    else:
        for stat in Path("/proc").glob("[0-9]*/cmdline"):
            words = stat.read_bytes().split(b"\0") if stat.exists() else []
            if b"echo begun; sleep 60" in b" ".join(words) and b"adb" not in words[0] and b"-s" not in words:
                os.kill(int(stat.parent.name), signal.SIGKILL)


@device
def test_an_upload_that_is_cut_leaves_nothing_behind(phone: Phone, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(20 << 20))
    phone.cable.slow(8000)
    link = connect_adb(AdbAddress(phone.serial))
    adb_short = pytest.MonkeyPatch()
    adb_short.setattr("edgeprune.device.transports.commands.SHORT_S", 3.0)
    threading.Timer(2.0, phone.cable.cut).start()
    try:
        with pytest.raises(ConnectionFailed):
            link.put(source, "file")
    finally:
        adb_short.undo()
    assert not (phone.tmp / "file").exists()
    phone.stop()
    end = time.monotonic() + 10
    while list(phone.tmp.glob("file*")):
        assert time.monotonic() < end, list(phone.tmp.glob("file*"))
        time.sleep(0.05)
    phone.cable.plug()
    phone.start()
    source.write_bytes(os.urandom(1 << 18))
    connect_adb(AdbAddress(phone.serial)).put(source, "file")
    assert (phone.tmp / "file").read_bytes() == source.read_bytes()


@device
def test_a_full_phone_is_told_with_its_space(phone: Phone, link: AdbTransport, tmp_path: Path) -> None:
    if shutil.disk_usage(phone.tmp).free > 1 << 40:
        pytest.skip("this disk is too large to be full")
    source = tmp_path / "file"
    source.write_bytes(b"x")
    looked = link._check
    link._check = lambda remote: (looked(remote)[0], 0)  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match=rf"{phone.host}: no space for file: it needs 1 B, 0 B are free"):
        link.put(source, "file")
