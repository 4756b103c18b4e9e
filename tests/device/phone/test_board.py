"""A phone without Python as a board: what it cannot do is told."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from edgeprune.core.measuring.measurement import NO_POWER_SENSOR, DeviceFacts
from edgeprune.core.planning.budget import Budget
from edgeprune.core.releasing.gate import Gate
from edgeprune.core.target import Target
from edgeprune.device.board import DEEDS, Board, Session, require
from edgeprune.device.phone.binary import Binary
from edgeprune.device.phone.board import NativeBoard
from edgeprune.errors import DeviceError, TargetError, UsageError

FACTS = DeviceFacts("adb:R58M", "aarch64", "a phone", "a SoC", 8, (), 4000, "Android 14", "5.15", "", {"tflite": "x"})
TARGET = Target("pixel8", "a phone", runtime="litert")


@pytest.fixture
def board() -> NativeBoard:
    flags = frozenset({"graph", "num_runs", "input_layer_value_files", "output_filepath", "use_xnnpack"})
    transport: Any = SimpleNamespace(host="adb:R58M")
    return NativeBoard(transport, TARGET, FACTS, Binary("./benchmark_model", "f" * 64, flags))


def test_what_benchmark_model_does_not_do_is_refused_with_the_reason(board: NativeBoard) -> None:
    told: Board = board
    require(told, "time", "time_probes", "run")
    assert set(told.lacks) == set(DEEDS) - {"time", "time_probes", "run"}
    for method in ("energy", "nodes", "sustain"):
        with pytest.raises(DeviceError, match=rf"adb:R58M: cannot {DEEDS[method]}: that needs Python there"):
            require(told, "time", method)
        with pytest.raises(DeviceError, match="needs Python there"):
            getattr(board, method)()
    with pytest.raises(DeviceError, match="cannot tell percentiles of single runs: benchmark_model tells the mean"):
        require(told, "time", "percentiles")
    assert (board.is_remote, board.unit, board.check_power(TARGET)) == (True, "ms", NO_POWER_SENSOR)
    assert (board.runtime_version("litert") != "", board.runtime_version("onnxruntime")) == (True, "")


def test_an_old_benchmark_model_times_but_cannot_run_inputs(board: NativeBoard) -> None:
    flags = board.binary.flags - {"output_filepath"}
    old = replace(board, binary=replace(board.binary, flags=flags))
    require(old, "time", "time_probes")
    with pytest.raises(DeviceError, match="cannot run a file on inputs: this benchmark_model knows no"):
        require(old, "run")


@pytest.mark.parametrize(
    "limits", [{"budget": Budget(energy_mj=3.0)}, {"gates": (Gate("energy_mj", at_most=3.0),)}], ids=["budget", "gate"]
)
def test_a_limit_on_energy_is_refused_where_nothing_measures_it(board: NativeBoard, limits: dict[str, Any]) -> None:
    with pytest.raises(TargetError, match=r"target pixel8: a limit on energy_mj, but adb:R58M has no power sensor"):
        board.check_power(replace(TARGET, **limits))


@pytest.mark.parametrize(
    ("session", "option"), [(Session(set_governor=True), "--set-governor"), (Session(shapes={"": (1, 3)}), "--shape")]
)
def test_what_needs_python_is_refused_before_the_phone_is_asked(session: Session, option: str) -> None:
    transport: Any = SimpleNamespace(host="adb:R58M")
    with pytest.raises(UsageError, match=f"adb:R58M: {option} needs Python there"):
        NativeBoard.of(transport, TARGET, session)
