"""A phone without Python as a board: what it cannot do is told, and one client at a time has it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeprune.core.measuring.measurement import NO_POWER_SENSOR, DeviceFacts
from edgeprune.core.target import Target
from edgeprune.device.board import DEEDS, Board, Session, require
from edgeprune.device.phone import board as native_board
from edgeprune.device.phone.board import NativeBoard, hold_on_host
from edgeprune.errors import DeviceError, UsageError

FACTS = DeviceFacts("adb:R58M", "aarch64", "a phone", "a SoC", 8, (), 4000, "Android 14", "5.15", "", {"tflite": "x"})
TARGET = Target("pixel8", "a phone", runtime="litert")


@pytest.fixture
def board() -> NativeBoard:
    return NativeBoard(SimpleNamespace(host="adb:R58M"), TARGET, FACTS)  # type: ignore[arg-type]


def test_all_but_timing_files_is_refused_with_the_reason(board: NativeBoard) -> None:
    told: Board = board
    require(told, "time")
    assert set(told.lacks) == set(DEEDS) - {"time"}
    for method, words in DEEDS.items():
        if method != "time":
            with pytest.raises(DeviceError, match=rf"adb:R58M: cannot {words}: that needs Python there"):
                require(told, "time", method)
            with pytest.raises(DeviceError, match="needs Python there"):
                getattr(board, method)()
    assert (board.is_remote, board.unit, board.check_power(TARGET)) == (True, "ms", NO_POWER_SENSOR)
    assert (board.runtime_version("litert") != "", board.runtime_version("onnxruntime")) == (True, "")


@pytest.mark.parametrize(
    ("session", "option"), [(Session(set_governor=True), "--set-governor"), (Session(shapes={"": (1, 3)}), "--shape")]
)
def test_what_needs_python_is_refused_before_the_phone_is_asked(session: Session, option: str) -> None:
    transport: Any = SimpleNamespace(host="adb:R58M")
    with pytest.raises(UsageError, match=f"adb:R58M: {option} needs Python there"):
        NativeBoard.of(transport, TARGET, session)


def _hold(identity: str, cache: str, ready: Any, done: Any) -> None:
    native_board.cache_dir = lambda: Path(cache)  # type: ignore[attr-defined]
    with hold_on_host(identity, "theirs"):
        ready.put(1)
        done.get(timeout=30)


def test_one_process_has_a_phone_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_board, "cache_dir", lambda: tmp_path)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Queue(), context.Queue()
    other = context.Process(target=_hold, args=("adb serial R58M", str(tmp_path), ready, done))
    other.start()
    ready.get(timeout=60)
    said = "adb serial R58M: another edgeprune of this machine is at work on it"
    with pytest.raises(DeviceError, match=said), hold_on_host("adb serial R58M", "ours"):
        pass
    with hold_on_host("adb serial OTHER", "ours"):
        pass
    done.put(1)
    other.join(timeout=30)
    with hold_on_host("adb serial R58M", "ours"):
        pass


def test_a_lock_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leases").write_text("a file")
    monkeypatch.setattr(native_board, "cache_dir", lambda: tmp_path)
    with pytest.raises(DeviceError, match=r"leases.*cannot be written"), hold_on_host("adb serial R58M", "ours"):
        pass
