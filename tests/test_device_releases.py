"""Releases on a board, over a real OpenSSH server: whole or not at all, resumed after every break, switched at once."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import paramiko
import pytest
from click.testing import CliRunner
from device_models import CONV, FORMATS, LINEAR, ignore, make_model
from edgeprune_agent import releases as board_side
from edgeprune_agent.errors import AgentError
from ssh_server import SshServer

from edgeprune.cli_boards import release as release_command
from edgeprune.core.layers import LayerShape
from edgeprune.core.release import Release, find_release, render_releases
from edgeprune.core.target import Target
from edgeprune.device import releases
from edgeprune.device.agent import Agent
from edgeprune.device.connect import open_agent, open_device
from edgeprune.device.measure import evaluate_model
from edgeprune.device.releases import (
    activate_release,
    list_releases,
    prune_releases,
    push_release,
    read_release,
    roll_back,
)
from edgeprune.errors import ConnectionFailed, DeviceError, EdgepruneError, RemoteError, RunError, UsageError

TARGET = Target("local", "a board of the tests")
LARGE = LayerShape("linear", 1024, 1024)
"""4 MiB of weights."""
REQUESTS_BYTES = 1 << 16
"""More than a push sends beside the model."""
RUNNER = Path(__file__).parent.parent / "deploy" / "runner" / "run.py"


@pytest.fixture
def agent(ssh_server: SshServer) -> Iterator[Agent]:
    with open_agent("rpi4", "board", "") as agent:
        yield agent


@dataclass(frozen=True)
class Board:
    """What lies on the board."""

    server: SshServer

    @property
    def folder(self) -> Path:
        return self.server.board / ".cache" / "edgeprune" / "board" / "releases"

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the active release, as an application there does."""
        command = [sys.executable, "-I", str(self.folder / "current" / "run.py"), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)

    def active(self) -> str:
        """The active release, which runs."""
        done = self.run("--check")
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["release"])

    def half_written(self) -> list[str]:
        """What is under a release's name and not what that says."""
        names = [path for path in self.folder.iterdir() if not path.is_symlink() and path.is_dir()]
        return [path.name for path in names if path.suffix != ".part" and not board_side.is_whole(path)]


@pytest.fixture
def board(ssh_server: SshServer) -> Board:
    return Board(ssh_server)


def make_run(
    folder: Path, shape: LayerShape = CONV, runtime: str = "onnxruntime", precision: str = "fp32", **changes: Any
) -> Path:
    """A run directory as the line leaves it, as far as a release needs it."""
    (folder / "artifacts").mkdir(parents=True)
    (folder / "stages").mkdir()
    model = make_model(folder / "artifacts", runtime, shape, precision)
    path = f"artifacts/{model.path.name}"
    row = {
        "path": path, "role": "pruned", "format": FORMATS[runtime], "precision": precision,
        "bytes": model.path.stat().st_size, "sha256": model.sha256, "scheme": "", "inputs": [], "outputs": [],
    }  # fmt: skip
    report = {
        "version": 1, "verdict": "pass", "target": "local", "recipe": "tiny", "created": "2026-11-21T10:00:00+00:00",
        "edgeprune": "0.1.0", "runtime": f"{runtime} 1.0", "conditions": {"threads": 1},
        "device": {"fingerprint": "0" * 16, "cpu": "a CPU"},
        "result": {"artifact": path, "accuracy_percent": 90.5, "latency": {"p50_ms": 1.25, "p95_ms": 1.5}},
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report | changes))
    (folder / "stages" / "export.json").write_text(json.dumps({"artifacts": [row]}))
    return folder


def read_run(folder: Path, shape: LayerShape = CONV, **changes: Any) -> tuple[Release, bytes]:
    return read_release(make_run(folder, shape, **changes), TARGET)


def install(folder: Path, release: Release, model: bytes) -> None:
    """Let a release be active, by the agent's own functions and without a link."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    request = {"id": release.id, **asdict(release)}
    if not (told := board_side.prepare(folder, request))["there"]:
        Path(told["part"]).write_bytes(model)
        board_side.finish(folder, request)
    board_side.activate(folder, request)


# from the run


def test_the_same_run_gives_the_same_release_and_another_another(tmp_path: Path) -> None:
    first, model = read_run(tmp_path / "a")
    again, _ = read_release(tmp_path / "a", TARGET)
    other, _ = read_run(tmp_path / "b", LINEAR)
    assert first.id == again.id != other.id
    manifest = json.loads(first.manifest)
    assert (manifest["model"]["file"], manifest["model"]["bytes"]) == ("model.onnx", len(model))
    assert manifest["measured"]["latency_p50_ms"] == 1.25


@pytest.mark.parametrize("verdict", ["fail", "inconclusive", None])
def test_only_a_run_that_passed_is_released(tmp_path: Path, verdict: str | None) -> None:
    with pytest.raises(RunError, match=f"the verdict is {verdict!r}; only a run that passed its gates is released"):
        read_run(tmp_path / "a", verdict=verdict)


def test_a_run_for_another_target_or_with_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was made and judged for target rpi4, not local"):
        read_run(tmp_path / "a", target="rpi4")
    run = make_run(tmp_path / "b")
    (model,) = (run / "artifacts").iterdir()
    model.write_bytes(model.read_bytes() + b"x")
    with pytest.raises(RunError, match="is not the file that was measured"):
        read_release(run, TARGET)


@pytest.mark.parametrize("path", ["../secret", "/etc/hostname", "artifacts/../../secret", "link"])
def test_a_report_cannot_reach_out_of_its_run(tmp_path: Path, path: str) -> None:
    run = make_run(tmp_path / "a")
    (tmp_path / "secret").write_text("secret")
    (run / "link").symlink_to(tmp_path / "secret")
    report, export = (json.loads((run / name).read_text()) for name in ("report.json", "stages/export.json"))
    report["result"]["artifact"] = export["artifacts"][0]["path"] = path
    (run / "report.json").write_text(json.dumps(report))
    (run / "stages" / "export.json").write_text(json.dumps(export))
    with pytest.raises(RunError, match="lies outside of the run"):
        read_release(run, TARGET)


# the life of a release


def test_releases_are_pushed_made_active_gone_back_to_and_pruned(agent: Agent, board: Board, tmp_path: Path) -> None:
    shapes = [replace(LINEAR, cout=count) for count in (3, 4, 5, 6)]
    made = [read_run(tmp_path / str(shape.cout), shape) for shape in shapes]
    ids = [release.id for release, _ in made]
    for release, model in made:
        assert push_release(agent, release, model).sent_bytes == len(model)
    assert not (board.folder / "current").exists()
    for release_id in ids[:3]:
        command = activate_release(agent, release_id)
        assert board.active() == release_id
    assert command == f"{agent.python} {board.folder}/current/run.py INPUT"
    assert push_release(agent, *made[0]).sent_bytes == 0
    rows = list_releases(agent)
    assert [(row.id, row.current, row.previous) for row in rows] == [
        (ids[0], False, False), (ids[1], False, True), (ids[2], True, False), (ids[3], False, False)
    ]  # fmt: skip
    assert "active" in render_releases(rows)
    assert find_release(ids[1][:6], rows, "board") == ids[1]
    assert [roll_back(agent)[0], board.active()] == [ids[1], ids[1]]
    assert [roll_back(agent)[0], board.active()] == [ids[0], ids[0]]
    with pytest.raises(RemoteError, match="no release was active before the current one"):
        roll_back(agent)
    activate_release(agent, ids[0])
    with pytest.raises(RemoteError, match="no release was active before the current one"):
        roll_back(agent)
    activate_release(agent, ids[3])
    assert prune_releases(agent, 1) == [ids[1]]
    assert prune_releases(agent, 0) == [ids[2]]
    assert [row.id for row in list_releases(agent)] == [ids[0], ids[3]]
    assert [roll_back(agent)[0], board.active()] == [ids[0], ids[0]]
    modes = {path.stat().st_mode & 0o777 for path in board.folder.rglob("*") if not path.is_symlink()}
    assert modes == {0o600, 0o700}


def test_a_release_that_does_not_run_there_does_not_become_active(agent: Agent, board: Board, tmp_path: Path) -> None:
    good, model = read_run(tmp_path / "good")
    push_release(agent, good, model)
    activate_release(agent, good.id)
    manifest = json.loads(read_run(tmp_path / "bad", LINEAR)[0].manifest)
    manifest["runtime"] = "litert"
    bad = Release(json.dumps(manifest), RUNNER.read_text())
    (onnx,) = (tmp_path / "bad" / "artifacts").iterdir()
    push_release(agent, bad, onnx.read_bytes())
    with pytest.raises(RemoteError, match=f"release {bad.id} does not run here: run.py: litert cannot load the model"):
        activate_release(agent, bad.id)
    assert board.active() == good.id


def test_a_release_that_was_changed_on_the_board_is_refused_and_pushed_anew(
    agent: Agent, board: Board, tmp_path: Path
) -> None:
    release, model = read_run(tmp_path / "a")
    push_release(agent, release, model)
    place = board.folder / release.id / "model.onnx"
    place.write_bytes(model[:-1] + b"x")
    with pytest.raises(RemoteError, match=r"model\.onnx of release .* is damaged or missing"):
        activate_release(agent, release.id)
    assert push_release(agent, release, model).sent_bytes == len(model)
    activate_release(agent, release.id)
    place.write_bytes(model[:-1] + b"x")
    done = board.run("--check")
    assert done.returncode == 1
    assert "is damaged: its sha256 is not the manifest's" in done.stderr


# broken on the way


def push_and_cut(server: SshServer, agent: Agent, release: Release, model: bytes, at: int) -> None:
    """A push whose link is cut once so many bytes were sent."""
    send, sent = paramiko.Channel.send, 0

    def send_and_cut(channel: paramiko.Channel, content: bytes) -> int:
        nonlocal sent
        if sent >= at:
            server.signal_sessions(signal.SIGKILL)
        sent += len(content)
        return send(channel, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paramiko.Channel, "send", send_and_cut)
        push_release(agent, release, model)


@pytest.mark.parametrize("at", [0, 1, 1 << 17, 1 << 20, 3 << 20, 4_180_000])
def test_a_push_that_was_cut_is_resumed(board: Board, tmp_path: Path, at: int) -> None:
    old, small = read_run(tmp_path / "old")
    new, large = read_run(tmp_path / "new", LARGE)
    install(board.folder, old, small)
    with (
        open_agent("rpi4", "board", "") as agent,
        pytest.raises(ConnectionFailed, match="run the same command again"),
    ):
        push_and_cut(board.server, agent, new, large, at)
    assert (board.active(), board.half_written()) == (old.id, [])
    with open_agent("rpi4", "board", "") as agent:
        assert [row.id for row in list_releases(agent) if row.whole] == [old.id]
        done = push_release(agent, new, large)
        assert done.sent_bytes + done.resumed_bytes == len(large)
        assert done.resumed_bytes >= (at - REQUESTS_BYTES) // releases.PIECE_BYTES * releases.PIECE_BYTES
        activate_release(agent, new.id)
    assert (board.active(), board.half_written()) == (new.id, [])
    assert not list(board.folder.glob("*.part"))


@pytest.mark.parametrize("action", ["prepare", "finish", "activate", "rollback", "prune"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["cut", "frozen"])
def test_a_link_lost_at_any_step_leaves_the_active_release(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, number: signal.Signals
) -> None:
    made = [read_run(tmp_path / str(count), replace(LINEAR, cout=count)) for count in (3, 4, 5)]

    def walk(agent: Agent, release: Release, model: bytes) -> None:
        push_release(agent, release, model)
        activate_release(agent, release.id)
        roll_back(agent)
        prune_releases(agent, 0)

    for release, model in made[:2]:
        install(board.folder, release, model)
    ask = releases._ask

    def ask_and_lose(agent: Agent, name: str, more: Any) -> Any:
        if name == action:
            board.server.signal_sessions(number)
            monkeypatch.setattr("edgeprune.device.agent.SILENCE_S", 2.0)
        return ask(agent, name, more)

    monkeypatch.setattr(releases, "_ask", ask_and_lose)
    with open_agent("rpi4", "board", "") as agent, pytest.raises(ConnectionFailed, match="board: "):
        walk(agent, *made[2])
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(board.server.home))
    assert board.active() in [release.id for release, _ in made]
    assert board.half_written() == []
    with open_agent("rpi4", "board", "") as agent:
        walk(agent, *made[2])
    assert board.active() == made[1][0].id


def test_a_receiver_that_outlives_its_link_does_no_harm(agent: Agent, board: Board, tmp_path: Path) -> None:
    """The server is frozen in mid upload, the push is resumed by another server's session, then the first goes on."""
    release, model = read_run(tmp_path / "a", LARGE)
    part = board.folder / f"{release.id}.part" / "model.onnx"
    part.parent.mkdir(parents=True)
    command = [sys.executable, "-I", "-c", releases.RECEIVE, str(part), "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as old:
        assert old.stdin is not None
        old.stdin.write(model[: 1 << 20])
        old.stdin.flush()
        assert push_release(agent, release, model).resumed_bytes <= 1 << 20
        old.stdin.write(model[1 << 20 : 2 << 20])
        old.stdin.close()
    assert (old.returncode, board.half_written()) == (0, [])
    activate_release(agent, release.id)
    assert board.active() == release.id


def test_a_part_of_something_else_is_not_resumed(agent: Agent, board: Board, tmp_path: Path) -> None:
    release, model = read_run(tmp_path / "a")
    part = board.folder / f"{release.id}.part" / "model.onnx"
    part.parent.mkdir(parents=True)
    for content in (b"x" * 100, b"x" * (len(model) + 100)):
        part.write_bytes(content)
        assert push_release(agent, release, model).resumed_bytes == 0
        shutil.move(board.folder / release.id, part.parent)


def test_a_push_damaged_on_the_way_is_refused_and_sent_anew(
    agent: Agent, board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, model = read_run(tmp_path / "a", LARGE)
    damaged = model[: 2 << 20] + b"x" + model[(2 << 20) + 1 :]
    run = type(agent.transport).run

    def flip(self: Any, command: Any, *, stdin: bytes = b"", **more: Any) -> Any:
        place = model.find(stdin) if releases.RECEIVE in command else -1
        return run(self, command, stdin=stdin if place < 0 else damaged[place : place + len(stdin)], **more)

    monkeypatch.setattr(type(agent.transport), "run", flip)
    with pytest.raises(
        RemoteError, match=r"model\.onnx of release .* is damaged or missing; run the same command again"
    ):
        push_release(agent, release, model)
    monkeypatch.undo()
    assert (list_releases(agent)[0].whole, board.half_written()) == (False, [])
    assert push_release(agent, release, model).sent_bytes == len(model)


def test_a_full_disk_is_told_with_its_space_and_harms_nothing(board: Board, tmp_path: Path) -> None:
    old, small = read_run(tmp_path / "old")
    new, large = read_run(tmp_path / "new", LARGE)
    board.folder.mkdir(parents=True, mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "none", str(board.folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("needs root, to mount a small disk")
    try:
        with open_agent("rpi4", "board", "") as agent:
            push_release(agent, old, small)
            activate_release(agent, old.id)
            with pytest.raises(
                DeviceError, match=rf"no space for release {new.id}: it needs 5\.0 MiB, [23]\.\d MiB are free"
            ):
                push_release(agent, new, large)
            assert [row.id for row in list_releases(agent)] == [old.id]
            _fill_while_writing(agent, new, large)
            assert (board.active(), board.half_written()) == (old.id, [])
            subprocess.run(["mount", "-o", "remount,size=16m", board.folder], check=True)
            assert push_release(agent, new, large).resumed_bytes >= 1 << 20
            activate_release(agent, new.id)
        assert board.active() == new.id
    finally:
        subprocess.run(["umount", "-l", board.folder], check=True)


def _fill_while_writing(agent: Agent, release: Release, model: bytes) -> None:
    """The disk looked large enough, but fills up under the push."""
    ask = releases._ask

    def look_large(agent: Agent, action: str, more: Any) -> Any:
        row = ask(agent, action, more)
        if action == "prepare":
            part = Path(row["part"])
            part.parent.mkdir(mode=0o700)
            (part.parent / "manifest.json").write_text(release.manifest)
            (part.parent / "run.py").write_text(release.runner)
            row["free"] = 1 << 40
        return row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(releases, "_ask", look_large)
        with pytest.raises(DeviceError, match=r"cannot be written: No space left on device .*what is active stays"):
            push_release(agent, release, model)


# the board's side, killed between any two steps


STEPS = ("replace", "symlink_to", "unlink", "mkdir", "write_text", "write_bytes", "fsync", "rmtree")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("nth", range(6))
def test_a_kill_between_any_two_steps_leaves_a_release_active(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, nth: int
) -> None:
    folder = tmp_path / "releases"
    folder.mkdir()
    made = [read_run(tmp_path / str(count), replace(LINEAR, cout=count)) for count in (3, 4, 5)]
    monkeypatch.setattr(board_side, "try_out", lambda place: "")

    def go_back() -> None:
        board_side.rollback(folder, {})
        board_side.prune(folder, {"keep": 0})

    for release, model in made[:2]:
        install(folder, release, model)
    count = 0
    place: Any = {"fsync": os, "rmtree": shutil}.get(step, Path)
    original = getattr(place, step)

    def fail(*arguments: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count == nth + 1:
            raise KeyboardInterrupt
        return original(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(place, step, fail)
        try:
            install(folder, *made[2])
            go_back()
        except KeyboardInterrupt:
            pass
    current = board_side.find_current(folder)
    assert current in [release.id for release, _ in made[1:]]
    assert board_side.is_whole(folder / str(current))
    assert all(board_side.is_whole(place) for place in board_side.list_places(folder))
    install(folder, *made[2])
    assert board_side.find_current(folder) == made[2][0].id
    go_back()
    assert board_side.find_current(folder) == made[1][0].id
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("name", ["", "..", "../x", "/etc", "a" * 15, "A" * 16, "0" * 16 + "\n", None, 7, "current"])
def test_a_name_never_becomes_a_path_elsewhere(tmp_path: Path, name: object) -> None:
    for action in ("prepare", "finish", "activate"):
        with pytest.raises(AgentError, match="is no release"):
            board_side.ACTIONS[action](tmp_path, {"id": name, "manifest": "", "runner": "", "signature": ""})


@pytest.mark.parametrize(
    "file", ["../model.onnx", "/etc/passwd", "run.py", "manifest.json", "model.onnx\n", ["model.onnx"], None]
)
def test_a_manifest_names_no_other_file(tmp_path: Path, file: object) -> None:
    manifest = {"model": {"file": file, "bytes": 1, "sha256": ""}, "runner": {"sha256": ""}}
    with pytest.raises(AgentError, match="manifest is not one"):
        board_side.read_manifest(json.dumps(manifest).encode())


def test_a_link_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    release, model = read_run(tmp_path / "a")
    place = tmp_path / release.id
    place.mkdir()
    (place / "manifest.json").write_text(release.manifest)
    (place / "run.py").write_text(release.runner)
    (tmp_path / "model").write_bytes(model)
    (place / "model.onnx").symlink_to(tmp_path / "model")
    with pytest.raises(AgentError, match=r"model\.onnx of release"):
        board_side.verify(place)


def test_a_model_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "model.onnx").symlink_to("mine")
    command = [sys.executable, "-I", "-S", "-c", releases.RECEIVE, str(tmp_path / "model.onnx"), "0"]
    done = subprocess.run(command, input=b"other", capture_output=True, check=False)
    assert (done.returncode, (tmp_path / "mine").read_text()) == (1, "mine")


# two clients at once


def test_two_clients_cannot_push_at_once(board: Board, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    arguments = ["push", "--target", "local", "--host", "board", "--run", str(run)]
    hold = (
        "from edgeprune.device.connect import open_agent\n"
        "from edgeprune.device.lease import hold_lease\n"
        "with open_agent('local', 'board', '') as agent, hold_lease(agent, 'release push', print):\n"
        "    print('held', flush=True)\n"
        "    input()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    done = CliRunner().invoke(release_command, arguments)
    assert isinstance(done.exception, DeviceError)
    assert "in use by" in str(done.exception)
    other.communicate("\n")
    done = CliRunner().invoke(release_command, arguments)
    assert done.exit_code == 0, done.output
    assert "bytes sent; next: edgeprune release activate" in done.output


def test_the_commands_say_what_they_did(board: Board, tmp_path: Path) -> None:
    def call(*words: str) -> str:
        done = CliRunner().invoke(release_command, [*words, "--target", "local", "--host", "board"])
        assert isinstance(done.exception, EdgepruneError | None), done.output
        return done.output or str(done.exception)

    assert call("list") == "no releases there\n"
    ids = []
    for count in (3, 4):
        run = make_run(tmp_path / str(count), replace(LINEAR, cout=count))
        ids.append(read_release(run, TARGET)[0].id)
        assert ids[-1] in call("push", "--run", str(run))
        assert f"release {ids[-1]} is active" in call("activate", ids[-1][:8])
    assert "is none of those there" in call("activate", "ffffffff")
    assert f"release {ids[0]} is active again" in call("rollback")
    assert call("prune", "--keep", "0") == f"board: removed {ids[1]}\n"
    assert "active" in call("list")


# the runner


@pytest.mark.parametrize(("runtime", "precision"), [("onnxruntime", "fp32"), ("litert", "fp32"), ("litert", "int8")])
def test_what_was_measured_is_what_runs(board: Board, tmp_path: Path, runtime: str, precision: str) -> None:
    """The runner's output is bit for bit that of the agent, from which the accuracy on the device comes."""
    run = make_run(tmp_path / "a", CONV, runtime, precision)
    release, content = read_release(run, TARGET)
    model = make_model(tmp_path, runtime, CONV, precision)
    assert model.path.read_bytes() == content
    with open_device(TARGET, "board") as device:
        push_release(device.agent, release, content)
        activate_release(device.agent, release.id)
        shape = json.loads(board.run("--check").stdout)
        values = np.random.default_rng(2).standard_normal(
            (2, 3, 16, 16) if runtime == "onnxruntime" else (2, 16, 16, 3)
        )
        inputs = values.astype(np.float32)
        expected = evaluate_model(device, model, inputs, ignore)
    assert shape["model_sha256"] == model.sha256
    np.save(tmp_path / "one.npy", inputs[1:])
    answers = [
        board.run(str(tmp_path / "one.npy")),
        board.run("-", stdin=json.dumps(inputs[1:].tolist())),
    ]
    for done in answers:
        assert done.returncode == 0, done.stderr
        (output,) = json.loads(done.stdout)["outputs"].values()
        np.testing.assert_array_equal(np.array(output, np.float32)[0], expected[1])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[[1, 2]]", r"shape \[1, 2\]; the model takes \[1, 24\]"),
        ("[[1], [1, 2]]", "not a regular nested list of numbers"),
        ('"text"', "not a regular nested list of numbers"),
        ("null", "not a regular nested list of numbers"),
        ("[", "cannot be read as JSON"),
        ('{"other": [1]}', "has inputs other; the model takes"),
        ("[[NaN" + ", 0" * 23 + "]]", "has values that are not finite"),
        ("[[1e999" + ", 0" * 23 + "]]", "has values that are not finite"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(installed: Path, given: str, said: str) -> None:
    done = run_installed(installed, "-", stdin=given)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert re.search(said, done.stderr), done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release's folder."""
    folder = tmp_path_factory.mktemp("installed")
    release, model = read_run(folder / "run", LINEAR)
    for name, content in (("manifest.json", release.manifest), ("run.py", release.runner)):
        (folder / name).write_text(content)
    (folder / "model.onnx").write_bytes(model)
    return folder


def run_installed(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(folder / "run.py"), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def test_arrays_are_of_the_models_type_and_never_pickles(installed: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((1, 24)))
    assert "type float64; the model takes float32" in run_installed(installed, str(tmp_path / "wide.npy")).stderr
    np.save(tmp_path / "object.npy", np.array([[{}]]), allow_pickle=True)
    assert "cannot be read as .npy" in run_installed(installed, str(tmp_path / "object.npy")).stderr
    assert "cannot be read" in run_installed(installed, str(tmp_path / "none.npy")).stderr
    assert run_installed(installed).returncode == 2
