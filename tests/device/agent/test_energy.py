"""The energy run, end to end on this machine, with meters that a test plays; and what is refused before it."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from busy import busy_loops
from device_models import LINEAR, ignore, make_model
from device_trees import write_tree
from edgeprune_agent import energy as board_side
from edgeprune_agent.events import Events
from hypothesis import given, settings
from hypothesis import strategies as st
from places import RECORDS

from edgeprune.core.boards import neighbours
from edgeprune.core.measuring.energy import Energy, parse_windows
from edgeprune.core.measuring.measurement import Conditions, Measurement, Protocol, add_energy, parse_measurement
from edgeprune.core.planning.budget import Budget
from edgeprune.core.planning.limits import Costs
from edgeprune.core.releasing.document import Figures, gate_figures
from edgeprune.core.releasing.gate import FAIL, INCONCLUSIVE, PASS, Gate, judge
from edgeprune.core.target import HERE, METERS, ON_DEVICE, PLUGS, PowerSource, Target, parse_target
from edgeprune.device import meters
from edgeprune.device.agent import energy
from edgeprune.device.agent.client import EventReader, pack_agent
from edgeprune.device.agent.energy import Alignment, check_meter, measure_energy
from edgeprune.device.connect import Device, open_device
from edgeprune.device.transports.transport import Completed
from edgeprune.errors import DeviceError, RemoteError, TargetError

METER_RECORDS = json.loads((RECORDS / "meters.json").read_text())
PLUG_RECORDS = json.loads((RECORDS / "plugs.json").read_text())
SHORT = Protocol(min_samples=20, min_duration_s=0.3, rounds=2, max_warmup_s=0.1)
LOCAL = Target("local", "this machine", protocol=SHORT)
GATED = replace(LOCAL, gates=(Gate("energy_mj", at_most=1.0),))
PRINTER = """
import time
begun = time.monotonic()
while True:
    at = time.monotonic() - begun
    print(f"{at + 1000},{2 + at % 0.01}", flush=True)
    time.sleep(0.005)
"""
untimed = settings(deadline=None)


@pytest.fixture(autouse=True)
def not_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests run beside these; what that does to a figure is a matter of test_core_energy.py."""
    monkeypatch.setattr(neighbours, "OTHERS_LIMIT", math.inf)


@pytest.fixture
def device(no_devices: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.delenv(meters.PLUG_VARIABLE, raising=False)
    with open_device(LOCAL, None) as device:
        yield device


@contextmanager
def plug(answer: Callable[[str], str]) -> Iterator[str]:
    """A plug on this machine that answers a path; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = answer(self.path).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("record", PLUG_RECORDS, ids=lambda record: str(record["board"]))
def test_a_plug_is_asked_as_it_expects_and_its_power_read(record: dict[str, Any]) -> None:
    asked: list[str] = []

    def answer(path: str) -> str:
        asked.append(path)
        return str(record["answer"])

    with plug(answer) as address:
        if record["watts"] is None:
            with pytest.raises(ValueError, match="the plug's answer"):
                meters.read_plug(address, meters.PLUG_KINDS[record["meter"]])
        else:
            assert meters.read_plug(address, meters.PLUG_KINDS[record["meter"]]) == record["watts"]
    assert asked == [record["path"]]


answers = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.sampled_from(["apower", "StatusSNS", "ENERGY", "Power"]), inner, max_size=3),
)


@untimed
@given(answers.map(json.dumps) | st.text(max_size=50))
def test_no_answer_upsets_a_plugs_parser(text: str) -> None:
    for kind in meters.PLUG_KINDS.values():
        try:
            assert isinstance(kind.parse(text), float)
        except ValueError:
            continue


def test_every_plug_of_a_target_can_be_asked() -> None:
    assert set(meters.PLUG_KINDS) == set(PLUGS)


@untimed
@given(st.floats(-1e9, 1e9), st.floats(-1e3, 1e3), st.text(max_size=20))
def test_a_commands_lines_are_readings_or_nothing(seconds: float, watts: float, text: str) -> None:
    assert meters.parse_reading(f"{seconds!r}, {watts!r}\n") == (seconds, watts)
    assert meters.parse_reading(text) is None or "," in text


def test_the_mark_with_the_least_delay_relates_the_clocks() -> None:
    assert Alignment([(10.0, 110.5), (12.0, 112.02), (15.0, 116.0)]).ahead_s == pytest.approx(100.02)


def test_marks_are_told_and_broken_ones_are_not() -> None:
    told: list[float] = []
    reader = EventReader("board", ignore, told.append)
    for row in ({"at_s": 1.5}, {"at_s": "x"}, {}, {"at_s": 2}):
        reader.feed(json.dumps({"event": "mark", **row}))
    reader.feed('{"event": "end"}')
    assert (reader.finish(Completed(0, b"", "")), told) == ([], [1.5, 2.0])


def test_a_board_without_a_sensor_has_no_energy_and_says_so(device: Device, tmp_path: Path) -> None:
    if device.facts.power_meter != "no power sensor":
        pytest.skip("this machine has a power sensor")
    assert check_meter(device, LOCAL) == "no power sensor"
    assert measure_energy(device, [make_model(tmp_path, "onnxruntime")], LOCAL, ignore) == {}
    with pytest.raises(TargetError, match=r"a gate on energy_mj, but local has no power sensor: on x86 let RAPL be"):
        check_meter(device, GATED)
    with pytest.raises(TargetError, match=r"a budget of energy_mj, but local has no power sensor"):
        check_meter(device, replace(LOCAL, budget=Budget(speedup=2.0, energy_mj=1.0)))
    with pytest.raises(TargetError, match=r"meter = 'jetson': local: no power sensor; "):
        check_meter(device, replace(LOCAL, power=PowerSource("jetson")))


@pytest.mark.parametrize("where", [HERE, ON_DEVICE])
def test_a_command_is_followed_while_a_model_loops(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The command's power does not follow the model, so there is nothing above idle: the run says just that."""
    monkeypatch.setattr(meters, "COMMAND_WINDOW_S", 1.0)
    source = PowerSource("command", command=(sys.executable, "-c", PRINTER), where=where)
    target, model, said = replace(GATED, power=source), make_model(tmp_path, "onnxruntime"), list[str]()
    assert check_meter(device, target) == f"command {sys.executable}"
    found = measure_energy(device, [model], target, said.append)[model.name]
    assert (found.kind, found.energy_mj) == ("command", None)
    assert found.reason.startswith("not measurable: ")
    assert found.inferences > 0
    assert found.duration_s >= 1
    if "silent" not in found.reason:
        assert "W above idle is within the uncertainty of" in found.reason
        assert found.power_w == pytest.approx(2.005, abs=0.005)
        assert found.samples > 20
    assert f"energy of {model.name}: 1 s" in said


def test_a_plug_sees_what_two_models_draw(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's plug draws 2 W, and 3 W more from the announcement of a model to the end of its window."""
    monkeypatch.setattr(meters, "PLUG_POLL_S", 0.02)
    monkeypatch.setattr(meters, "PLUG_WINDOW_S", 1.0)
    watts, marks = [2.0], list[float]()

    def say(text: str) -> None:
        if text.startswith("energy of"):
            watts[0] = 5.0

    call = energy.ask_agent

    def ask_agent(agent: Any, request: Any, progress: Any, on_mark: Any = ignore) -> Any:
        def mark(at_s: float) -> None:
            on_mark(at_s)
            marks.append(at_s)
            if len(marks) % 4 == 0:
                watts[0] = 2.0

        return call(agent, request, progress, mark)

    monkeypatch.setattr(energy, "ask_agent", ask_agent)
    models = [make_model(tmp_path, "onnxruntime"), make_model(tmp_path, "onnxruntime", LINEAR)]
    with plug(lambda path: json.dumps({"apower": watts[0]})) as address:
        monkeypatch.setenv(meters.PLUG_VARIABLE, address)
        target = replace(GATED, power=PowerSource("shelly"))
        assert check_meter(device, target) == "shelly plug"
        found = measure_energy(device, models, target, say)
    assert list(found) == [model.name for model in models]
    assert len(marks) == 10
    for one in found.values():
        assert one.sees == "what the power supply draws from the wall, its losses included"
        if one.energy_mj is not None:
            assert one.energy_mj * one.inferences / one.duration_s == pytest.approx(3000, rel=0.1)
        else:
            assert "not measurable: " in one.reason


def test_the_agent_reads_the_boards_own_meter_while_models_loop(tmp_path: Path) -> None:
    """The recorded board stands still, so what is checked is that its meter was read all the while."""
    agent, tree = tmp_path / "board" / "agent.pyz", tmp_path / "tree"
    (tmp_path / "board" / "models").mkdir(parents=True)
    agent.write_bytes(pack_agent())
    record = next(one for one in METER_RECORDS if one["meter"] == "INA3221 VDD_IN")
    model = make_model(tmp_path, "onnxruntime")
    (tmp_path / "board" / "models" / model.file).write_bytes(model.path.read_bytes())
    request = {"command": "energy", "models": [model.to_request()], "archive": None, "threads": 1, "seconds": 0.6}
    request |= {"meter": "auto", "sensor": ""}
    reader = EventReader("board", ignore)
    command = [sys.executable, "-I", "-B", str(agent), "--root", write_tree(tree, record["files"])]
    with busy_loops(1):
        done = subprocess.run(
            command, input=json.dumps(request), capture_output=True, text=True, timeout=60, check=True
        )
    for line in done.stdout.splitlines():
        reader.feed(line)
    (row,) = reader.finish(Completed(0, b"", ""))
    assert row["meter"]["name"] == "INA3221 VDD_IN"
    windows = parse_windows(row["windows"])
    assert [window.name for window in windows] == ["", model.name, ""]
    assert windows[0].end_s < windows[1].begin_s < windows[1].end_s < windows[2].begin_s
    assert all(value == pytest.approx(record["watts"]) for _, _, value in row["arrivals"])
    assert row["arrivals"][0][0] < windows[0].begin_s
    assert row["arrivals"][-1][0] > windows[2].end_s - 0.2
    assert all((window.others_cores or 0) > 0.3 and window.cores == os.cpu_count() for window in windows)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("no-such-meter",), "no-such-meter: No such file"),
        ((sys.executable, "-c", "print('hello')"), "no reading: the command ended with exit code 0; expected lines"),
    ],
)
def test_a_command_that_does_not_measure_is_refused_before_anything_runs(
    device: Device, command: tuple[str, ...], said: str
) -> None:
    with pytest.raises(TargetError, match=said):
        check_meter(device, replace(LOCAL, power=PowerSource("command", command=command)))


ODD = """
import itertools, sys, time
for at in itertools.count():
    now = time.monotonic()
    print(f"{eval(sys.argv[1])},{eval(sys.argv[2])}", flush=True)
    time.sleep(0.01)
"""


@pytest.mark.parametrize("where", [HERE, ON_DEVICE])
@pytest.mark.parametrize(
    ("seconds", "watts", "said"),
    [
        ("now * 1000", "2.5", "are they milliseconds"),
        ("7", "2.5", "stand still at 7"),
        ("at % 50", "2.5", "jump back, from 49 to 0"),
        ("now", "2003", "2003 W, more than any board draws: are these milliwatts"),
        ("now", "-3", "less than nothing"),
    ],
)
def test_a_meter_that_cannot_be_believed_is_refused_before_anything_runs(
    device: Device, where: str, seconds: str, watts: str, said: str
) -> None:
    command = (sys.executable, "-c", ODD, seconds, watts)
    target = replace(LOCAL, power=PowerSource("command", command=command, where=where))
    with pytest.raises(TargetError, match=rf"\[power\] .*command {sys.executable}: .*{said}"):
        check_meter(device, target)


@pytest.mark.slow
@pytest.mark.parametrize("where", [HERE, ON_DEVICE])
def test_a_meter_that_goes_wrong_later_gives_a_reason_and_no_figure(device: Device, tmp_path: Path, where: str) -> None:
    command = (sys.executable, "-c", ODD, "now if at < 150 else now - 100", "2.5")
    target = replace(LOCAL, power=PowerSource("command", command=command, where=where))
    assert check_meter(device, target) == f"command {sys.executable}"
    (found,) = measure_energy(device, [make_model(tmp_path, "onnxruntime")], target, ignore).values()
    assert found.energy_mj is None
    assert "its seconds jump back" in found.reason


def test_a_plug_that_tells_too_much_is_refused(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    with plug(lambda path: json.dumps({"apower": 2003.0})) as address:
        monkeypatch.setenv(meters.PLUG_VARIABLE, address)
        with pytest.raises(TargetError, match="shelly plug: it says 2003 W"):
            check_meter(device, replace(LOCAL, power=PowerSource("shelly")))


def test_a_command_that_does_not_start_on_the_device_is_said_so(device: Device, tmp_path: Path) -> None:
    target = replace(LOCAL, power=PowerSource("command", command=("no-such-meter",), where=ON_DEVICE))
    with pytest.raises(RemoteError, match=r"local: .*no-such-meter: No such file"):
        measure_energy(device, [make_model(tmp_path, "onnxruntime")], target, ignore)


@pytest.mark.parametrize("address", ["", "192.0.2.7", "ftp://192.0.2.7"])
def test_a_plug_needs_an_address(device: Device, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv(meters.PLUG_VARIABLE, address)
    with pytest.raises(TargetError, match=r"expected where the plug is, as EDGEPRUNE_PLUG=http://192\.0\.2\.7"):
        check_meter(device, replace(LOCAL, power=PowerSource("tasmota")))


def test_a_plug_that_does_not_answer_is_refused(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    with plug(lambda path: "") as address:
        pass
    monkeypatch.setenv(meters.PLUG_VARIABLE, address)
    with pytest.raises(TargetError, match=r"shelly plug: no reading: .*refused.*; expected a plug at that address"):
        check_meter(device, replace(LOCAL, power=PowerSource("shelly")))


def test_an_energy_run_that_is_not_whole_is_an_error(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path, "onnxruntime")
    target = replace(LOCAL, power=PowerSource("rapl"))
    for row in ({"meter": None}, {"meter": {"name": "x"}}, {"meter": 7, "windows": 3}):
        monkeypatch.setattr(energy, "push_models", lambda device, models: {})
        monkeypatch.setattr(energy, "ask_agent", lambda *arguments, row=row: row)
        with pytest.raises(DeviceError, match="local: "):
            measure_energy(device, [model], target, ignore)


def figures(found: Energy | None) -> Figures:
    taken = Measurement("a", "", "onnxruntime", "1", "f", Conditions(threads=1), 1.0, 1.0, 10, (1.0, 1.1), None)
    with_energy = add_energy({"a": taken}, {"a": found} if found else {})["a"]
    return Figures(Any, with_energy, 90.0, 10, Costs(1, 1, 1, 1))  # type: ignore[arg-type]


def energy_of(value: float | None, error: float = 1.0, reason: str = "") -> Energy:
    return Energy("RAPL package-0", "rapl", "packages", value, error, 5.0, 2.0, 2.0, 100, 100, 50.0, reason)


@pytest.mark.parametrize(
    ("found", "outcome", "reason"),
    [
        (energy_of(28.0), PASS, "28 [27, 29] <= 30"),
        (energy_of(29.5), INCONCLUSIVE, "29.5 [28.5, 30.5] is too near to the limit 30 to tell"),
        (energy_of(33.0), FAIL, "33 [32, 34] is not <= 30"),
        (energy_of(None, 0, "not measurable: 9 readings"), INCONCLUSIVE, "not measurable: 9 readings"),
        (None, INCONCLUSIVE, "energy_mj was not measured"),
    ],
)
def test_a_gate_looks_at_the_energy_with_its_uncertainty(found: Energy | None, outcome: str, reason: str) -> None:
    one = figures(found)
    artifact = type("File", (), {"bytes": 1, "path": "a", "sram_bytes": None, "sram_counted": ""})()
    looked_at = gate_figures(replace(one, artifact=artifact))
    result = judge(Gate("energy_mj", at_most=30.0), looked_at, {})
    assert (result.outcome, result.reason) == (outcome, reason)


@pytest.mark.parametrize("found", [None, energy_of(28.0), energy_of(None, 0, "not measurable: x")])
def test_a_measurement_with_energy_survives_json(found: Energy | None) -> None:
    measurement = figures(found).measurement
    assert parse_measurement(json.loads(json.dumps(measurement.to_dict()))) == measurement
    assert measurement.energy_mj == (found.energy_mj if found else None)
    assert measurement.power == ("no power sensor" if found is None else found.reason or "RAPL package-0")


@pytest.mark.parametrize(
    ("table", "source"),
    [
        ({}, PowerSource()),
        ({"meter": "hwmon", "sensor": "1-0041"}, PowerSource("hwmon", "1-0041")),
        ({"meter": "tasmota"}, PowerSource("tasmota")),
        ({"meter": "command", "command": ["ppk", "-x"]}, PowerSource("command", "", ("ppk", "-x"), HERE)),
        ({"meter": "command", "command": ["a"], "where": "device"}, PowerSource("command", "", ("a",), ON_DEVICE)),
    ],
)
def test_a_target_names_its_meter(table: dict[str, Any], source: PowerSource) -> None:
    assert parse_target({"description": "x", "power": table}, "x", "x.toml").power == source


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"meter": "rpi"}, r"x.toml: power: meter: 'rpi' is not known; did you mean 'rpi5'\?"),
        ({"metre": "rapl"}, r"unknown key 'metre'; did you mean 'meter'\?"),
        ({"meter": "command"}, "belong together"),
        ({"command": ["x"]}, "belong together"),
        ({"meter": "command", "command": "ppk -x"}, "expected a list of words"),
        ({"meter": "command", "command": [""]}, "expected a list of words"),
        ({"meter": "rapl", "sensor": "x"}, 'only meter = "hwmon" has several'),
        ({"meter": "rapl", "where": "here"}, 'only meter = "command" has one'),
        ({"meter": "command", "command": ["x"], "where": "there"}, "'there' is not known"),
        ({"meter": 7}, "has the wrong type"),
        (7, "expected a table"),
    ],
)
def test_a_target_with_an_impossible_meter_is_refused(table: Any, said: str) -> None:
    with pytest.raises(TargetError, match=said):
        parse_target({"description": "x", "power": table}, "x", "x.toml")


values = st.sampled_from([*METERS, "here", "device", ""]) | st.lists(st.text(max_size=3), max_size=2) | st.integers()


@untimed
@given(st.dictionaries(st.sampled_from(["meter", "sensor", "command", "where", "other"]), values))
def test_any_power_table_is_a_source_or_a_clear_error(table: dict[str, Any]) -> None:
    try:
        source = parse_target({"description": "x", "power": table}, "x", "x.toml").power
    except TargetError:
        return
    assert source.meter in METERS
    assert bool(source.command) == (source.meter == "command")


def test_no_process_is_left_behind(device: Device) -> None:
    source = PowerSource("command", command=(sys.executable, "-c", "import os; print(f'{os.getpid()},1', flush=True); "
                                             "import time; time.sleep(60)"))  # fmt: skip
    with meters.following(source.command) as log:
        while not log.readings:
            pass
        pid = int(log.arrivals[0].at_s)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert log.lost == ""


def test_a_window_counts_what_ran_in_it_and_not_in_its_margins() -> None:
    calls, written = list[float](), io.StringIO()

    def work(seconds: float) -> int:
        calls.append(seconds)
        time.sleep(0.01)
        return 3

    window = board_side.take_window("net", work, (0.05, 0.3), Events(written))
    assert (calls[0], calls[-1]) == (0.3, 0.3)
    assert window["count"] == 3 * (len(calls) - 2) > 0
    marks = [json.loads(line)["at_s"] for line in written.getvalue().splitlines()]
    assert marks == [window["begin_s"], window["end_s"]]
