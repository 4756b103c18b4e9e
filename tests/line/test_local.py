"""The main job, end to end, on this machine."""

import hashlib
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line import QUICK, TINY, command, deploy, environment

from edgeprune.exporting.metadata import read_metadata
from edgeprune.pipeline import LINE

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """One finished run: its directory, its report and what it printed."""
    folder = tmp_path_factory.mktemp("line")
    report, printed = deploy(folder / "run", folder / "cache")
    return folder / "run", report, printed


def test_every_artifact_is_there_with_its_checksum(run: tuple[Path, dict[str, Any], str]) -> None:
    directory, report, _ = run
    names = {(row["role"], row["format"], row["precision"]) for row in report["artifacts"]}
    pruned = {("pruned", form, precision) for form in ("onnx", "tflite") for precision in ("fp32", "fp16", "int8")}
    assert names == pruned | {("original", "onnx", "fp32"), ("original", "tflite", "fp32")}
    for row in report["artifacts"]:
        content = (directory / row["path"]).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (row["sha256"], row["bytes"])


def test_speedup_is_the_ratio_of_the_windows_of_each_process(run: tuple[Path, dict[str, Any], str]) -> None:
    directory, report, _ = run
    raw = json.loads((directory / "measurements.json").read_text())
    before, after = (raw[name]["windows"] for name in ("original-onnx-fp32", "pruned-onnx-fp32"))
    ratios = []
    for process in range(2):
        medians = [np.median([one["p50_ms"] for one in of if one["process"] == process]) for of in (before, after)]
        ratios.append(medians[0] / medians[1])
    assert report["speedup"] == pytest.approx(np.exp(np.mean(np.log(ratios))), rel=0.3)
    assert report["speedup_interval"][0] <= report["speedup"] <= report["speedup_interval"][1]


def test_the_shipped_file_is_smaller_and_what_the_plan_says(run: tuple[Path, dict[str, Any], str]) -> None:
    import onnx

    directory, report, _ = run
    widths = {group["group"]: len(group["keep"]) for group in report["plan"]["groups"]}
    model = onnx.load(directory / report["result"]["artifact"])
    kernels = [list(tensor.dims) for tensor in model.graph.initializer if len(tensor.dims) == 4]
    assert sorted(dims[0] for dims in kernels) == sorted(widths.values())
    assert report["result"]["parameters"] < report["baseline"]["parameters"]
    assert any(len(group["keep"]) < group["size"] for group in report["plan"]["groups"])


def test_accuracy_comes_from_the_runtime(run: tuple[Path, dict[str, Any], str]) -> None:
    _, report, _ = run
    measured = {row["path"]: row["quality"] for row in report["artifacts"]}
    assert len(measured) == 8
    assert abs(measured["artifacts/original.fp32.onnx"] - report["torch_quality"]["original"]) < 0.5
    assert report["result"]["quality_samples"] == 300


def test_every_figure_of_the_table_is_in_the_report(run: tuple[Path, dict[str, Any], str]) -> None:
    _, report, printed = run
    for side in ("baseline", "result"):
        figures = report[side]
        for value in (figures["latency"]["p50_ms"], figures["latency"]["p95_ms"]):
            assert f"{value:.4g} ms" in printed
        assert f"{figures['quality']:.2f} %" in printed
    assert f"verdict: {report['verdict']}" in printed
    assert "no power sensor" in printed or report["result"]["energy_mj"] is not None


def test_the_fastest_accurate_file_is_told(run: tuple[Path, dict[str, Any], str]) -> None:
    _, report, printed = run
    rows = [row for row in report["artifacts"] if row["role"] == "pruned"]
    sound = [row for row in rows if row["accurate"] and not row["problems"]]
    if not sound:  # others were at work beside every run
        assert not any(row["fastest"] for row in rows)
        return
    fastest = min(sound, key=lambda row: row["latency"]["p50_ms"])
    assert [row["path"] for row in rows if row["fastest"]] == [fastest["path"]]
    (ships,) = (row for row in report["artifacts"] if row["shipped"])
    assert (ships["format"], ships["precision"]) == ("onnx", "fp32")
    assert any("fastest" in line and fastest["path"] in line for line in printed.splitlines())
    told = [note for note in report["notes"] if note.startswith("onnx fp32 is slower than")]
    slower = ships["latency"]["median_low_ms"] > fastest["latency"]["median_high_ms"]
    assert bool(told) == (ships["accurate"] and not ships["problems"] and slower)
    assert ships["accurate"] or any(note.startswith("onnx fp32 is not within") for note in report["notes"])
    if told and fastest["format"] == "tflite":
        assert "--runtime litert" in told[0]


def test_files_name_the_plan_that_they_were_pruned_by(run: tuple[Path, dict[str, Any], str]) -> None:
    directory, report, _ = run
    plan = hashlib.sha256((directory / "plan.json").read_bytes()).hexdigest()
    for row in report["artifacts"]:
        told = read_metadata(directory / row["path"])
        assert told["model_sha256"] == report["plan"]["model_sha256"]
        assert json.loads(told["labels"])[3] == "digit 3"
        assert told["preprocessing"].startswith("grey from 0 to 16")
        assert told.get("plan_sha256") == (plan if row["role"] == "pruned" else None)


def test_conditions_and_parity_are_told(run: tuple[Path, dict[str, Any], str]) -> None:
    _, report, _ = run
    assert report["conditions"]["threads"] == 1
    assert report["conditions"]["clock_resolution_ns"] > 0
    assert report["device"]["runtimes"]["onnxruntime"]
    assert all(row["ok"] for row in report["parity"])
    assert {"original: torch -> onnx fp32", "pruned: onnx fp32 -> onnx int8"} <= {
        row["link"] for row in report["parity"]
    }


def test_other_gates_judge_a_run_again(run: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    directory, report, _ = run
    gates = tmp_path / "gates.toml"
    gates.write_text("[[gates]]\nmetric = 'latency_p50_ms'\nat_most = 1e-6\n")
    judge = command("gate", "--run", directory, "--gates", gates)
    done = subprocess.run(judge, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == (4 if report["result"]["problems"] else 3), done.stderr
    assert "latency_p50_ms at_most 1e-06" in (directory / "gates.junit.xml").read_text()


def test_finished_run_explains_and_compares_itself(run: tuple[Path, dict[str, Any], str]) -> None:
    directory, report, _ = run
    explained = subprocess.check_output(command("explain", "--run", directory), text=True)
    channels = [group for group in report["plan"]["groups"] if group["kind"] == "channels"]
    cut = next(group for group in channels if len(group["keep"]) < group["size"])
    assert f"{len(cut['keep'])} of {cut['size']}" in explained
    assert "what the MACs promise" in explained
    explanation = report["explanation"]
    assert explanation["missing"] == {}
    steps = explanation["waterfall"]["steps"]
    assert steps[-1]["ms"] == report["result"]["latency"]["p50_ms"]
    assert steps[0]["ms"] == report["baseline"]["latency"]["p50_ms"]
    kept = json.loads((directory / "explanation.json").read_text())
    assert {name: kept[name] for name in ("plan", "waterfall")} == {
        name: explanation[name] for name in ("plan", "waterfall")
    }
    assert sum(kept["classes"]["count"]) == kept["classes"]["inputs"]
    compared = subprocess.check_output(command("compare", directory), text=True)
    assert f"{report['speedup']:.2f}" in compared


@pytest.mark.slow
def test_budget_that_cannot_be_met_is_proven(run: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    directory, _, _ = run
    arguments = (
        "deploy",
        "--target",
        QUICK,
        "--recipe",
        TINY,
        "--host",
        "local",
        "--allow-busy",
        "--latency-ms",
        "0.0001",
        "--run",
        tmp_path / "run",
    )
    cache = environment(directory.parent / "cache")
    done = subprocess.run(command(*arguments), capture_output=True, text=True, env=cache, timeout=300, check=False)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert "no widths meet 0.0001 ms: the narrowest net is predicted at" in said
    best_ms = float(said.split("--latency-ms ")[1].split()[0])
    assert 0.0001 < best_ms < run[1]["baseline"]["latency"]["p50_ms"]
    assert "sensitivity" not in done.stderr  # told before anything was scored
    assert not (tmp_path / "run" / "stages" / "score.json").exists()
    assert "Traceback" not in done.stderr


def kill_after(stage: str, run: Path, cache: Path) -> None:
    """Start or resume the line, and kill it as soon as `stage` is finished."""
    arguments = command("deploy", "--target", QUICK, "--host", "local", "--recipe", TINY, "--allow-busy", "--run", run)
    process = subprocess.Popen(arguments, env=environment(cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (run / "stages" / f"{stage}.json").exists():
        assert process.poll() is None, f"ended before {stage}"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_after_every_stage_it_resumes_with_the_same_plan(tmp_path: Path) -> None:
    run, cache = tmp_path / "run", tmp_path / "cache"
    plans = {}
    for stage in list(LINE)[:-1]:
        kill_after(stage, run, cache)
        for name in ("plan.first.json", "plan.json"):
            if (run / name).exists():
                plans.setdefault(name, (run / name).read_text())
    report, _ = deploy(run, cache)
    for name, text in plans.items():
        assert (run / name).read_text() == text
    assert report["plan"] == json.loads(plans["plan.json"])
