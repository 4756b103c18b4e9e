"""Whatever lies among the releases: nothing of it stops a push, a switch or a removal, or loses the active release."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from device_models import LINEAR
from edgeprune_agent import releases as board_side
from edgeprune_agent.errors import AgentError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from release_board import install, read_run

from edgeprune.core.releasing.release import Release

Made = list[tuple[Release, bytes]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three releases."""
    folder = tmp_path_factory.mktemp("runs")
    return [read_run(folder / str(count), replace(LINEAR, cout=count)) for count in (3, 4, 5)]


def put_file(place: Path) -> None:
    place.write_text("left over")


def put_folder(place: Path) -> None:
    place.mkdir()
    (place / "model.onnx").write_text("half")
    (place / "closed").mkdir(mode=0o500)


def put_link(place: Path) -> None:
    place.symlink_to("nowhere")


def put_link_out(place: Path) -> None:
    place.symlink_to("../outside")


def put_nested(place: Path) -> None:
    put_folder(place)
    (place / "manifest.json").mkdir()
    (place / "run.py").symlink_to("../../outside/mine")
    (place / "manifest.json.sig").mkdir()


KINDS: list[Callable[[Path], None]] = [put_file, put_folder, put_link, put_link_out, put_nested]
NAMES = [
    "{0}.part", "{1}.part", "{2}.part", "{2}", "current.new", "activated.json", "activated.new", "current.part",
    "strange.part", "0123456789abcdef", "0123456789abcdef.part", "allowed_signers.partial",
]  # fmt: skip
LEFT = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(KINDS), max_size=6)
STEPS = st.lists(
    st.tuples(st.sampled_from(["push", "activate", "rollback", "prune", "list"]), st.integers(0, 2)), max_size=6
)


@settings(max_examples=120)
@given(left=LEFT, steps=STEPS)
@example(left={"{2}.part": put_folder, "{2}": put_folder}, steps=[("prune", 0)])
@example(left={"{2}.part": put_folder, "{2}": put_folder}, steps=[("push", 2), ("activate", 2), ("prune", 0)])
@example(left={"{2}.part": put_nested}, steps=[("push", 2)])
@example(left={"activated.json": put_folder, "activated.new": put_folder}, steps=[("activate", 0), ("rollback", 0)])
def test_leftovers_stop_nothing_and_lose_nothing(
    made: Made, left: dict[str, Callable[[Path], None]], steps: list[tuple[str, int]]
) -> None:
    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(board_side, "try_out", lambda place: "")
        folder, outside = Path(place) / "releases", Path(place) / "outside"
        outside.mkdir()
        (outside / "mine").write_text("mine")
        ids = [release.id for release, _ in made]
        for release, model in made[:2]:
            install(folder, release, model)
        for name, put in left.items():
            path = folder / name.format(*ids)
            board_side.remove_all(path)
            put(path)
        active = ids[1]
        for action, which in steps:
            active = do(folder, action, made[which], active)
            assert board_side.find_current(folder) == active
            assert board_side.is_whole(folder / active)
            board_side.describe(folder)
        board_side.prune(folder, {"keep": 0})
        assert not list(folder.glob("*.part"))
        assert board_side.find_current(folder) == active
        for release, model in made:
            install(folder, release, model)
            assert board_side.find_current(folder) == release.id
        assert [path.name for path in outside.iterdir()] == ["mine"]
        assert (outside / "mine").read_text() == "mine"


def do(folder: Path, action: str, made: tuple[Release, bytes], active: str) -> str:
    """One step; gives what is active then. A release that is not there is an error that says so."""
    release, model = made
    request: dict[str, Any] = {"id": release.id, "keep": 0, **asdict(release)}
    try:
        if action == "push":
            told = board_side.prepare(folder, request)
            if not told["there"]:
                Path(told["part"]).write_bytes(model)
                board_side.finish(folder, request)
            assert board_side.is_whole(folder / release.id)
            return active
        board_side.ACTIONS[action](folder, request)
    except AgentError as exc:
        assert action in ("activate", "rollback"), exc  # noqa: PT017
        return active
    if action == "activate":
        return release.id
    return board_side.find_current(folder) or "" if action == "rollback" else active


def test_a_folder_in_the_place_of_current_is_moved_aside(made: Made, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(board_side, "try_out", lambda place: "")
        folder = tmp_path / "releases"
        install(folder, *made[0])
        (folder / "current").unlink()
        shutil.copytree(folder / made[0][0].id, folder / "current")
        install(folder, *made[1])
        assert str((folder / "current").readlink()) == made[1][0].id
        board_side.prune(folder, {"keep": 0})
        assert not (folder / "current.part").exists()


def test_a_release_that_cannot_be_renamed_is_removed_all_the_same(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk so full that a folder has no room for a longer name."""
    monkeypatch.setattr(board_side, "try_out", lambda place: "")
    folder = tmp_path / "releases"
    for release, model in made:
        install(folder, release, model)

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    assert board_side.prune(folder, {"keep": 0}) == {"removed": [made[0][0].id]}
    assert not (folder / made[0][0].id).exists()
    assert board_side.find_current(folder) == made[2][0].id
