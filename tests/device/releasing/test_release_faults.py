"""What breaks a release, on its way or on the board: it is whole or not there, resumed, and switched to at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest
from device_models import LINEAR, ignore
from edgeprune_agent import releases as board_side
from edgeprune_agent.errors import AgentError
from release_board import LARGE, Board, install, read_run
from ssh_server import SshServer

from edgeprune.core.releasing.release import Release
from edgeprune.device.agent.client import Agent
from edgeprune.device.connect import open_agent
from edgeprune.device.releasing import releases
from edgeprune.device.releasing.releases import activate_release, list_releases, prune_releases, push_release, roll_back
from edgeprune.errors import ConnectionFailed, DeviceError, RemoteError

REQUESTS_BYTES = 1 << 16
"""More than a push sends beside the model."""


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
        prune_releases(agent, 0, ignore)

    for release, model in made[:2]:
        install(board.folder, release, model)
    ask = releases._ask

    def ask_and_lose(agent: Agent, name: str, more: Any) -> Any:
        if name == action:
            board.server.signal_sessions(number)
            monkeypatch.setattr("edgeprune.device.agent.client.SILENCE_S", 2.0)
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


STEPS = ("replace", "symlink_to", "unlink", "mkdir", "write_text", "write_bytes", "fsync", "rmdir")


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
    place: Any = os if step == "fsync" else Path
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
