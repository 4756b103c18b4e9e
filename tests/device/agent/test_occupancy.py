"""What a thread and a board are counted to have done: figures from made-up files and times."""

from __future__ import annotations

import time

import pytest
from edgeprune_agent import occupancy, sustain, timing


@pytest.mark.parametrize(
    ("files", "threads", "waited_ns"),
    [
        ({"/proc/thread-self/schedstat": "900 70 3"}, 1, 70),
        ({"/proc/thread-self/schedstat": "900 70 3", "/proc/self/task/8/schedstat": "1 5 1"}, 2, 5),
        ({"/proc/self/task/8/schedstat": "1 5 1", "/proc/self/task/9/schedstat": "1 6 1"}, 2, 11),
        ({"/proc/self/task/8/schedstat": "1 5 1", "/proc/self/task/9/schedstat": ""}, 2, 5),
        ({"/proc/thread-self/schedstat": "0 0"}, 1, None),
        ({}, 1, None),
        ({}, 2, None),
    ],
)
def test_how_long_threads_waited_is_the_second_word_of_each(
    files: dict[str, str], threads: int, waited_ns: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(occupancy, "read_text", lambda root, path: files.get(path, ""))
    monkeypatch.setattr(occupancy, "find_paths", lambda root, pattern: [
        path.rsplit("/", 1)[0] for path in sorted(files) if "/task/" in path
    ])  # fmt: skip
    assert occupancy.read_waited_ns(threads) == waited_ns


def load(wall_s: float, others_s: float | None, stolen_s: float | None = None) -> dict[str, float | None]:
    return {"wall_s": wall_s, "others_s": others_s, "stolen_s": stolen_s, "stalled_s": 0.5 * wall_s}


def test_shares_are_of_all_spans_together_and_unknown_where_one_is() -> None:
    shares = occupancy.share_load([load(1.0, 0.2, 0.1), load(3.0, 1.0)])
    assert shares == {"others_cores": pytest.approx(0.3), "stolen_cores": None, "stalled_share": 0.5}
    assert occupancy.share_load([]) == {"others_cores": None, "stolen_cores": None, "stalled_share": None}


@pytest.mark.parametrize("at_least", [1, 3])
def test_runs_end_when_they_are_as_many_and_as_long_as_asked_for(
    at_least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(clock))
    assert timing.time_runs(lambda: None, 0.0, at_least) == [1000] * at_least
    assert timing.time_runs(lambda: None, 5e-6, at_least) == [1000] * 5


def test_a_window_waited_where_it_did_so_for_more_than_a_twentieth() -> None:
    taken = [timing.Window(0, [1], 100, 95, waited, 0).is_disturbed for waited in (5, 6, 0, None)]
    assert taken == [False, True, False, False]


def test_the_fixed_work_is_always_the_same() -> None:
    assert timing.do_arithmetic() == timing.do_arithmetic() > 0


def test_the_three_that_work_most_are_named_with_their_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occupancy.os, "sysconf", lambda name: 100)
    before = {(1, "a"): 100, (2, "b"): 0, (3, "c"): 7, (4, "idle"): 50, (5, "d"): 0}
    after = {(1, "a"): 200, (2, "b"): 5, (3, "c"): 57, (4, "idle"): 50, (6, "new"): 90}
    assert occupancy.name_workers(before, after, 1.0) == "a (pid 1) 1.00, c (pid 3) 0.50, b (pid 2) 0.05"
    assert occupancy.name_workers(before, {(2, "b"): 4}, 1.0) == ""


def test_a_window_of_a_long_run_is_told_in_milliseconds() -> None:
    row = {"at_s": 3.2, "latency_ns": [1_000_000, 2_000_000, 3_000_000, 9_000_000], "mhz": None, "temperature_c": 61.0}
    assert sustain.describe_row("net", {**row, "throttled": ["hot"]}, 60.0) == "net: 3 of 60 s: 2 ms, 61.0 C, hot"
