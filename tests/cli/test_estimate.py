"""`edgeprune estimate`: what is said of a file on a microcontroller, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import run_command

from edgeprune.core.formats import RUNTIMES

pytest.importorskip("ai_edge_litert")

from mcu_files import TARGET, put_model, put_target, put_vela


def estimate(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code, printed, error = run_command(capsys, "estimate", *words)
    return code, printed + error


def test_every_figure_says_what_it_is_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = estimate(capsys, put_model(tmp_path), "--target", put_target(tmp_path))
    assert code == 0
    assert "on board: Cortex-M4 at 120 MHz, TensorFlow Lite Micro with CMSIS-NN" in text
    for line in text.splitlines():
        if line.strip().startswith(("cycles ", "latency ")):
            assert line.endswith("estimated")
            assert " to " in line
    assert "MLPerf Tiny v0.5 reference" in text
    assert "passes no gate" in text
    assert "not counted" not in text, "this runtime computes dead channels too"
    assert "no result in litert, the target's runtime, was published" in text


def test_dead_channels_are_left_out_where_the_runtime_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (put_model(tmp_path), "--target", put_target(tmp_path), "--json", "--runtime")
    figures = {name: json.loads(estimate(capsys, *words, name)[1]) for name in ("x-cube-ai", "hale")}
    dropped = 36 * 2 * 27 + 36 * 2 * 9 + 36 * 2 * 16
    assert figures["x-cube-ai"]["dropped_macs"] == dropped
    assert figures["hale"]["dropped_macs"] == 0
    assert figures["x-cube-ai"]["macs"] == figures["hale"]["macs"]
    assert figures["x-cube-ai"]["cycles"]["cycles"] == pytest.approx(
        sum(row["cycles"] for row in figures["x-cube-ai"]["layers"])
    )


def test_a_runtime_that_was_not_published_on_a_core_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = put_target(tmp_path, TARGET.replace("Cortex-M4F", "dual Cortex-M0+"))
    code, text = estimate(capsys, put_model(tmp_path), "--target", target)
    assert code == 0
    assert "no published result of Cortex-M0+ in this runtime" in " ".join(text.split())


def test_the_runtime_of_an_esp32_is_with_its_own_kernels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = put_target(tmp_path, TARGET.replace("Arm Cortex-M4F", "2x Xtensa LX7 (ESP32-S3)"))
    code, text = estimate(capsys, put_model(tmp_path), "--target", target)
    assert code == 0
    assert "TensorFlow Lite Micro with ESP-NN" in text


@pytest.mark.parametrize(("runtime", "note"), [("c", "no result of generated C was published"), ("tflm", "")])
def test_the_runtimes_of_microcontrollers_are_estimated_as_their_kernels(
    runtime: str, note: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RUNTIMES, runtime, replace(RUNTIMES["litert"], name=runtime))
    target = put_target(tmp_path, TARGET.replace("litert", runtime))
    code, text = estimate(capsys, put_model(tmp_path), "--target", target)
    assert code == 0
    assert "TensorFlow Lite Micro with CMSIS-NN" in text
    assert ("note:" in text) == bool(note)
    assert note in text


def test_an_ethos_is_estimated_by_vela(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_vela(tmp_path, monkeypatch)
    target = put_target(tmp_path, TARGET.replace("Cortex-M4F", "Cortex-M55, Ethos-U55-256"))
    code, text = estimate(capsys, put_model(tmp_path), "--target", target)
    assert code == 0
    assert "5,000, estimated by vela" in text
    assert "3 operator(s) are left to the CPU" in text
    assert "the target's processor has 120 MHz; vela's figures are for 500 MHz" in " ".join(text.split())
    assert "SRAM     2,048 bytes, flash 1,536 bytes" in text
    code, text = estimate(capsys, put_model(tmp_path), "--target", target, "--runtime", "tflm")
    assert code == 2
    assert "leave it out" in text


@pytest.mark.parametrize(
    ("target", "runtime", "code", "message"),
    [
        (TARGET.replace("Cortex-M4F", "Cortex-A72"), "tflm", 2, "is no microcontroller"),
        (TARGET.replace("cpu_mhz", "memory"), "tflm", 2, "cpu_mhz"),
        (TARGET.replace("Cortex-M4F", "Cortex-M55"), "tflm", 1, "no estimate of Cortex-M55"),
        (TARGET, "esp-dl", 1, "no estimate of Cortex-M4 in 'esp-dl'"),
    ],
)
def test_a_board_that_nothing_was_published_of_is_refused(
    target: str, runtime: str, code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (put_model(tmp_path), "--target", put_target(tmp_path, target), "--runtime", runtime)
    ended, text = estimate(capsys, *words)
    assert ended == code
    assert message in " ".join(text.split())


@pytest.mark.parametrize("cpu", ["Cortex-M4F", "Cortex-M55, Ethos-U55-256"])
def test_a_file_in_float_is_refused(cpu: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = put_target(tmp_path, TARGET.replace("Cortex-M4F", cpu))
    code, text = estimate(capsys, put_model(tmp_path, kind=np.float32), "--target", target)
    assert code == 2
    assert "not all int8" in text
