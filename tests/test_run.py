import errno
import json
import multiprocessing
import os
import shutil
import stat
from pathlib import Path

import pytest

import edgeprune.run
from edgeprune.errors import RunError
from edgeprune.run import Run, look_at_run, open_run, preview_run, write_atomic

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


# the record


def finished(folder: Path) -> Path:
    """A run of two stages, the first of which has made a file that the second rests on."""
    with open_run(folder, REQUEST) as run:
        run.begin()

        def trace() -> dict[str, int]:
            run.product("net.pt2").write_bytes(b"weights")
            run.path("scratch.bin").write_bytes(b"nobody rests on this")
            assert run.file("net.pt2").read_bytes() == b"weights"  # the stage itself may read it at once
            return {"groups": 3}

        run.stage("trace", trace)
        run.stage("plan", lambda: run.file("net.pt2").read_bytes().decode())
    return folder


def test_what_a_stage_has_made_is_read_as_it_was(tmp_path: Path) -> None:
    run = look_at_run(finished(tmp_path))
    assert run.file("net.pt2").read_bytes() == b"weights"
    assert run.result("plan") == "weights"
    for stage in ("trace", "plan"):
        run.check(stage)
    (tmp_path / "scratch.bin").unlink()
    look_at_run(tmp_path).check("trace")


@pytest.mark.parametrize("changed", [b"other", b"weight", b"weightss", b"", None])
def test_a_file_that_was_changed_or_is_gone_is_named_with_the_stage_to_run_again(
    tmp_path: Path, changed: bytes | None
) -> None:
    path = finished(tmp_path) / "net.pt2"
    path.unlink() if changed is None else path.write_bytes(changed)
    run = look_at_run(tmp_path)
    what = "is gone; " if changed is None else "is not what it was when it was made"
    for look in (lambda: run.file("net.pt2"), lambda: run.check("trace")):
        with pytest.raises(RunError, match=rf"net\.pt2: {what}.*`edgeprune deploy --run {tmp_path} --from trace`"):
            look()
    run.check("plan")


def test_a_result_that_was_changed_by_hand_is_not_believed(tmp_path: Path) -> None:
    result = finished(tmp_path) / "stages" / "trace.json"
    result.write_text(result.read_text().replace("3", "4"))
    run = look_at_run(tmp_path)
    for look in (lambda: run.result("trace"), lambda: run.check("trace")):
        with pytest.raises(RunError, match=r"trace\.json: is not what it was .*--from trace"):
            look()


def test_a_result_without_a_record_is_not_believed(tmp_path: Path) -> None:
    (finished(tmp_path) / "record" / "trace.json").unlink()
    with pytest.raises(RunError, match=r"record/trace\.json: is gone.*--from trace"):
        look_at_run(tmp_path).result("trace")


def test_a_run_of_the_versions_that_kept_no_record_says_so_and_what_to_do(tmp_path: Path) -> None:
    shutil.rmtree(finished(tmp_path) / "record")
    expected = rf"{tmp_path}: was made by an older edgeprune.* begin a new run .*`edgeprune history take-in {tmp_path}`"
    with pytest.raises(RunError, match=expected):
        look_at_run(tmp_path)
    with pytest.raises(RunError, match=expected), open_run(tmp_path, {}):
        pass
    with pytest.raises(RunError, match=expected):
        Run(tmp_path, {}).check("trace")


def test_a_file_that_nobody_has_made_or_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    run, secret = look_at_run(finished(tmp_path / "run")), tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "run" / "link").symlink_to(secret)
    with pytest.raises(RunError, match=r"scratch\.bin: no such file yet"):
        run.file("scratch.bin")
    for name in ("../secret", "/etc/hostname", "link"):
        with pytest.raises(RunError, match="lies outside of the run"):
            run.file(name)


def test_each_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, hashed = look_at_run(finished(tmp_path)), []
    hash_file = edgeprune.run.hash_file
    monkeypatch.setattr("edgeprune.run.hash_file", lambda path: hashed.append(path.name) or hash_file(path))
    for _ in range(3):
        run.check("trace")
        run.file("net.pt2")
        run.result("trace")
    assert sorted(hashed) == ["net.pt2", "trace.json"]


def test_a_stage_made_anew_is_recorded_anew_and_leaves_nothing_of_before(tmp_path: Path) -> None:
    (finished(tmp_path) / "net.pt2").write_bytes(b"damaged")
    with open_run(tmp_path, REQUEST) as run:
        run.forget("trace", "plan", "never run")
        assert not (tmp_path / "net.pt2").exists()
        assert not run.finished("trace")
        run.stage("trace", lambda: run.product("net.pt2").write_bytes(b"new"))
        assert run.file("net.pt2").read_bytes() == b"new"
    look_at_run(tmp_path).check("trace")


def test_killed_before_its_result_a_stage_is_not_finished_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = edgeprune.run.write_atomic

    def killed(path: Path, data: str | bytes) -> None:
        if path.parent.name == "stages":
            raise KeyboardInterrupt
        write(path, data)

    with open_run(tmp_path, REQUEST) as run:
        run.begin()
        monkeypatch.setattr("edgeprune.run.write_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            run.stage("trace", lambda: run.product("net.pt2").write_bytes(b"half"))
        monkeypatch.undo()
    with open_run(tmp_path, REQUEST) as run:
        assert not run.finished("trace")
        assert run.stage("trace", lambda: run.product("net.pt2").write_bytes(b"whole")) == 5
        run.check("trace")


def test_a_request_that_was_changed_by_hand_is_not_taken_for_the_runs_own(tmp_path: Path) -> None:
    request = finished(tmp_path) / "request.json"
    request.write_text(request.read_text().replace("local", "rpi4"))
    for look in (lambda: look_at_run(tmp_path), lambda: open_run(tmp_path, {"target": None}).__enter__()):
        with pytest.raises(RunError, match=r"request\.json: is not what it was.*begin a new run"):
            look()


def test_what_a_resumed_call_adds_to_the_request_stays(tmp_path: Path) -> None:
    for request in ({"target": "local"}, {"target": None, "host": "board"}, {"target": None, "minutes": None}):
        with open_run(tmp_path, request) as run:
            run.begin()
    assert look_at_run(tmp_path).request == {"target": "local", "host": "board", "minutes": None}


@pytest.mark.parametrize("text", ["[1]", '"text"', "3", "{", "\xff\xfe", "[" * 100_000])
def test_a_request_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "request.json").write_text(text, encoding="latin-1")
    with pytest.raises(RunError, match=r"request\.json: (expected what|cannot be read)"):
        look_at_run(tmp_path)


def test_an_error_of_this_machine_is_told_with_its_place_and_the_way_on(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/elsewhere/model.onnx")

    def closed() -> None:
        raise BrokenPipeError

    with open_run(tmp_path, REQUEST) as run:
        with pytest.raises(RunError, match=r"^/tmp/elsewhere/model\.onnx: No space left.*stage 'export'.*deploy --run"):
            run.stage("export", full)
        with pytest.raises(BrokenPipeError):
            run.stage("export", closed)
        assert not run.finished("export")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with open_run(tmp_path, REQUEST) as run:
        (tmp_path / "artifacts").write_text("a file in its place")
        with pytest.raises(RunError, match="artifacts: File exists; check the path"):
            run.path("artifacts/model.onnx")


# looking ahead


def test_a_preview_refuses_what_the_run_would_refuse_and_writes_nothing(tmp_path: Path) -> None:
    new = tmp_path / "a" / "b"
    with preview_run(new, REQUEST) as run:
        assert run.request == REQUEST
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    before = finished(tmp_path / "run")
    seen = {path: path.stat().st_mtime_ns for path in before.rglob("*")}
    for place, request, said in (
        (tmp_path / "file", REQUEST, "is a file"),
        (tmp_path / "file" / "below", REQUEST, "is a file"),
        (before, {"target": "rpi4"}, "made with target = 'local', not 'rpi4'"),
    ):
        with pytest.raises(RunError, match=said), preview_run(place, request):
            pass
    with preview_run(before, {"target": None}) as run:
        assert run.request == REQUEST
    with open_run(before, REQUEST), pytest.raises(RunError, match="another edgeprune"), preview_run(before, REQUEST):
        pass
    assert {path: path.stat().st_mtime_ns for path in before.rglob("*")} == seen


def test_looking_at_what_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"request\.json: no such file; is this a run directory"):
        look_at_run(tmp_path)


def test_a_file_is_written_where_a_link_leads_and_into_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "far" / "file.json")
    write_atomic(link, "one")
    assert link.is_symlink()
    assert (tmp_path / "far" / "file.json").read_text() == "one"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(pipe, "two")
    assert os.read(reader, 100) == b"two"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_request_without_its_record_is_not_believed_once_a_stage_rests_on_it(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "record" / "request.json").unlink()
    with (
        pytest.raises(RunError, match=r"record/request\.json: is gone, or never was, as an older .*begin a new run"),
        open_run(tmp_path, {}),
    ):
        pass


@pytest.mark.parametrize("text", ["{}", '{"target": 5}'])
def test_a_request_without_a_target_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text(text)
    with pytest.raises(RunError, match=r"request\.json: target: expected the name of a target.*begin a new run"):
        look_at_run(tmp_path)


@pytest.mark.parametrize("damage", ["[]", "null", '{"stages/trace.json": "'])
def test_a_damaged_record_is_told_with_what_mends_it(damage: str, tmp_path: Path) -> None:
    directory = finished(tmp_path)
    (directory / "record" / "trace.json").write_text(damage)
    with pytest.raises(RunError, match=r"record/trace\.json: .*make it anew: .*--from trace"):
        look_at_run(directory).result("trace")
    with open_run(directory, {}) as run:
        run.forget("trace")
        assert run.stage("trace", lambda: 1) == 1


def test_a_run_refused_before_it_began_leaves_no_folder(tmp_path: Path) -> None:
    for place in (tmp_path / "runs" / "new", tmp_path / "other"):
        with pytest.raises(KeyError), open_run(place, REQUEST):
            raise KeyError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs" / "kept").mkdir(parents=True)
    with pytest.raises(KeyError), open_run(tmp_path / "runs" / "new", REQUEST):
        raise KeyError
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["kept"]
    (tmp_path / "own").mkdir()  # by the user
    with pytest.raises(KeyError), open_run(tmp_path / "own", REQUEST):
        raise KeyError
    assert (tmp_path / "own").is_dir()
    with open_run(tmp_path / "begun", REQUEST) as run:
        run.begin()
    assert (tmp_path / "begun" / "request.json").exists()
