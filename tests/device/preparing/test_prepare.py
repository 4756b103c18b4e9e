"""What a board is brought to before it is timed: cores, governor and temperature, and that the governor comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from device_models import QUICK, ignore, make_model
from device_trees import write_tree
from edgeprune_agent import parsers, prepare
from edgeprune_agent.errors import AgentError
from places import RECORDS
from ssh_server import SshServer, why_not

from edgeprune.core.target import Target
from edgeprune.device.agent.client import pack_agent
from edgeprune.device.agent.measure import measure_models, sustain_model
from edgeprune.device.board import ModelFile
from edgeprune.device.connect import open_device
from edgeprune.errors import RemoteError

TREES = json.loads((RECORDS / "governors.json").read_text())
LOCAL = Target("local", "this machine")
HEAT = "/sys/class/thermal/thermal_zone0/temp"
CLOCK_S = 60.0


class Progress:
    """Takes what the agent tells."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def progress(self, text: str) -> None:
        self.said.append(text)


class Board:
    """A recorded tree, and an agent that reads and writes it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.root = Path(write_tree(folder / "tree", TREES[name]["files"]))
        self.place = folder / "board"
        self.place.mkdir()
        self.path = self.place / "agent-0.pyz"
        self.path.write_bytes(pack_agent())

    @property
    def governors(self) -> list[str]:
        found = sorted(self.root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"))
        return [path.read_text().strip() for path in found]

    def give(self, model: ModelFile) -> None:
        (self.place / "models").mkdir(exist_ok=True)
        (self.place / "models" / model.file).write_bytes(model.path.read_bytes())

    def start(self, request: dict[str, Any]) -> subprocess.Popen[str]:
        command = [sys.executable, "-I", "-B", str(self.path), "--root", str(self.root)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        process.stdin.write(json.dumps(request))
        process.stdin.close()
        return process

    def ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        process = self.start(request)
        assert process.stdout is not None
        events = [json.loads(line) for line in process.stdout]
        process.stdout.close()
        process.wait(timeout=60)
        return events


def measure_request(model: ModelFile, **more: Any) -> dict[str, Any]:
    request = {"command": "measure", "models": [model.to_request()], "archive": None, "sizes": {}, "threads": 1}
    protocol = {"rounds": 4, "processes": 2, "min_samples": 20, "min_duration_s": 0.02, "max_warmup_s": 0.1}
    return {**request, **protocol, **more}


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + CLOCK_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


# the governor


@pytest.mark.parametrize("name", ["rpi4", "pixel"])
def test_the_governor_is_performance_meanwhile_and_set_back(name: str, tmp_path: Path) -> None:
    board, model = Board(tmp_path, name), make_model(tmp_path, "onnxruntime")
    before = board.governors
    board.give(model)
    *_, result, end = board.ask(measure_request(model, set_governor=True))
    assert (result["conditions"]["governor"], end) == ("performance", {"event": "end"})
    assert board.governors == before
    assert not (board.place / "governor.json").exists()


def test_without_being_asked_the_governor_is_left_alone(tmp_path: Path) -> None:
    board, model = Board(tmp_path, "rpi4"), make_model(tmp_path, "onnxruntime")
    board.give(model)
    *_, result, _ = board.ask(measure_request(model))
    assert result["conditions"]["governor"] == "ondemand"


def sustained(board: Board, model: ModelFile) -> subprocess.Popen[str]:
    """An agent at work for long, under the governor performance."""
    board.give(model)
    process = board.start({**measure_request(model, set_governor=True), "command": "sustain", "duration_s": 600})
    wait_for(lambda: set(board.governors) == {"performance"})
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_agent_that_is_killed_leaves_the_governor_as_it_was(number: signal.Signals, tmp_path: Path) -> None:
    board = Board(tmp_path, "pixel")
    before = board.governors
    with sustained(board, make_model(tmp_path, "onnxruntime")) as process:
        process.send_signal(number)
        process.wait(timeout=60)
        wait_for(lambda: board.governors == before and not (board.place / "governor.json").exists())


def kill_all(board: Board, process: subprocess.Popen[str]) -> None:
    """Kill the agent and, before, the guard that would set the governor back."""
    wait_for((board.place / "governor.json").exists)
    os.kill(json.loads((board.place / "governor.json").read_text())["guard"], signal.SIGKILL)
    process.kill()
    process.wait(timeout=60)


def test_the_next_agent_sets_back_what_a_killed_guard_could_not(tmp_path: Path) -> None:
    board = Board(tmp_path, "rpi4")
    before = board.governors
    with sustained(board, make_model(tmp_path, "onnxruntime")) as process:
        kill_all(board, process)
    assert set(board.governors) == {"performance"}
    board.ask({"command": "facts"})
    assert board.governors == before
    assert not (board.place / "governor.json").exists()


def test_after_a_restart_the_boards_own_governor_stays(tmp_path: Path) -> None:
    board = Board(tmp_path, "rpi4")
    record = board.place / "governor.json"
    (path,) = list(board.root.glob("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))
    record.write_text(json.dumps({"boot": "another start", "guard": 1, "before": {str(path): "powersave"}}))
    board.ask({"command": "facts"})
    assert (board.governors[0], record.exists()) == ("ondemand", False)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"boot": 1, "guard": "x", "before": []}', '{"guard": 1e400}'])
def test_a_damaged_record_does_not_stop_the_agent(text: str, tmp_path: Path) -> None:
    board = Board(tmp_path, "rpi4")
    (board.place / "governor.json").write_text(text)
    assert board.ask({"command": "facts"})[-1] == {"event": "end"}
    assert not (board.place / "governor.json").exists()


def test_a_record_names_no_file_that_is_no_governor(tmp_path: Path) -> None:
    board, victim = Board(tmp_path, "rpi4"), tmp_path / "victim"
    victim.write_text("mine")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    record = {"boot": boot, "guard": 2**22 + 1, "before": {str(victim): "powersave"}}
    (board.place / "governor.json").write_text(json.dumps(record))
    board.ask({"command": "facts"})
    assert victim.read_text() == "mine"


def test_a_board_without_a_governor_says_so(tmp_path: Path) -> None:
    board, model = Board(tmp_path, "virtual machine"), make_model(tmp_path, "onnxruntime")
    board.give(model)
    error, end = board.ask(measure_request(model, set_governor=True))
    assert (error["event"], end["event"]) == ("error", "end")
    assert "no frequency governor (a virtual machine?)" in error["message"]


def test_a_governor_that_may_not_be_set_names_the_remedy(tmp_path: Path) -> None:
    board, model = Board(tmp_path, "rpi4"), make_model(tmp_path, "onnxruntime")
    board.give(model)
    last = board.root / "sys/devices/system/cpu/cpu3/cpufreq/scaling_governor"
    last.unlink()
    last.mkdir()
    error, _ = board.ask(measure_request(model, set_governor=True))
    assert "cannot be set to performance: Is a directory; sudo chmod a+w" in error["message"]
    paths = sorted(board.root.glob("sys/devices/system/cpu/cpu[0-2]/cpufreq/scaling_governor"))
    assert [path.read_text().strip() for path in paths] == ["ondemand"] * 3
    last.rmdir()
    last.write_text("ondemand")
    assert board.ask({"command": "facts"})[-1] == {"event": "end"}
    assert not (board.place / "governor.json").exists()


# cores


def test_a_model_runs_on_the_cores_that_are_named(no_devices: Path, tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    model = make_model(tmp_path, "onnxruntime")
    with open_device(replace(LOCAL, cores=(core,)), None) as device:
        one = measure_models(device, [model], 1, QUICK, ignore)[model.name]
    assert one.conditions.affinity == (core,)


@pytest.mark.parametrize("cores", [(1000,), (0, 1000)])
def test_cores_that_a_board_does_not_have_are_told(cores: tuple[int, ...], no_devices: Path, tmp_path: Path) -> None:
    with (
        open_device(replace(LOCAL, cores=cores), None) as device,
        pytest.raises(RemoteError, match=r"cores \[.*1000\] cannot be used"),
    ):
        measure_models(device, [make_model(tmp_path, "onnxruntime")], 1, QUICK, ignore)


@pytest.mark.parametrize(
    ("name", "threads", "cores"),
    [("pixel", 1, [8]), ("pixel", 3, [6, 7, 8]), ("rpi4", 2, [2, 3]), ("rpi4", 9, [0, 1, 2, 3])],
)
def test_the_fastest_cores_are_found(name: str, threads: int, cores: list[int], tmp_path: Path) -> None:
    assert prepare.find_cores("fastest", threads, write_tree(tmp_path, TREES[name]["files"])) == cores


def test_a_board_that_does_not_tell_its_clocks_needs_numbers(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match='cores = "fastest": this board does not tell the clocks'):
        prepare.find_cores("fastest", 1, str(tmp_path))
    assert parsers.pick_fastest({"cpu0": "", "cpu1": "x"}, 1) == []


# temperature


def test_a_warm_board_cools_down_first(tmp_path: Path) -> None:
    root, told = write_tree(tmp_path, TREES["rpi4"]["files"] | {HEAT: "61500\n"}), Progress()
    readings = iter(["52100", "44900"])

    def sleep(seconds: float) -> None:
        Path(root + HEAT).write_text(next(readings))

    request = {"start_temperature_c": 45.0, "max_cooldown_s": 60.0}
    assert prepare.cool_down(request, root, told, sleep) is None
    assert told.said == ["cooling down: 61.5 C, wanted 45 C", "cooling down: 52.1 C, wanted 45 C"]
    assert prepare.cool_down({}, root, told, sleep) is None


def test_a_board_that_stays_warm_is_given_up_and_the_run_is_not_valid(
    no_devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, told = write_tree(tmp_path / "tree", TREES["rpi4"]["files"] | {HEAT: "61500\n"}), Progress()
    request = {"start_temperature_c": 45.0, "max_cooldown_s": 0.001}
    assert prepare.cool_down(request, root, told, lambda seconds: None) == 61.5
    assert told.said[-1] == "still 61.5 C, wanted 45 C: gave up after 0.001 s"
    board, model = Board(tmp_path, "rpi4"), make_model(tmp_path, "onnxruntime")
    board.give(model)
    *_, result, _ = board.ask(measure_request(model, **{**request, "start_temperature_c": 1.0}))
    with open_device(LOCAL, None) as device:
        monkeypatch.setattr("edgeprune.device.agent.measure.call_agent", lambda agent, asked, say: [result])
        one = measure_models(device, [model], 1, QUICK, ignore)[model.name]
    assert [problem for problem in one.problems if "cooled" in problem] == ["not cooled down: began at 48.199 C"]


def test_a_board_without_a_sensor_cannot_cool_down(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="start_temperature_c: this board does not tell its temperature"):
        prepare.cool_down({"start_temperature_c": 45.0, "max_cooldown_s": 1.0}, str(tmp_path), Progress())


# for long


def test_a_sustained_run_tells_its_windows(no_devices: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path, "onnxruntime")
    with open_device(LOCAL, None) as device:
        run = sustain_model(device, model, LOCAL, 4, ignore)
    assert 6 <= len(run.windows) <= 9
    assert [one.at_s for one in run.windows] == sorted(one.at_s for one in run.windows)
    assert run.windows[-1].at_s >= 4
    for one in run.windows:
        assert one.count >= 1
        assert 0 < one.min_ms <= one.p50_ms <= one.p95_ms <= one.max_ms
    assert (run.model, run.conditions.threads, run.conditions.too_warm_c) == (model.name, 1, None)


def test_a_sustained_run_that_is_too_short_is_told(no_devices: Path, tmp_path: Path) -> None:
    with (
        open_device(LOCAL, None) as device,
        pytest.raises(RemoteError, match=r"of the sustained run is not whole: .* a sustained run needs 6"),
    ):
        sustain_model(device, make_model(tmp_path, "onnxruntime"), LOCAL, 1, ignore)


# the client, over SSH

TARGET = """
description = "a board of the tests"
threads = 1
[protocol]
min_duration_s = 300
rounds = 100
"""
ENTER = """
set -e
cp -r --no-dereference /sys/devices/system/cpu "$1" 2>/dev/null || true
mkdir -p "$1/cpu0/cpufreq"
echo ondemand > "$1/cpu0/cpufreq/scaling_governor"
mount --bind "$1" /sys/devices/system/cpu
shift
exec "$@"
"""
"""Gives the server in its own mount namespace a governor, in folder $1."""


@dataclass
class GovernedServer(SshServer):
    """A board whose first core has a governor."""

    def command(self) -> list[str]:
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]
        return [*enter, str(self.folder / "cpu"), *super().command()]

    @property
    def governor(self) -> str:
        return (self.folder / "cpu" / "cpu0" / "cpufreq" / "scaling_governor").read_text().strip()


@pytest.mark.device
def test_a_client_that_is_killed_leaves_the_governor_as_it_was(
    no_devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why_not() or os.geteuid() != 0:
        pytest.skip(why_not() or "needs root, for a mount namespace")
    server = GovernedServer(tmp_path / "ssh")
    server.lend_runtimes()
    monkeypatch.setenv("HOME", str(server.home))
    (tmp_path / "board.toml").write_text(TARGET)
    model = make_model(tmp_path, "onnxruntime").path
    server.start()
    try:
        command = [sys.executable, "-m", "edgeprune.cli", "measure", str(model), "--set-governor"]
        with subprocess.Popen([*command, "--target", str(tmp_path / "board.toml"), "--host", "board"]) as client:
            wait_for(lambda: server.governor == "performance")
            client.kill()
            client.wait()
        wait_for(lambda: server.governor == "ondemand")
        wait_for(lambda: not list(server.board.rglob("governor.json")))
    finally:
        server.stop()
