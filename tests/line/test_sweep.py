"""A sweep that was killed goes on: runs that were finished stay, nothing is measured or scored twice."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from line import QUICK, TINY, command, environment

from edgeprune.run import look_at_run, read_json
from edgeprune.stages.results import Profiled, Scored, read_result

NAMES = ("speedup-1.2", "speedup-1.5", "speedup-2")
WAIT_S = 900


def start_sweep(directory: Path, cache: Path, log: Path, *words: object) -> subprocess.Popen[bytes]:
    arguments = command("sweep", "--run", directory, *words)
    with log.open("wb") as stream:
        return subprocess.Popen(arguments, stdout=stream, stderr=stream, env=environment(cache))


def kill_once_there(process: subprocess.Popen[bytes], path: Path) -> None:
    end = time.monotonic() + WAIT_S
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_after_its_second_budget_it_goes_on_and_measures_nothing_twice(tmp_path: Path) -> None:
    directory, cache, logs = tmp_path / "sweep", tmp_path / "cache", [tmp_path / "first.log", tmp_path / "second.log"]
    words = ("--target", QUICK, "--host", "local", "--recipe", TINY, "--allow-busy", "--fresh")
    process = start_sweep(directory, cache, logs[0], *words, "--speedup", "2,1.2,1.5,60")
    kill_once_there(process, directory / NAMES[1] / "stages" / "report.json")
    finished = {path: path.stat().st_mtime_ns for name in NAMES[:2] for path in (directory / name / "stages").iterdir()}
    assert start_sweep(directory, cache, logs[1]).wait(WAIT_S) == 3, logs[1].read_text()
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    said = [log.read_text() for log in logs]
    assert [text.count("layer shapes measured") for text in said] == [1, 0]
    assert [text.count("measuring the loss of") for text in said] == [1, 0]
    assert [text.count("whole nets of random widths") for text in said] == [1, 0]
    runs = [look_at_run(directory / name) for name in NAMES]
    assert len({json.dumps(run.result("profile")) for run in runs}) == 1
    assert len({json.dumps(run.result("score")) for run in runs}) == 1
    assert not read_result(runs[2], Profiled).recalled
    assert not read_result(runs[2], Scored).recalled
    document = read_json(directory / "comparison.json")
    assert {row["name"] for row in document["rows"]} == {*NAMES, "unpruned"}
    assert document["interleaved"]
    assert "--speedup" in document["without_run"]["speedup-60"]
    assert start_sweep(directory, cache, tmp_path / "third.log").wait(WAIT_S) == 3
    third = (tmp_path / "third.log").read_text()
    assert not any(f"{stage}\n" in third for stage in ("] trace", "] measure", "] confirm"))
