"""Releases on a board, over a real OpenSSH server: made from a run, pushed, made active, gone back to."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from device_models import LINEAR, ignore
from places import DEPLOY
from release_board import TARGET, Board, make_run, read_run, write_run

from edgeprune.cli.releases import release as release_command
from edgeprune.core.releasing.release import Release, find_release, render_releases
from edgeprune.device.agent.client import Agent
from edgeprune.device.releasing.releases import (
    activate_release,
    list_releases,
    prune_releases,
    push_release,
    read_release,
    roll_back,
)
from edgeprune.errors import DeviceError, EdgepruneError, RemoteError, RunError, UsageError

RUNNER = DEPLOY / "runner" / "run.py"


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
    with pytest.raises(RunError, match=r"is not what it was when it was made .* --from export"):
        read_release(run, TARGET)
    model.unlink()
    with pytest.raises(RunError, match=r"is gone; make it anew: .* --from export"):
        read_release(run, TARGET)


def test_a_verdict_written_by_hand_is_not_released(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", verdict="fail")
    report = run / "report.json"
    report.write_text(report.read_text().replace('"verdict": "fail"', '"verdict": "pass"'))
    with pytest.raises(RunError, match=r"report\.json: is not what it was when it was made .* --from report"):
        read_release(run, TARGET)


def test_a_hash_written_by_hand_is_not_released(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    export, (model,) = run / "stages" / "export.json", (run / "artifacts").iterdir()
    model.write_bytes(model.read_bytes() + b"x")
    row = json.loads(export.read_text())["artifacts"][0]
    export.write_text(export.read_text().replace(row["sha256"], hashlib.sha256(model.read_bytes()).hexdigest()))
    with pytest.raises(RunError, match=r"export\.json: is not what it was"):
        read_release(run, TARGET)


@pytest.mark.parametrize("path", ["../secret", "/etc/hostname", "artifacts/../../secret", "link"])
def test_a_report_cannot_reach_out_of_its_run(tmp_path: Path, path: str) -> None:
    run = make_run(tmp_path / "a")
    (tmp_path / "secret").write_text("secret")
    (run / "link").symlink_to(tmp_path / "secret")
    report, export = (json.loads((run / name).read_text()) for name in ("report.json", "stages/export.json"))
    (row,) = export["artifacts"]
    model, report["result"]["artifact"] = row["path"], path
    write_run(run, report, {**row, "path": path}, model)
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
    assert prune_releases(agent, 1, ignore) == [ids[1]]
    assert prune_releases(agent, 0, ignore) == [ids[2]]
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
