import json
import multiprocessing
from pathlib import Path

import pytest

from edgeprune.errors import RunError
from edgeprune.run import look_at_run, open_run, write_atomic

REQUEST = {"target": "local", "host": None}


def test_finished_stage_is_read_and_not_run_again(tmp_path: Path) -> None:
    calls = []
    for _ in range(2):
        with open_run(tmp_path, REQUEST) as run:
            assert run.stage("trace", lambda: calls.append(1) or {"groups": 3}) == {"groups": 3}
    assert calls == [1]


def test_stage_that_raises_is_not_finished(tmp_path: Path) -> None:
    with open_run(tmp_path, REQUEST) as run:
        with pytest.raises(ZeroDivisionError):
            run.stage("plan", lambda: 1 / 0)
        assert not run.finished("plan")


def test_run_of_another_request_is_refused(tmp_path: Path) -> None:
    with open_run(tmp_path, REQUEST) as run:
        run.begin()
    with (
        pytest.raises(RunError, match="made with target = 'local', not 'rpi4'"),
        open_run(tmp_path, {"target": "rpi4"}),
    ):
        pass


def test_request_is_taken_from_the_run_when_resumed(tmp_path: Path) -> None:
    with open_run(tmp_path, {"target": "local", "speedup": 2.0}) as run:
        run.begin()
    with open_run(tmp_path, {"target": None, "speedup": None}) as run:
        assert run.request == {"target": "local", "speedup": 2.0}


def _hold(directory: Path, ready: "multiprocessing.Queue[int]", done: "multiprocessing.Queue[int]") -> None:
    with open_run(directory, REQUEST):
        ready.put(1)
        done.get()


def test_second_process_is_refused(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Queue(), context.Queue()
    holder = context.Process(target=_hold, args=(tmp_path, ready, done))
    holder.start()
    ready.get()
    try:
        with pytest.raises(RunError, match="another edgeprune is at work"), open_run(tmp_path, REQUEST):
            pass
    finally:
        done.put(1)
        holder.join()


def test_damaged_stage_names_its_file(tmp_path: Path) -> None:
    with open_run(tmp_path, REQUEST) as run:
        run.begin()
        run.stage("trace", dict)
        (tmp_path / "stages" / "trace.json").write_text('{"half')
        with pytest.raises(RunError, match=r"trace\.json: is not what it was"):
            look_at_run(tmp_path).result("trace")


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgeprune.run.os.fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        write_atomic(path, json.dumps("new"))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
