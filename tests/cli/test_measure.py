"""Measuring ready files from the command line: one alone, one for long, two against each other."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from device_models import CONV, make_model
from release_board import make_run

from edgeprune.cli import compare as cli_compare
from edgeprune.cli import main
from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.measuring.measurement import Conditions, DeviceFacts, Measurement
from edgeprune.core.measuring.windows import Window
from edgeprune.device import boards

pytestmark = pytest.mark.alone

LARGE = LayerShape("conv", 64, 64, (3, 3), (1, 1), 1, (16, 16), (1, 1))
TARGET = """
description = "this machine, quickly"
cores = [{core}]
[protocol]
min_samples = 20
min_duration_s = 0.05
max_warmup_s = 0.1
"""

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(no_devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Call:
    """Run a command on this machine; gives its exit code and what it printed."""
    monkeypatch.setenv("EDGEPRUNE_HOST", "local")
    monkeypatch.setattr(cli_compare, "COMPARE_S", 0.3)
    target = tmp_path / "quick.toml"
    target.write_text(TARGET.format(core=max(os.sched_getaffinity(0))))

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in (*words, "--target", target)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_a_file_is_measured_and_written_with_its_samples(call: Call, tmp_path: Path) -> None:
    model, output = make_model(tmp_path, "onnxruntime"), tmp_path / "measured.json"
    code, said, _ = call("measure", model.path, "--output", output)
    assert code in (0, 4)
    assert re.search(r"p50 [0-9.]+ \[[0-9.]+, [0-9.]+\]", said)
    assert f"cores {max(os.sched_getaffinity(0))}" in said
    found = json.loads(output.read_text())
    assert (found["sha256"], found["file"]) == (model.sha256, model.path.name)
    assert sum(window["count"] for window in found["windows"]) == len(found["samples_ms"]) >= 20
    assert found["processor"]["windows"] == len(found["windows"])
    assert [sorted(shape) for shape in found["inputs"].values()] == [[1, 3, 16, 16]]
    assert "inputs: " in said
    assert "had a core" in said
    assert (code == 0) == (found["problems"] == [])


def test_weights_that_lie_beside_a_file_go_with_it(call: Call, tmp_path: Path) -> None:
    """The copy of the file that is pushed runs where nothing lies beside it."""
    whole = make_model(tmp_path, "onnxruntime").path
    beside, output = tmp_path / "beside.onnx", tmp_path / "measured.json"
    onnx.save(onnx.load(whole), beside, save_as_external_data=True, location="beside.data", size_threshold=0)
    code, said, told = call("measure", beside, "--output", output)
    assert code in (0, 4), told
    assert "beside.onnx: the weights that lie beside it are sent inside it" in told
    assert re.search(r"p50 [0-9.]+ \[[0-9.]+, [0-9.]+\]", said)
    assert json.loads(output.read_text())["file"] == "beside.onnx"
    code, _, told = call("compare", beside, whole)
    assert code in (0, 4), told
    (tmp_path / "beside.data").unlink()
    code, _, told = call("measure", beside)
    assert (code, "its weights lie in beside.data, which is not in" in told) == (2, True)


def test_a_sustained_run_is_shown_over_time(call: Call, tmp_path: Path) -> None:
    output = tmp_path / "sustained.json"
    model = make_model(tmp_path, "onnxruntime")
    code, said, told = call("measure", model.path, "--sustained", "4s", "--output", output)
    assert code in (0, 4), told
    assert (code == 4) == ("not valid: " in said)
    assert "against the first" in said
    found = json.loads(output.read_text())
    assert len(found["windows"]) >= 6
    assert found["change"]["ratio"] > 0


def test_two_files_take_turns(call: Call, tmp_path: Path) -> None:
    small, large = (make_model(tmp_path, "onnxruntime", shape) for shape in (CONV, LARGE))
    output = tmp_path / "compared.json"
    code, said, told = call("compare", small.path, large.path, "--output", output)
    if "not valid" in said:
        assert (code, "nothing follows from a run that is not valid" in said) == (4, True), told
    else:
        assert (code, f"{large.path} is slower than {small.path}" in said) == (0, True), told
    found = json.loads(output.read_text())
    assert found["comparison"]["verdict"] == ("inconclusive" if "not valid" in said else "slower")
    assert found["comparison"]["processes"] == 12
    assert found["comparison"]["low"] > 1
    assert set(found["measurements"]) == {"A", "B"}
    windows = {name: found["measurements"][name]["windows"] for name in "AB"}
    assert [{window["process"] for window in windows[name]} for name in "AB"] == [set(range(12))] * 2


def test_a_file_against_itself_is_neither_faster_nor_slower_than_its_margin(call: Call, tmp_path: Path) -> None:
    model, output = make_model(tmp_path, "onnxruntime"), tmp_path / "compared.json"
    code, _, _ = call("compare", model.path, model.path, "--margin", "50", "--output", output)
    found = json.loads(output.read_text())["comparison"]
    assert (found["margin"], code in (0, 4)) == (0.5, True)
    assert (code == 4) == (found["verdict"] == "inconclusive")


def steady_windows(latency_ms: float) -> tuple[Window, ...]:
    """Thirty windows of one run each, in ten processes that differ by tenths of a percent."""
    return tuple(
        Window(number % 10, 0.1 * number, latency_ms * (1 + 0.001 * (number % 10)), 1, latency_ms, 1.0, 0.0)
        for number in range(30)
    )


@pytest.mark.parametrize(("problems", "verdict"), [((), "slower"), (("throttled: under-voltage",), "inconclusive")])
def test_nothing_follows_from_a_run_that_is_not_valid(
    problems: tuple[str, ...], verdict: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(target: Any, host: Any, models: Any, *_: Any) -> tuple[DeviceFacts, dict[str, Measurement]]:
        facts = DeviceFacts("board", "aarch64", "", "a CPU", 4, (), 1000, "", "", "", {})
        taken = {
            name: Measurement(
                name,
                "",
                "onnxruntime",
                "1",
                "",
                Conditions(1),
                1.0,
                1.0,
                1,
                (ms,) * 30,
                None,
                windows=steady_windows(ms),
            )
            for name, ms in (("A", 1.0), ("B", 2.0))
        }
        return facts, taken | {"B": replace(taken["B"], problems=problems)}

    monkeypatch.setattr(boards, "measure_files", measure)
    model, output = make_model(tmp_path, "onnxruntime"), tmp_path / "compared.json"
    code, said, told = call("compare", model.path, model.path, "--output", output)
    assert output.exists(), told
    found = json.loads(output.read_text())["comparison"]
    assert (code, found["verdict"]) == (4 if problems else 0, verdict)
    assert ("is slower than" in said) == (not problems)
    assert [line for line in said.splitlines() if "not valid: " in line] == [f"not valid: B: {one}" for one in problems]


def test_a_run_that_did_not_pass_is_not_compared(call: Call, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", verdict="fail")
    code, _, told = call("compare", run, run)
    assert (code, "only a run that passed its gates" in told) == (1, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "{model}"], "two files are compared on a board, A and B; found 1"),
        (["compare", "{model}", "{text}"], "expected an .onnx or .tflite file, or a run directory"),
        (["measure", "{text}"], "expected an .onnx or .tflite file"),
        (["measure", "{model}", "--sustained", "10"], "'10' is not a time"),
        (["measure", "{model}", "--speedup", "2"], "--speedup is for a run"),
        (["measure", "--sustained", "10m"], "are for a ready file"),
        (["measure", "{model}", "--set-governor"], "governor"),
    ],
)
def test_a_call_that_cannot_be_meant_is_told(words: list[str], said: str, call: Call, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    names = {"model": make_model(tmp_path, "onnxruntime").path, "text": tmp_path / "notes.txt"}
    if said == "governor" and list(Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor")):
        pytest.skip("this machine has a governor; it is left alone")
    code, _, told = call(*(word.format(**names) for word in words))
    assert (code in (1, 2), said in told) == (True, True), told


def test_without_a_target_runs_are_shown_and_files_are_refused(tmp_path: Path, capsys: Any) -> None:
    model = make_model(tmp_path, "onnxruntime")
    for words, said in (
        (["compare", str(model.path)], "to measure two files on a board, give --target"),
        (["compare", str(tmp_path), "--host", "a"], "--target is needed to measure on a board"),
        (["measure", str(model.path)], "--target is needed to measure a file"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert (ended.value.code, said in capsys.readouterr().err) == (2, True)
