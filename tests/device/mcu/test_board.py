"""An emulated microcontroller as a board: what it does, and what it says that it cannot."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from integer_nets import build_integer_net

from edgeprune.device.board import INSTRUCTIONS, ModelFile, Session, require
from edgeprune.device.boards import describe_address, open_board
from edgeprune.errors import DeviceError, TargetError, UsageError
from edgeprune.exporting.tflite.run import run_tflite
from edgeprune.shipped import load_target

HAS_TOOLS = all(map(shutil.which, ("arm-none-eabi-gcc", "qemu-system-arm")))
needs_tools = pytest.mark.skipif(not HAS_TOOLS, reason="no arm-none-eabi-gcc or qemu-system-arm; see test_packages.sh")
TARGET = load_target("qemu-cortex-m4")


@needs_tools
def test_it_runs_a_file_with_float_ends_as_litert_does(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(build_integer_net(ends=True))
    rows = np.random.default_rng(3).normal(size=(4, 8, 8, 4)).astype(np.float32)
    with open_board(TARGET, None) as board:
        outputs = board.run(ModelFile.of(path, "c"), rows, print)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, run_tflite(path, rows, optimised=False), atol=1e-6)


@needs_tools
def test_it_counts_and_lacks_time(tmp_path: Path) -> None:
    with open_board(TARGET, None) as board:
        assert board.unit == INSTRUCTIONS
        assert board.runtime_version("c").startswith("arm-none-eabi-gcc ")
        assert board.facts.machine == "mps2-an386"
        with pytest.raises(DeviceError, match="qemu: cannot time files: an emulator counts instructions"):
            require(board, "time")
        for method in board.lacks:
            with pytest.raises(DeviceError, match="tells no time"):
                getattr(board, method)()


@needs_tools
def test_what_it_has_none_of_is_refused() -> None:
    with pytest.raises(UsageError, match="leave --set-governor out"), open_board(TARGET, None, print, Session(True)):
        pass
    with pytest.raises(DeviceError, match="onnxruntime does not run on a cortex-m4"), open_board(TARGET, None) as board:
        board.run(ModelFile("net", Path("net.onnx"), "0", "onnxruntime"), np.zeros((1, 2), np.float32), print)


def test_deploying_to_it_is_refused_at_once() -> None:
    with pytest.raises(TargetError, match="tells no time"):
        describe_address(TARGET, None)


def test_a_real_microcontroller_is_not_taken_for_this_machine() -> None:
    real = replace(TARGET, name="stm32l4r5")
    with pytest.raises(TargetError, match=r"stm32l4r5: nothing here runs or times files with c, .*--format c"):
        describe_address(real, None)
    with pytest.raises(TargetError, match="nothing here runs or times files with c"), open_board(real, None):
        pass


@needs_tools
def test_a_file_is_counted_by_the_command_without_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(build_integer_net())
    code, text, _ = call("measure", path, "--target", "qemu-cortex-m4", "--output", tmp_path / "counts.json")
    assert code == 0
    assert "0_conv_2d" in text
    assert "instructions are no time" in text
    assert " ms" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_commands_refuse_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(build_integer_net())

    def refuse(*words: object) -> str:
        code, _, error = call("export", *words)
        assert code == 2
        return error

    assert "expected both" in refuse(path)
    assert "--core and --output are for a ready file" in refuse("--core", "cortex-m4")
    assert "--speedup is for a run" in refuse(path, "--format", "c", "--speedup", "2")
    both = ("--core", "cortex-m4", "--target", "qemu-cortex-m4")
    assert "give one of them" in refuse(path, "--format", "c", *both)
    assert "is none that C is generated for" in refuse(path, "--format", "c", "--target", "local")
