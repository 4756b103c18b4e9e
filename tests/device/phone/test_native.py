"""A board without Python that is a folder here: binaries, archives, probes and outputs, and what goes wrong in each."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_models import CONV, LINEAR, QUICK, ignore, make_model
from native_board import FolderBoard, elf_head, lay_programs, write_stand_in

from edgeprune.core.target import Target
from edgeprune.device.board import ModelFile, ProbeSettings, Session
from edgeprune.device.phone import files, outputs, probes
from edgeprune.device.phone.binary import find_binary
from edgeprune.device.phone.board import NativeBoard
from edgeprune.device.phone.calls import MANY, Call, CallReader, run_many
from edgeprune.device.phone.files import UNPACK, join_files, push_files
from edgeprune.device.phone.probes import call_flags, count_turns, plan_turn
from edgeprune.errors import ConnectionFailed, DeviceError, NoSpace, RemoteError, RuntimeMissing, UsageError
from edgeprune.exporting.runners import run_file

TARGET = Target("pixel8", "a phone of the tests", runtime="litert", protocol=QUICK)
SETTINGS = ProbeSettings(rounds=4, window_s=0.004, budget_s=0.0)


@pytest.fixture
def folder_board(no_devices: Path, tmp_path: Path) -> FolderBoard:
    board = FolderBoard(tmp_path / "board")
    write_stand_in(board.home / "benchmark_model")
    return board


@pytest.fixture
def board(folder_board: FolderBoard) -> NativeBoard:
    return NativeBoard.of(folder_board, TARGET, Session())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[ModelFile]:
    place = tmp_path_factory.mktemp("models")
    return [make_model(place, "litert", shape, precision) for shape in (LINEAR, CONV) for precision in ("fp32", "int8")]


# the binary


def test_a_given_file_is_pushed_once_by_its_hash_and_made_to_run(folder_board: FolderBoard, tmp_path: Path) -> None:
    (folder_board.home / "benchmark_model").unlink()
    file = write_stand_in(tmp_path / "mine")
    binary = find_binary(folder_board, str(file))
    place = folder_board.home / binary.path
    assert place.read_bytes() == file.read_bytes()
    assert binary.sha256[:16] in binary.path
    before = place.stat().st_ino
    assert find_binary(folder_board, str(file)) == binary
    assert place.stat().st_ino == before
    assert binary.saves_outputs


def test_one_that_the_user_put_there_is_taken_though_it_is_not_executable(folder_board: FolderBoard) -> None:
    (folder_board.home / "benchmark_model").chmod(0o600)
    assert find_binary(folder_board, None).path == "./benchmark_model"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "neither Python nor benchmark_model is there; put TFLite's benchmark_model for "),
        ("#!/bin/sh\necho usage: something else\n", "it does not answer --help as it should: usage: something else"),
        ("#!/no/such/interpreter\n", "it is not for this board"),
    ],
)
def test_a_binary_that_cannot_serve_is_refused(text: str | None, said: str, folder_board: FolderBoard) -> None:
    place = folder_board.home / "benchmark_model"
    place.unlink()
    if text is not None:
        place.write_text(text)
    with pytest.raises(RuntimeMissing, match=re.escape(said)):
        find_binary(folder_board, None)


def test_a_program_for_another_processor_is_not_even_pushed(folder_board: FolderBoard, tmp_path: Path) -> None:
    file = tmp_path / "benchmark_model"
    file.write_bytes(elf_head(243) + bytes(100))
    with pytest.raises(RuntimeMissing, match=r"is a program for riscv, but the board is .*; give TFLite's"):
        find_binary(folder_board, str(file))
    assert not (folder_board.home / ".cache").exists()
    with pytest.raises(UsageError, match=r"--benchmark-model: .*No such file"):
        find_binary(folder_board, str(tmp_path / "none"))


# archives


def test_files_go_as_one_archive_and_those_that_are_there_stay(folder_board: FolderBoard) -> None:
    contents = {f"{number:03}": bytes([number]) * number for number in range(200)}
    push_files(folder_board, "a b/files", contents)
    assert len(folder_board.commands) == 2
    place = folder_board.home / "a b" / "files"
    assert {path.name: path.read_bytes() for path in place.iterdir()} == contents
    push_files(folder_board, "a b/files", contents)
    assert len(folder_board.commands) == 3
    assert join_files(folder_board, "a b/files") == b"".join(contents[name] for name in sorted(contents))


def test_without_tar_there_files_go_singly(folder_board: FolderBoard) -> None:
    no_tar = FolderBoard(folder_board.home, _without_tar)
    push_files(no_tar, "files", {"a": b"1", "b": b"22"})
    assert join_files(no_tar, "files") == b"122"


def _without_tar(command: Sequence[str]) -> str | None:
    look = files.LOOK.replace("command -v tar", "false")
    return f'cd -- "$1" && set -- "$6" && {look}' if files.LOOK in command else None


def _instead(script: str, text: str) -> Callable[[Sequence[str]], str | None]:
    """In place of a script the board does something else."""
    return lambda command: f"cat >/dev/null; {text}" if script in command else None


@pytest.mark.parametrize(
    ("script", "text", "kind", "said"),
    [
        (UNPACK, "echo 'tar: write error: No space left on device' >&2; exit 71", NoSpace, "No space left on device"),
        (UNPACK, "exit 72", RemoteError, "files in files were damaged on the way; run the same command again"),
        (
            UNPACK,
            "echo 'mkdir: Read-only file system' >&2; exit 71",
            DeviceError,
            "files cannot be written: mkdir:",
        ),
        (files.LOOK, "echo 'x 100 98 0 100% /'", NoSpace, "no space for files: it needs 3 B, 0 B are free"),
    ],
)
def test_an_archive_that_does_not_arrive_is_told(
    script: str, text: str, kind: type[Exception], said: str, folder_board: FolderBoard
) -> None:
    with pytest.raises(kind, match=said):
        push_files(FolderBoard(folder_board.home, _instead(script, text)), "files", {"a": b"123"})


def test_a_damaged_archive_leaves_nothing_behind(folder_board: FolderBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = files.pack_files
    monkeypatch.setattr(files, "pack_files", lambda contents: pack({**contents, "a": b"12x"}))
    with pytest.raises(RemoteError, match="were damaged on the way"):
        push_files(folder_board, "files", {"a": b"123"})
    assert list((folder_board.home / "files").iterdir()) == []


# calls


def test_calls_are_told_apart_whatever_they_print(folder_board: FolderBoard) -> None:
    calls: list[Call] = []
    script = 'case $1 in 0) printf "half a line";; 1) echo "<x>"; exit 3;; *) echo a; echo b >&2;; esac; cat'
    run_many(folder_board, ["sh", "-c", script, "sh"], ["0", "1", "*"], calls.append)
    assert [(call.number, call.exit_code, call.text.split()) for call in calls] == [
        (0, 0, ["half", "a", "line"]),
        (1, 3, ["<x>"]),
        (2, 0, ["a", "b"]),
    ]


def test_a_command_that_ends_early_is_told(folder_board: FolderBoard) -> None:
    broken = FolderBoard(folder_board.home, _instead(MANY, 'echo "<$5>"; echo gone'))
    with pytest.raises(RemoteError, match=r"board: 0 of 1 calls of benchmark_model came back \(exit code 0\)"):
        run_many(broken, ["true"], ["x"], lambda call: None)


def test_a_line_that_only_looks_like_an_end_is_none() -> None:
    calls: list[Call] = []
    reader = CallReader(calls.append, "m")
    for line in ("<m 0>", "<m>", "<n 0>", "<m 0", "<m x>", "<m 1>\r"):
        reader.feed(line)
    assert [(call.exit_code, call.text) for call in calls] == [(1, "<n 0>\n<m 0\n<m x>")]


# probes


def test_a_turn_calls_every_file_once_and_the_references_in_between() -> None:
    names = [f"n{number}" for number in range(50)]
    order = [step.name for step in plan_turn(names, ("n3", "n7"), 0)]
    assert sorted(set(order)) == sorted(names)
    assert [order.count(name) for name in ("n3", "n7", "n0")] == [3, 3, 1]
    assert (order[:2], order[-2:]) == (["n3", "n7"], ["n3", "n7"])
    others = [name for name in order if name not in ("n3", "n7")]
    backwards = [step.name for step in plan_turn(names, ("n3", "n7"), 1) if step.name not in ("n3", "n7")]
    assert backwards == others[::-1]
    assert [step.name for step in plan_turn(["a"], ("a",), 0)] == ["a"]


def test_there_are_as_many_turns_as_the_time_allows() -> None:
    settings = ProbeSettings(rounds=10, budget_s=60.0)
    assert [count_turns(settings, 100, call_s) for call_s in (0.01, 0.1, 1.0)] == [10, 6, 3]


def test_probes_are_timed_in_turns_and_told_beforehand(
    board: NativeBoard, folder_board: FolderBoard, models: list[ModelFile]
) -> None:
    told: list[str] = []
    windows = board.time_probes(models, 1, replace(SETTINGS, references=(models[0].name,)), told.append)
    assert {name: len(own) for name, own in windows.items()} == {
        models[0].name: 6,
        **{model.name: 3 for model in models[1:]},
    }
    conv = windows[models[2].name]
    assert sorted(window.process for window in conv) == [0, 1, 2]
    assert all(window.p50_ms > 0 and window.wall_ms > 0 for window in conv)
    ends = [window.at_s for window in windows[models[0].name]]
    assert ends == sorted(ends)
    assert any(re.search(r"4 layers, \d+ ms a call, 3 turns: about \d+ s more", text) for text in told)
    assert not list((folder_board.home / ".cache" / "edgeprune" / "native").glob("probes*"))
    assert [len(command) for command in folder_board.commands if MANY in command] != []
    words = next(command for command in folder_board.commands if MANY in command)
    assert {"--num_threads=1", "--use_xnnpack=true", *call_flags(SETTINGS)} <= set(words)


class CutBoard(FolderBoard):
    """Its link is lost after so many calls."""

    calls_left = 3

    def run(self, command: Sequence[str], *, on_line: Callable[[str], None] | None = None, **more: Any) -> Any:
        def count(line: str) -> None:
            if on_line is not None:
                on_line(line)
            self.calls_left -= bool(re.fullmatch(r"<[0-9a-f]{16} 0>", line))
            if not self.calls_left:
                raise ConnectionFailed("board: the connection was lost")

        return super().run(command, on_line=count if MANY in command else on_line, **more)


def test_what_was_timed_before_the_link_was_lost_is_not_timed_again(
    folder_board: FolderBoard, models: list[ModelFile], tmp_path: Path
) -> None:
    cut = NativeBoard.of(CutBoard(folder_board.home), TARGET, Session())
    with pytest.raises(ConnectionFailed):
        cut.time_probes(models, 1, SETTINGS, ignore)
    (record,) = (tmp_path / "cache" / "native").glob("*.jsonl")
    kept_s = [json.loads(line)["at_s"] for line in record.read_text().splitlines()]
    assert len(kept_s) == 3
    with record.open("a") as file:
        file.write('{"turn": 0, "place": 3, "na')
    told: list[str] = []
    whole = FolderBoard(folder_board.home)
    again = NativeBoard.of(whole, TARGET, Session()).time_probes(models, 1, SETTINGS, told.append)
    assert told[0] == "3 calls of an interrupted command are kept"
    assert {len(windows) for windows in again.values()} == {3}
    assert {window.at_s for windows in again.values() for window in windows} >= set(kept_s)
    assert not record.exists()


def test_calls_of_another_binary_or_of_yesterday_are_not_taken_up(
    folder_board: FolderBoard, models: list[ModelFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = NativeBoard.of(CutBoard(folder_board.home), TARGET, Session())
    with pytest.raises(ConnectionFailed):
        cut.time_probes(models, 1, SETTINGS, ignore)
    told: list[str] = []
    with (folder_board.home / "benchmark_model").open("a") as file:
        file.write("# another\n")
    NativeBoard.of(folder_board, TARGET, Session()).time_probes(models[:1], 1, SETTINGS, told.append)
    (record,) = (tmp_path / "cache" / "native").glob("*.jsonl")
    monkeypatch.setattr(probes, "KEPT_S", -1.0)
    assert probes._read(record) == []
    assert not any("interrupted" in text for text in told)


def test_a_probe_that_fails_says_what_the_benchmark_said(
    folder_board: FolderBoard, models: list[ModelFile], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.tflite"
    wrong.write_bytes(b"no model")
    board = NativeBoard.of(folder_board, TARGET, Session())
    with pytest.raises(RemoteError, match=r"board: benchmark_model failed \(exit code 1\)"):
        board.time_probes([models[0], ModelFile.of(wrong, "litert")], 1, SETTINGS, ignore)


# outputs


def test_outputs_are_those_of_the_runtime_here(board: NativeBoard, models: list[ModelFile]) -> None:
    for model in models:
        size = (24,) if "linear" in model.name else (16, 16, 3)
        inputs = np.random.default_rng(0).standard_normal((3, *size)).astype(np.float32)
        there = board.run(model, inputs, ignore)
        assert there.dtype == np.float32
        np.testing.assert_allclose(there, run_file(model.path, inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("userland", ["busybox", "toybox"])
def test_the_shells_and_programs_of_small_systems_serve(userland: str, tmp_path: Path, models: list[ModelFile]) -> None:
    """busybox with ash, as on Yocto and OpenWrt; toybox with mksh, as on Android."""
    place = FolderBoard(tmp_path / "board", path=str(lay_programs(tmp_path / "bin", userland)))
    write_stand_in(place.home / "benchmark_model")
    board = NativeBoard.of(place, replace(TARGET, cores=(max(os.sched_getaffinity(0)),)), Session())
    assert board.binary.has_taskset
    assert (board.facts.machine, board.facts.cores) == (os.uname().machine, os.cpu_count())
    assert {len(own) for own in board.time_probes(models[:2], 1, SETTINGS, ignore).values()} == {3}
    inputs = np.random.default_rng(0).standard_normal((2, 24)).astype(np.float32)
    there = board.run(models[0], inputs, ignore)
    np.testing.assert_allclose(there, run_file(models[0].path, inputs), rtol=1e-5, atol=1e-6)
    assert board.time(models[:1], 1, QUICK, ignore)[models[0].name].runs_per_sample > 1


def test_many_inputs_go_in_chunks_whose_time_is_told(
    board: NativeBoard, folder_board: FolderBoard, models: list[ModelFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "MOST_ROWS", 4)
    told: list[str] = []
    inputs = np.random.default_rng(1).standard_normal((10, 24)).astype(np.float32)
    there = board.run(models[0], inputs, told.append)
    np.testing.assert_allclose(there, run_file(models[0].path, inputs), rtol=1e-5, atol=1e-6)
    commands = [command for command in folder_board.commands if MANY in command]
    assert len(commands) == 3
    assert all({"--num_runs=1", "--warmup_runs=0", "--warmup_min_secs=0"} <= set(command) for command in commands)
    assert re.fullmatch(r"10 inputs, a call each: about \d+ s more", told[0])


def test_outputs_that_are_not_written_are_told(folder_board: FolderBoard, models: list[ModelFile]) -> None:
    def cut_short(command: Sequence[str]) -> str | None:
        if files.JOIN not in command:
            return None
        join = files.JOIN.replace("cat -- *", "cat -- * | head -c 5")
        return f'cd -- "$1" && shift && shift && shift && shift && shift && set -- {shlex.quote(command[-1])}; {join}'

    full = NativeBoard.of(FolderBoard(folder_board.home, cut_short), TARGET, Session())
    with pytest.raises(RemoteError, match=r"5 bytes of outputs of .*, 40 expected: is its disk full\?"):
        full.run(models[0], np.zeros((2, 24), np.float32), ignore)
    left = [path.name for path in (folder_board.home / ".cache" / "edgeprune" / "native").iterdir()]
    assert left == [models[0].file]


def test_a_call_that_is_aborted_says_why(folder_board: FolderBoard, models: list[ModelFile]) -> None:
    """What the tool finds wrong in the inputs is fatal: SIGABRT, with the reason on standard error."""

    def cut_inputs(command: Sequence[str]) -> str | None:
        if MANY not in command:
            return None
        words, home = shlex.join(command), shlex.quote(str(folder_board.home))
        empty = 'for file in .cache/edgeprune/native/run-*/in/*; do : > "$file"; done'
        return f"cd {home} && export HOME={home} && {empty}; {words}"

    board = NativeBoard.of(FolderBoard(folder_board.home, cut_inputs), TARGET, Session())
    with pytest.raises(RemoteError, match=r"failed \(exit code 134\): .*FATAL: The size of .* is 0 bytes"):
        board.run(models[0], np.zeros((2, 24), np.float32), ignore)


def test_inputs_that_do_not_fit_are_refused_before_anything_is_sent(
    board: NativeBoard, folder_board: FolderBoard, models: list[ModelFile]
) -> None:
    before = len(folder_board.commands)
    with pytest.raises(DeviceError, match=r"an input has 12 bytes; the file takes \[1, 24\] float32"):
        board.run(models[0], np.zeros((1, 3), np.float32), ignore)
    assert not any(MANY in command for command in folder_board.commands[before:])


# delegates


@pytest.mark.parametrize(
    ("share", "allow", "said"),
    [
        ("gpu 1 1", False, ""),
        ("gpu 1 2", False, 'only 50.0% of its nodes ran on "gpu"'),
        ("gpu 1 2", True, ""),
        ("gpu 0 2", False, 'only 0.0% of its nodes ran on "gpu"'),
    ],
)
def test_nodes_that_a_delegate_leaves_to_the_cpu_are_refused_unless_allowed(
    share: str, allow: bool, said: str, folder_board: FolderBoard, models: list[ModelFile]
) -> None:
    (folder_board.home / "delegates").write_text(share)
    target = replace(TARGET, provider="gpu", allow_fallback=allow)
    board = NativeBoard.of(folder_board, target, Session())
    if said:
        for work in (
            lambda: board.time(models[:1], 1, QUICK, ignore),
            lambda: board.time_probes(models[:1], 1, SETTINGS, ignore),
            lambda: board.run(models[0], np.zeros((1, 24), np.float32), ignore),
        ):
            with pytest.raises(RemoteError, match=said):
                work()
        return
    measured = board.time(models[:1], 1, QUICK, ignore)[models[0].name]
    taken = 1.0 if share == "gpu 1 1" else 0.5
    assert measured.providers == {"gpu": taken, "cpu": 1 - taken}
    assert measured.runs_per_sample > 1
    assert (measured.runtime_version, measured.peak_memory_mib) == ("benchmark_model (TFLite)", 30.5)
    assert board.runtime_version("litert") == "benchmark_model (TFLite)+gpu"


def test_a_delegate_that_was_not_built_in_is_told(folder_board: FolderBoard, models: list[ModelFile]) -> None:
    place = folder_board.home / "benchmark_model"
    place.write_text(place.read_text().replace('"use_nnapi": (', '"other": ('))
    board = NativeBoard.of(folder_board, replace(TARGET, provider="nnapi"), Session())
    with pytest.raises(RuntimeMissing, match=r'provider = "nnapi": this benchmark_model knows no --use_nnapi'):
        board.time(models[:1], 1, QUICK, ignore)


def test_what_commands_left_whose_link_was_lost_is_removed(folder_board: FolderBoard) -> None:
    place = folder_board.home / ".cache" / "edgeprune" / "native"
    for name in ("run-1234/in", "incoming-12", "probes/incoming-3", "probes"):
        (place / name).mkdir(parents=True, exist_ok=True)
    (place / "kept.tflite").touch()
    NativeBoard.of(folder_board, TARGET, Session())
    assert sorted(path.name for path in place.rglob("*")) == ["kept.tflite", "probes"]
    shutil.rmtree(place)
