"""An emulated microcontroller as a board: what it does, and what it says that it cannot."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from integer_nets import build_integer_net

from edgeprune.core.cost import INSTRUCTIONS
from edgeprune.core.latency.layers import LayerShape
from edgeprune.device.board import ModelFile, ProbeSettings, Session, require
from edgeprune.device.boards import describe_address, is_counted, open_board
from edgeprune.device.mcu.board import ROWS
from edgeprune.errors import DeviceError, TargetError, UsageError
from edgeprune.exporting.probing.probes import write_probes
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
def test_it_counts_in_place_of_timing_and_says_what_it_lacks() -> None:
    with open_board(TARGET, None) as board:
        assert board.unit == INSTRUCTIONS
        assert board.runtime_version("c").startswith("arm-none-eabi-gcc ")
        assert board.facts.machine == "mps2-an386"
        require(board, "time", "time_probes", "run")
        with pytest.raises(DeviceError, match="qemu: cannot measure energy: an emulator counts instructions"):
            require(board, "energy")
        with pytest.raises(DeviceError, match="tells no time"):
            board.nodes(ModelFile("net", Path("net.tflite"), "0", "c"), 1, print)


@needs_tools
def test_a_file_is_counted_the_same_each_time_and_over_inputs_within_a_range(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(build_integer_net())
    model = ModelFile.of(path, "c")
    with open_board(TARGET, None) as board:
        first, again = (board.time([model], 1, TARGET.protocol, print)["net"] for _ in range(2))
        (probe,) = board.time_probes([model], 1, ProbeSettings(), print)["net"]
    assert first.samples_ms == again.samples_ms
    assert len(first.samples_ms) == ROWS
    assert probe.p50_ms == first.samples_ms[0]
    assert (first.unit, first.init_ms, first.problems) == (INSTRUCTIONS, None, ())
    low, high = first.spread().bound(0.001)
    assert low == high == first.latency.p50_ms


@needs_tools
def test_what_it_has_none_of_is_refused() -> None:
    with pytest.raises(UsageError, match="leave --set-governor out"), open_board(TARGET, None, print, Session(True)):
        pass
    with pytest.raises(DeviceError, match="onnxruntime does not run on a cortex-m4"), open_board(TARGET, None) as board:
        board.run(ModelFile("net", Path("net.onnx"), "0", "onnxruntime"), np.zeros((1, 2), np.float32), print)


@needs_tools
def test_many_files_are_built_at_once_from_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share sources, which must not be compiled into one another's object."""
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    shapes = [LayerShape("linear", 4, count) for count in (1, 2, 4, 8)]
    files = write_probes(shapes, "tflite", "int8", tmp_path)
    models = [ModelFile.of(path, "c") for path in files.values()]
    with open_board(TARGET, None) as board:
        windows = board.time_probes(models, 1, ProbeSettings(), print)
    counts = [windows[model.name][0].p50_ms for model in models]
    assert counts == sorted(set(counts))


def test_a_microcontroller_without_an_address_is_its_core_in_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEPRUNE_HOST", raising=False)
    for name in ("qemu-cortex-m4", "stm32l4r5", "nrf5340", "rp2350"):
        assert describe_address(load_target(name), None) == "QEMU on this machine"
    assert not is_counted(load_target("stm32l4r5"), "serial:/dev/ttyACM0")
    assert not is_counted(load_target("rpi4"), None)


@pytest.mark.parametrize("name", ["rp2040", "esp32-s3", "cortex-m55-ethos-u55"])
def test_a_core_that_qemu_lacks_is_refused_with_what_can_be_done(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEPRUNE_HOST", raising=False)
    with pytest.raises(TargetError, match=f"target {name}: .*edgeprune fit") as error:
        describe_address(load_target(name), None)
    assert "\n" not in str(error.value)


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
