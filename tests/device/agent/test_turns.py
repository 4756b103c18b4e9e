"""Processes that take turns, and whose the processor was meanwhile."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from busy import busy_loops
from device_models import QUICK, ignore, make_model
from device_trees import write_tree
from edgeprune_agent import occupancy, parsers, turns
from edgeprune_agent.errors import AgentError
from edgeprune_agent.events import Events
from edgeprune_agent.timing import Window, take_window
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.measuring.measurement import Conditions, Measurement, Protocol
from edgeprune.core.measuring.pairing import find_ratio
from edgeprune.core.measuring.validity import find_neighbours, find_problems
from edgeprune.core.measuring.windows import Window as CoreWindow
from edgeprune.core.target import Target
from edgeprune.device.agent.client import pack_agent
from edgeprune.device.agent.measure import measure_models
from edgeprune.device.board import ModelFile, Session
from edgeprune.device.boards import reach_board
from edgeprune.device.connect import open_device
from edgeprune.errors import RemoteError

pytestmark = pytest.mark.alone

LOCAL = Target("local", "this machine")
STAT = "cpu  86283 10 10900 711022 574 5 200 40 0 0\ncpu0 20874 0 3519 379704 92 0 51 14 0 0\n"
CPU = "/proc/stat"


# what the kernel says


def test_busy_and_stolen_ticks_are_read_from_stat() -> None:
    assert parsers.parse_busy_ticks(STAT) == (86283 + 10 + 10900 + 5 + 200 + 40, 40)
    assert parsers.parse_busy_ticks("cpu  1 2 3 4 5 6 7\n") == (1 + 2 + 3 + 6 + 7, 0)
    assert parsers.parse_busy_ticks("cpu0 1 2 3 4 5 6 7\n") == (None, None)
    assert parsers.parse_busy_ticks("") == (None, None)


def test_the_stall_of_the_whole_board_is_read() -> None:
    text = "some avg10=0.00 avg60=0.09 avg300=0.10 total=15297683\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    assert parsers.parse_stall_us(text) == 15297683
    assert parsers.parse_stall_us("full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n") is None


def test_a_process_may_have_any_name() -> None:
    row = "1234 (a) b (c) S 1 1234 1234 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 6 7 8"
    assert parsers.parse_process_ticks(row) == (1234, "a) b (c", 300)
    own = parsers.parse_process_ticks(Path("/proc/self/stat").read_text())
    assert own is not None
    assert own[0] == os.getpid()


@given(st.text())
def test_whatever_a_kernel_prints_is_read_or_not_told(text: str) -> None:
    parsers.parse_busy_ticks(text)
    parsers.parse_stall_us(text)
    parsers.parse_process_ticks(text)


def test_what_others_took_is_what_this_process_did_not() -> None:
    before = occupancy.Load(10.0, 1.0, 100.0, 5.0, 0.0)
    after = occupancy.Load(14.0, 4.5, 105.0, 5.5, 0.2)
    work = occupancy.describe_load(before, after)
    assert work == {"wall_s": 4.0, "others_s": 1.5, "stolen_s": 0.5, "stalled_s": pytest.approx(0.2)}
    assert occupancy.share_load([work, {**work, "others_s": 0.5}])["others_cores"] == 0.25
    assert occupancy.share_load([work, {**work, "others_s": None}])["others_cores"] is None


@pytest.mark.parametrize(
    ("others_s", "cores", "busy"),
    [(0.2, 2, False), (0.21, 2, True), (0.9, 32, False), (1.0, 32, True), (None, 2, False)],
)
def test_a_large_board_may_do_a_little_more(others_s: float | None, cores: int, busy: bool) -> None:
    work = {"wall_s": 1.0, "others_s": others_s, "stolen_s": 0.0, "stalled_s": None}
    assert occupancy.is_busy(work, cores) is busy


def test_a_hypervisor_counts_as_others() -> None:
    assert occupancy.is_busy({"wall_s": 1.0, "others_s": None, "stolen_s": 0.3, "stalled_s": None}, 2)


# waiting for a quiet board


class Said:
    """Takes what the agent says."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def progress(self, text: str) -> None:
        self.texts.append(text)

    progress_slowly = progress

    def emit(self, event: str, others: str) -> None:
        self.texts.append(others)


class Kernel:
    """A recorded board on which others work for so many looks, each a second of one core."""

    def __init__(self, folder: Path, busy_looks: int) -> None:
        self.folder, self.busy, self.looks = folder, busy_looks, 0
        self.root = write_tree(folder, {CPU: "", "/proc/77/stat": ""})
        self._write(0)

    def _write(self, seconds: float) -> None:
        ticks = int(100 * seconds)
        Path(self.root + CPU).write_text(f"cpu  {ticks} 0 0 900 0 0 0 0 0 0\n")
        Path(f"{self.root}/proc/77/stat").write_text(f"77 (train.py) R {'0 ' * 10}{ticks} 0 0 0 20 0 1 0 6 7 8")

    def sleep(self, seconds: float) -> None:
        self.looks += 1
        self._write(min(self.looks, self.busy))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock of the agent that goes on by a second at each look."""
    now = [0.0]

    def tick() -> float:
        now[0] += 0.5
        return now[0]

    monkeypatch.setattr(occupancy.time, "perf_counter", tick)
    monkeypatch.setattr(occupancy.time, "process_time", lambda: 0.0)
    monkeypatch.setattr(occupancy.time, "monotonic", lambda: now[0])
    return now


def test_a_busy_board_is_waited_for(tmp_path: Path, clock: list[float]) -> None:
    kernel, said = Kernel(tmp_path, 3), Said()
    occupancy.await_quiet({"quiet_wait_s": 60.0}, kernel.root, said, kernel.sleep)  # type: ignore[arg-type]
    assert kernel.looks == 3 + occupancy.QUIET_LOOKS
    assert len(said.texts) == 3
    assert re.match(
        r"waiting for a quiet board, for 60 s at most: others take \d\.\d\d of \d+ cores \(train.py \(pid 77\) .*"
        r"add --allow-busy",
        said.texts[0],
    )


@pytest.mark.parametrize(("busy_looks", "is_told"), [(0, False), (1, False), (9, True)])
def test_a_look_tells_what_others_do_unless_it_is_over_at_once(
    tmp_path: Path, clock: list[float], busy_looks: int, is_told: bool
) -> None:
    kernel, said = Kernel(tmp_path, busy_looks), Said()
    occupancy.busy({}, kernel.root, said, kernel.sleep)  # type: ignore[arg-type]
    (others,) = said.texts
    assert ("train.py (pid 77)" in others) == is_told
    assert bool(others) == is_told


def test_a_board_that_stays_busy_is_told_with_what_works_there(tmp_path: Path, clock: list[float]) -> None:
    kernel = Kernel(tmp_path, 10**6)
    with pytest.raises(AgentError, match=r"others take .* \(train\.py \(pid 77\) .*; stop them, or add --allow-busy"):
        occupancy.await_quiet({"quiet_wait_s": 5.0}, kernel.root, Said(), kernel.sleep)  # type: ignore[arg-type]
    assert kernel.looks < 10


def test_nobody_waits_who_did_not_ask(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 10**6)
    occupancy.await_quiet({"quiet_wait_s": 0.0}, kernel.root, Said(), kernel.sleep)  # type: ignore[arg-type]
    occupancy.await_quiet({}, kernel.root, Said(), kernel.sleep)  # type: ignore[arg-type]
    assert kernel.looks == 0


def test_a_board_that_tells_nothing_is_not_waited_for(tmp_path: Path) -> None:
    root, looks = write_tree(tmp_path, {}), list[float]()
    occupancy.await_quiet({"quiet_wait_s": 60.0}, root, Said(), looks.append)  # type: ignore[arg-type]
    assert len(looks) == occupancy.QUIET_LOOKS


# rounds

PACE: dict[str, Any] = {
    **{"process": 0, "rounds": 6, "least_rounds": 6, "budget_s": 0.0, "window_s": 0.01},
    **{"at_least": 1, "most": 100, "threads": 1, "warmup_s": 0.0},
}


def run_rounds(monkeypatch: pytest.MonkeyPatch, disturbed: set[tuple[str, int]], **pace: Any) -> list[dict[str, Any]]:
    """The windows of three models; those in `disturbed` (a model and the number of its window) waited for a core."""
    counts: Counter[str] = Counter()
    names = {"a": lambda: "a", "b": lambda: "b", "": lambda: ""}

    def take(run: Any, duration_s: float, at_least: int, threads: int) -> Window:
        name, number = run(), counts[run()]
        counts[name] += 1
        return Window(0, [1000], 1000, 1000, 900 if (name, number) in disturbed else 0, 0)

    monkeypatch.setattr(turns, "take_window", take)
    stream = io.StringIO()
    turns.run_rounds(names, {**PACE, **pace}, Events(stream))
    return [row for row in map(json.loads, stream.getvalue().splitlines()) if row["event"] == "window"]


def test_every_model_has_a_window_a_round_in_ever_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    order = [row["model"] for row in run_rounds(monkeypatch, set())]
    rounds = [order[start : start + 3] for start in range(0, 18, 3)]
    assert all(sorted(of_round) == ["", "a", "b"] for of_round in rounds)
    assert len({tuple(of_round) for of_round in rounds}) > 2
    assert order != [row["model"] for row in run_rounds(monkeypatch, set(), process=1)]


def test_disturbed_windows_are_taken_again_until_as_many_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run_rounds(monkeypatch, {("a", 0), ("a", 3), ("a", 6), ("b", 5)})
    assert Counter(row["model"] for row in rows) == {"a": 6 + 3, "b": 6 + 1, "": 6}
    good = Counter(row["model"] for row in rows if not row["waited_ns"])
    assert good == {"a": 6, "b": 6, "": 6}


def test_a_board_that_stays_disturbed_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run_rounds(monkeypatch, {("a", number) for number in range(100)})
    assert Counter(row["model"] for row in rows) == {"a": 6 + 3, "b": 6, "": 6}


def test_rounds_end_with_their_time_but_not_before_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run_rounds(monkeypatch, set(), rounds=50, least_rounds=2, budget_s=-1.0)
    assert len(rows) == 3 * 2


def test_a_window_is_disturbed_when_its_threads_waited() -> None:
    calm = take_window(lambda: None, 0.001, 5, 1)
    assert calm.cpu_ns > 0
    assert len(calm.samples_ns) >= 5
    assert calm.wall_ns >= sum(calm.samples_ns)
    assert not calm._replace(wall_ns=1000, waited_ns=50).is_disturbed
    assert calm._replace(wall_ns=1000, waited_ns=51).is_disturbed
    assert not calm._replace(waited_ns=None).is_disturbed


def test_where_the_kernel_does_not_tell_waiting_is_not_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occupancy, "read_waited_ns", lambda threads: None)
    slept = take_window(lambda: __import__("time").sleep(0.02), 0.001, 1, 1)
    assert slept.waited_ns is not None
    assert slept.waited_ns > 0.9 * slept.wall_ns - 1e6
    assert take_window(lambda: None, 0.001, 1, 2).waited_ns is None


# processes of their own


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The agent's file, which this process takes for its own."""
    path = tmp_path / "board" / "agent-0.pyz"
    path.parent.mkdir()
    path.write_bytes(pack_agent())
    monkeypatch.setattr(sys, "argv", [str(path)])
    return path


def test_a_process_that_dies_is_told(packed: Path) -> None:
    packed.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(AgentError, match=r"its process ended by signal 9 \(out of memory\?\)"):
        list(turns.call_process({"command": "facts"}, {}))
    packed.write_text("import sys; sys.exit(7)")
    with pytest.raises(AgentError, match="exit code 7"):
        list(turns.call_process({"command": "facts"}, {}))


def test_a_process_that_hangs_is_ended_in_time(packed: Path) -> None:
    packed.write_text("import time; time.sleep(600)")
    with pytest.raises(AgentError, match=r"not done within 0\.3 s"):
        list(turns.call_process({"command": "facts"}, {}, 0.3))


def test_what_a_process_says_went_wrong_is_passed_on(packed: Path) -> None:
    request = {"command": "cold", "file": f"{'0' * 64}.onnx", "runtime": "onnxruntime"}
    with pytest.raises(AgentError, match="cannot load it"):
        list(turns.call_process(request, {"threads": 1}))


# the whole, on this machine


@pytest.mark.parametrize("loops", [1, 4])
def test_a_run_beside_others_is_not_valid_and_says_by_how_much(loops: int, no_devices: Path, tmp_path: Path) -> None:
    model, protocol = make_model(tmp_path, "onnxruntime"), replace(QUICK, min_duration_s=0.4)
    cores = os.cpu_count() or 1
    with busy_loops(loops), open_device(LOCAL, None) as device:
        measured = measure_models(device, [model], 1, protocol, ignore)[model.name]
    taken = measured.conditions.others_cores
    assert taken is not None
    if loops >= 0.2 * cores:
        assert taken > min(loops, cores) / 3
        assert any(f"others took {taken:.2f} of {cores} cores" in problem for problem in measured.problems)
    assert measured.to_dict()["processor"]["windows"] == len(measured.windows)
    assert f"others took {taken:.2f} cores" in measured.conditions.describe()


def test_more_threads_than_cores_are_told(no_devices: Path, tmp_path: Path) -> None:
    model, threads = make_model(tmp_path, "onnxruntime"), len(os.sched_getaffinity(0)) + 6
    with open_device(LOCAL, None) as device:
        measured = measure_models(device, [model], threads, QUICK, ignore)[model.name]
    assert any(problem.startswith(f"{threads} threads on ") for problem in measured.problems)


def test_others_are_told_before_anything_is_loaded(no_devices: Path) -> None:
    said: list[str] = []
    with busy_loops(os.cpu_count() or 1):
        reach_board(LOCAL, None, said.append, Session(quiet_wait_s=300.0))
        reach_board(LOCAL, None, said.append, Session())
    (line,) = said
    assert re.match(r"local: others take .* cores .*; whatever is timed there waits for them, 5 min at most", line)
    assert "--allow-busy" in line


def test_a_run_that_waits_for_quiet_measures_when_it_is(
    no_devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path, "onnxruntime")
    with (
        busy_loops(os.cpu_count() or 1),
        open_device(LOCAL, None, session=Session(quiet_wait_s=0.5)) as device,
        pytest.raises(RemoteError, match=r"local: others take .* cores .*stop them, or add --allow-busy"),
    ):
        measure_models(device, [model], 1, QUICK, ignore)


# what is made of it


def measured(windows: list[CoreWindow], **conditions: Any) -> Measurement:
    samples = tuple(window.p50_ms for window in windows for _ in range(window.count))
    told = Conditions(1, **conditions)
    return Measurement("a", "0" * 64, "onnxruntime", "1", "f", told, 1.0, 1.0, 9, samples, 5.0, windows=tuple(windows))


CALM = [CoreWindow(number // 5, 0.1 * number, 1.0 + 0.001 * number, 30, 30.0, 0.99, 0.0) for number in range(20)]
SHORT = Protocol(min_samples=100, min_duration_s=0.3)


@pytest.mark.parametrize(
    ("conditions", "problem"),
    [
        ({"others_cores": 0.21, "cores": 2}, "the board was not this run's own: others took 0.21 of 2 cores"),
        ({"stolen_cores": 0.3, "cores": 2}, "the board was not this run's own: a hypervisor took 0.30 of 2 cores"),
        ({"affinity": (3,)}, ""),
        ({"others_cores": 0.2, "cores": 2}, ""),
        ({"others_cores": 0.9, "cores": 32}, ""),
        ({}, ""),
    ],
)
def test_a_board_that_others_worked_on_is_no_proof(conditions: dict[str, Any], problem: str) -> None:
    assert find_problems(measured(CALM, **conditions), SHORT) == ((problem,) if problem else ())


def test_threads_need_cores() -> None:
    told = Conditions(64, affinity=(0, 1))
    assert find_neighbours(told) == ["64 threads on 2 cores: they wait for each other"]
    assert find_neighbours(Conditions(2, affinity=(0, 1))) == []
    assert find_neighbours(Conditions(64)) == []


def test_disturbed_windows_do_not_count_and_many_are_a_problem() -> None:
    hit = [replace(window, waited_share=0.3, p50_ms=9.0) for window in CALM]
    some = measured([*CALM, *hit[:4]])
    assert find_problems(some, SHORT) == ()
    assert some.latency.p99_ms < 1.1
    assert some.describe_processor() == "had a core 95.0% of the time, 4 of 24 windows disturbed by others"
    assert some.to_dict()["processor"]["disturbed_windows"] == 4
    many = [replace(window, waited_share=0.06) for window in CALM[:5]]
    assert find_problems(measured([*CALM[5:], *many]), SHORT) == (
        "the processor was not this run's own in 5 of 20 windows",
    )
    assert "the processor was not this run's own: it waited for a core 30% of the time" in find_problems(
        measured(hit), SHORT
    )
    few = find_problems(measured([*CALM[:4], *hit[:1]]), replace(SHORT, min_duration_s=0.127))
    assert few[0] == "too short: 120 samples in 0.12 s; 100 samples and 0.127 s are asked for"


def test_a_measurement_comes_back_from_json_with_its_windows() -> None:
    from edgeprune.core.measuring.measurement import parse_measurement

    whole = replace(
        measured(CALM, others_cores=0.1, arithmetic_us=(70.0, 71.0)),
        inputs={"x": (1, 3, 8, 8)},
        cold_starts_ms=((1.0, 2.0), (3.0, 4.0)),
    )
    assert parse_measurement(json.loads(json.dumps(whole.to_dict()))) == whole


def test_what_never_ran_is_no_model(no_devices: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with open_device(LOCAL, None) as device, pytest.raises(RemoteError, match="broken: onnxruntime cannot load it"):
        measure_models(device, [ModelFile.of(path, "onnxruntime")], 1, QUICK, ignore)


def test_files_that_share_fewer_than_two_undisturbed_processes_have_a_ratio_all_the_same() -> None:
    """One was disturbed in all processes but one of those that the other had to itself."""
    by_process = [[window for window in CALM if window.process == number] for number in range(4)]
    hit = [[replace(window, waited_share=0.3, p50_ms=9.0) for window in of] for of in by_process]
    first = measured([*by_process[0], *by_process[1], *hit[2], *hit[3]])
    for second in (
        [*hit[0], *by_process[1], *by_process[2], *hit[3]],
        [*hit[0], *hit[1], *by_process[2], *by_process[3]],
    ):
        assert len(measured(second).steady_windows) == 10
        ratio, low, high = find_ratio(first, measured(second)).interval()
        assert low <= ratio <= high
        assert ratio == pytest.approx(1.0, rel=0.03)
