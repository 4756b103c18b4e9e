"""The whole line on boards without Python: over a real adbd and a real SSH server, with a stand-in benchmark_model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adb_phone import Phone, fetch_adbd, switched_on
from device_models import CONV, LINEAR, QUICK, ignore, make_model
from line import FOLDER, VERDICTS, command, environment
from native_board import bare_server, write_stand_in
from ssh_server import SshServer, why_not

from edgeprune.core.target import Target
from edgeprune.device.board import ModelFile, ProbeSettings, Session
from edgeprune.device.boards import open_board, reach_board
from edgeprune.device.connect import open_agent
from edgeprune.device.lease import hold_lease, list_leases
from edgeprune.device.phone.board import NativeBoard
from edgeprune.device.transports import adb
from edgeprune.device.transports.address import AdbAddress
from edgeprune.errors import ConnectionFailed, DeviceError, PythonMissing, RuntimeMissing
from edgeprune.exporting.runners import run_file

pytestmark = pytest.mark.device
NATIVE, FEW = FOLDER / "targets" / "native.toml", FOLDER / "recipes" / "few.py"
TARGET = Target("pixel8", "a phone of the tests", runtime="litert", protocol=QUICK)
DEPLOY = """
import sys
import edgeprune as ep
run, host, binary, target, recipe = sys.argv[1:]
deployment = ep.deploy(
    run, print, target=target, recipe=recipe, host=host, benchmark_model=binary, minutes=0.1, allow_busy=True
)
print(deployment.verdict)
"""


@pytest.fixture
def phone(no_devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    """A phone that is on, with Python somewhere in its PATH."""
    debian = fetch_adbd()
    with switched_on(tmp_path / "phone", debian, 57, monkeypatch) as phone:
        yield phone


@pytest.fixture
def bare(no_devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    """A Linux board with the shell and the programs of busybox, and no Python."""
    if why_not():
        pytest.skip(why_not())
    server = bare_server(tmp_path / "ssh", "busybox")
    monkeypatch.setenv("HOME", str(server.home))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[ModelFile]:
    place = tmp_path_factory.mktemp("models")
    return [make_model(place, "litert", shape, precision) for shape in (CONV, LINEAR) for precision in ("fp32", "int8")]


def deploy(run: Path, host: str, binary: Path, cache: Path) -> dict[str, Any]:
    """Run the line in a process of its own, with little time for single layers; its report."""
    words = [sys.executable, "-c", DEPLOY, run, host, binary, NATIVE, FEW]
    completed = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, env=environment(cache), timeout=1800, check=False
    )
    assert completed.returncode == 0, completed.stderr[-2000:]
    assert completed.stdout.split()[-1] in VERDICTS.values()
    return json.loads((run / "report.json").read_text())  # type: ignore[no-any-return]


def check_report(report: dict[str, Any], run: Path) -> None:
    assert report["verdict"] in VERDICTS.values()
    assert report["device"]["python"] == ""
    assert list(report["device"]["runtimes"]) == ["benchmark_model (TFLite)"]
    measurements = json.loads((run / "measurements.json").read_text())
    assert {row["runtime_version"] for row in measurements.values()} == {"benchmark_model (TFLite)"}
    assert {row["peak_memory_mib"] for row in measurements.values()} == {30.5}
    assert report["result"]["artifact"].endswith(".int8.tflite")
    assert report["result"]["runs_per_sample"] > 1
    assert report["result"]["quality"] is not None


@pytest.mark.slow
def test_the_shipped_target_of_a_phone_goes_from_an_empty_folder_to_a_verdict(phone: Phone, tmp_path: Path) -> None:
    """What a user types: `pixel8` pins the fastest core, which a phone tells by its clocks."""
    slow, *_, fast = sorted(os.sched_getaffinity(0))
    phone.tell_clocks({slow: 1700000, fast: 2910000})
    folder, binary = tmp_path / "empty", write_stand_in(tmp_path / "benchmark_model")
    folder.mkdir()
    options = ("--target", "pixel8", "--host", phone.host, "--benchmark-model", binary, "--recipe", FEW)
    words = ("--allow-busy", "--run", "run")
    call = partial(subprocess.run, cwd=folder, capture_output=True, text=True, env=environment(tmp_path / "cache"))
    profiled = call(command("profile", *options, *words, "--minutes", 0.2), timeout=1800, check=False)
    assert profiled.returncode == 0, profiled.stderr[-2000:]
    completed = call(command("deploy", *words), timeout=1800, check=False)
    assert completed.returncode in VERDICTS, completed.stderr[-2000:]
    report = json.loads((folder / "run" / "report.json").read_text())
    assert report["verdict"] == VERDICTS[completed.returncode]
    check_report(report, folder / "run")
    measurements = json.loads((folder / "run" / "measurements.json").read_text())
    assert {tuple(row["conditions"]["affinity"]) for row in measurements.values()} == {(fast,)}


@pytest.mark.slow
def test_the_line_runs_on_a_linux_board_without_python(bare: SshServer, tmp_path: Path) -> None:
    report = deploy(tmp_path / "run", "board", write_stand_in(tmp_path / "benchmark_model"), tmp_path / "cache")
    check_report(report, tmp_path / "run")


def test_a_linux_board_without_python_is_measured_by_what_it_has(bare: SshServer, models: list[ModelFile]) -> None:
    with pytest.raises(RuntimeMissing, match="board: neither Python nor benchmark_model is there; put TFLite's"):
        reach_board(TARGET, "board")
    with pytest.raises(PythonMissing, match="no Python there"):
        reach_board(Target("rpi4", "ONNX Runtime"), "board")
    write_stand_in(bare.board / "benchmark_model")
    assert reach_board(TARGET, "board") == "board"
    with open_board(TARGET, "board") as board:
        assert isinstance(board, NativeBoard)
        assert (board.facts.machine, board.facts.cores) == (os.uname().machine, os.cpu_count())
        inputs = np.random.default_rng(0).standard_normal((4, 16, 16, 3)).astype(np.float32)
        for model in models[:2]:
            np.testing.assert_allclose(board.run(model, inputs, ignore), run_file(model.path, inputs), atol=1e-5)
        assert len(board.time_probes(models, 1, ProbeSettings(budget_s=0.0), ignore)) == len(models)


def test_a_board_without_tar_and_taskset_serves_too(
    no_devices: Path, tmp_path: Path, models: list[ModelFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    if why_not():
        pytest.skip(why_not())
    server = bare_server(tmp_path / "ssh", without=("tar", "taskset"))
    monkeypatch.setenv("HOME", str(server.home))
    server.start()
    try:
        write_stand_in(server.board / "benchmark_model")
        with open_board(TARGET, "board") as board:
            assert len(board.time_probes(models, 1, ProbeSettings(budget_s=0.0), ignore)) == len(models)
        pinned = Target("pixel8", "a phone", runtime="litert", protocol=QUICK, cores=(0,))
        with (
            open_board(pinned, "board") as board,
            pytest.raises(RuntimeMissing, match="there is no `taskset`; leave cores out"),
        ):
            board.time(models[:1], 1, QUICK, ignore)
    finally:
        server.stop()


def test_a_phone_is_held_against_other_machines_whatever_they_measure_by(phone: Phone, tmp_path: Path) -> None:
    session = Session(benchmark_model=str(write_stand_in(tmp_path / "mine")))
    with open_board(TARGET, phone.host, ignore, session), open_agent("pixel8", phone.host, "") as agent:
        assert [lease.reason for lease in list_leases(agent)] == ["target pixel8"]
        said: list[str] = []

        def hold() -> None:
            with pytest.raises(DeviceError) as caught, hold_lease(agent, "by Python", ignore):
                pass
            said.append(str(caught.value))

        thread = threading.Thread(target=hold)
        thread.start()
        thread.join()
        assert f"{phone.host}: in use by" in said[0]
    with open_board(TARGET, phone.host, ignore, session):
        phone.stop()
        phone.start()
    told: list[str] = []
    with open_board(TARGET, phone.host, told.append, session):
        assert "took over the lease of" in told[0]


def test_a_board_is_connected_to_once(phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stand_in(phone.tmp / "benchmark_model")
    connected: list[AdbAddress] = []
    connect = adb.connect_adb
    monkeypatch.setattr(adb, "connect_adb", lambda address: (connected.append(address), connect(address))[1])
    bare = replace(TARGET, python="/no/python")
    with open_board(bare, phone.host) as board:
        assert isinstance(board, NativeBoard)
    assert len(connected) == 1
    reach_board(bare, phone.host)
    assert len(connected) == 2


def _kill(phone: Phone) -> None:
    phone.stop()


def _cut(phone: Phone) -> None:
    phone.cable.cut()


@pytest.mark.parametrize("lose", [_kill, _cut], ids=["adbd killed", "cable cut"])
def test_probes_go_on_after_a_phone_was_lost_in_mid_script(
    lose: Callable[[Phone], None],
    phone: Phone,
    tmp_path: Path,
    models: list[ModelFile],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A killed adbd ends the command with exit code 0 and a part of its output, a cut cable not at all."""
    monkeypatch.setattr("edgeprune.device.phone.calls.SILENCE_S", 3.0)
    session = Session(benchmark_model=str(write_stand_in(tmp_path / "mine")))
    settings = ProbeSettings(rounds=6, budget_s=60.0)

    def watch(text: str) -> None:
        if "turns: about" in text:
            threading.Timer(0.5, lose, (phone,)).start()

    with open_board(TARGET, phone.host, ignore, session) as board, pytest.raises(ConnectionFailed):
        board.time_probes(models, 1, settings, watch)
    phone.cable.plug()
    if phone.process is None:
        phone.start()
    told: list[str] = []
    with open_board(TARGET, phone.host, ignore, session) as board:
        windows = board.time_probes(models, 1, settings, told.append)
    assert re.fullmatch(r"([4-9]|1[0-9]) calls of an interrupted command are kept", told[0])
    assert {len(own) for own in windows.values()} == {6}
