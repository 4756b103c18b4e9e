"""What runs leave in the history: as their report is written, and when a directory is taken in later."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from judged_run import judge_run
from measured_run import BASELINE, FACTS, PRUNED, make_measurement, record_measured_run

from edgeprune.core.cost import INSTRUCTIONS
from edgeprune.deployment import settle_request
from edgeprune.device import boards
from edgeprune.history.filters import Filters
from edgeprune.history.measured import describe_measurement
from edgeprune.history.row import HistoryRow
from edgeprune.history.store import read_rows
from edgeprune.run import hash_file

Call = Callable[..., tuple[int, str, str]]


def read(path: Path) -> dict[tuple[str, str], HistoryRow]:
    rows = read_rows(path, Filters())
    by_name = {(row.stage, row.artifact): row for row in rows}
    assert len(by_name) == len(rows)
    return by_name


def test_a_report_leaves_a_row_for_each_measurement_with_all_that_is_known(
    call: Call, history: Path, tmp_path: Path
) -> None:
    run = record_measured_run(tmp_path / "run")
    code, _, said = call("gate", "--run", run)
    assert code == 0
    assert f"history: 4 of 4 measurements are new in {history}" in said
    rows = read(history)
    assert set(rows) == {(stage, name) for stage in ("measure", "confirm") for name in (BASELINE, PRUNED)}
    row, report = rows["confirm", PRUNED], json.loads((run / "report.json").read_text())
    assert row.shipped
    assert (row.speedup, row.speedup_low) == (report["speedup"], report["speedup_interval"][0])
    assert row.latency_p50_ms == report["result"]["latency"]["p50_ms"]
    assert row.artifact_sha256 == hash_file(run / "artifacts" / "pruned.fp32.onnx")
    assert row.plan_sha256 == hash_file(run / "plan.json")
    assert row.recipe_sha256 == hashlib.sha256(b"# a recipe").hexdigest()
    assert (row.model_sha256, row.recipe, row.target) == ("e" * 64, "mine", "board")
    assert (row.host, row.device, row.threads, row.precision) == ("desk", FACTS.fingerprint, 2, "fp32")
    assert (row.quality, row.metric, row.verdict, row.valid) == (0.79, "F1", "pass", True)
    assert (row.file_bytes, row.peak_memory_mib, row.init_ms, row.samples) == (1000, 50.0, 3.0, 101)
    assert row.run == str(run)
    assert row.created <= report["created"]
    assert rows["confirm", BASELINE].plan_sha256 is None
    assert (rows["measure", PRUNED].energy_mj, rows["measure", PRUNED].power_w, row.energy_mj) == (4.0, 2.0, None)
    assert rows["measure", PRUNED].speedup is None


def test_judging_again_and_taking_in_double_nothing(call: Call, history: Path, tmp_path: Path) -> None:
    run = record_measured_run(tmp_path / "run")
    call("gate", "--run", run)
    before = read(history)
    shutil.copytree(run, tmp_path / "elsewhere")
    for words in (("gate", "--run", run), ("report", "--run", run), ("history", "take-in", tmp_path)):
        code, *_ = call(*words)
        assert code == 0
    assert read(history) == before


def test_a_run_that_is_not_valid_is_kept_and_marked(call: Call, history: Path, tmp_path: Path) -> None:
    call("gate", "--run", record_measured_run(tmp_path / "run", problems=["throttled: under-voltage"]))
    row = read(history)["measure", PRUNED]
    assert not row.valid
    assert json.loads(row.problems) == ["throttled: under-voltage"]
    _, said, _ = call("history")
    assert said.count("not valid") == 1


def test_a_history_that_cannot_be_written_stops_no_run(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a database, and long enough to be taken for something " * 20)
    for address in (tmp_path / "file", tmp_path / "file" / "below", "/proc/history.sqlite"):
        monkeypatch.setenv("EDGEPRUNE_HISTORY", str(address))
        run = record_measured_run(tmp_path / f"run{len(str(address))}")
        code, said, progress = call("gate", "--run", run)
        assert code == 0
        assert "verdict" in said.lower()
        (line,) = [line for line in progress.splitlines() if "history" in line]
        assert f"not written to the history: {address}" in line


def test_an_empty_address_switches_it_off(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_HISTORY", "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    _, _, said = call("gate", "--run", record_measured_run(tmp_path / "run"))
    assert "history" not in said
    assert not (tmp_path / "data").exists()
    code, _, said = call("history")
    assert code == 2
    assert "history is switched off" in said


@pytest.mark.parametrize("command", ["gate", "report"])
def test_an_option_goes_before_the_environment_and_a_wrong_one_does_not_stay(
    command: str, call: Call, history: Path, tmp_path: Path
) -> None:
    run, own = judge_run(tmp_path / "run"), tmp_path / "own.sqlite"
    _, _, told = call(command, "--run", run, "--history", "/proc/nowhere/history.sqlite")
    assert "not written to the history: /proc/nowhere" in told
    call(command, "--run", run, "--history", own)
    assert len(read(own)) == 4
    assert not history.exists()
    call(command, "--run", run)
    assert len(read(history)) == 4
    _, said, _ = call("history", "--history", own, "--stage", "confirm")
    assert f"{own}: 2 measurements" in said


def test_a_request_names_it_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for address, expected in (("own.sqlite", f"{tmp_path}/own.sqlite"), ("", ""), (None, None)):
        _, request = settle_request(None, {"target": "local", "history": address})
        assert request["history"] == expected


def test_the_default_is_in_the_users_data_directory(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEPRUNE_HISTORY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    _, said, _ = call("history")
    assert f"{tmp_path}/.local/share/edgeprune/history.sqlite: 0 measurements; there is no file yet" in said
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    _, said, _ = call("history")
    assert f"{tmp_path}/data/edgeprune/history.sqlite: 0" in said


def test_an_unfinished_run_is_taken_in_and_completed_later(call: Call, history: Path, tmp_path: Path) -> None:
    run = record_measured_run(tmp_path / "run")
    code, said, _ = call("history", "take-in", tmp_path)
    assert code == 0
    assert f"{run}: 4 of 4 measurements new" in said
    row = read(history)["confirm", PRUNED]
    assert (row.verdict, row.speedup, row.host, row.quality, row.recipe) == (None, None, "desk", 0.79, "mine")
    call("gate", "--run", run)
    later = read(history)
    assert len(later) == 4
    assert later["confirm", PRUNED].verdict == "pass"
    assert later["confirm", PRUNED].speedup is not None


def test_what_was_changed_or_is_damaged_is_told_and_the_rest_taken_in(
    call: Call, history: Path, tmp_path: Path
) -> None:
    changed, damaged, odd, whole = (record_measured_run(tmp_path / name) for name in ("a", "b", "c", "d"))
    rows = json.loads((changed / "measurements.json").read_text())
    rows[PRUNED]["samples_ms"][0] /= 2
    (changed / "measurements.json").write_text(json.dumps(rows))
    (damaged / "measurements.json").write_text("{")
    (odd / "measurements.json").write_text('{"a": {"artifact": 1}}')
    shutil.rmtree(odd / "record")
    code, said, _ = call("history", "take-in", tmp_path)
    assert code == 1
    assert "is not what it was when it was made" in said
    assert "no record of measurements that this edgeprune reads" in said
    assert f"{whole}: 4 of 4 measurements new" in said
    assert "run directories: 4; 3 could not be read" in said
    assert {row.run for row in read(history).values()} == {str(whole)}


def test_a_directory_of_the_first_versions_is_taken_in(call: Call, history: Path, tmp_path: Path) -> None:
    """Neither a record nor windows, and top-1 accuracy as the only metric."""
    run = record_measured_run(tmp_path / "run")
    call("gate", "--run", run, "--history", "")
    rows = json.loads((run / "measurements.json").read_text())
    for row in rows.values():
        for name in ("windows", "inputs", "cold_starts_ms", "processor", "problems"):
            del row[name]
        row["conditions"] = {"threads": 2, "governor": "performance"}
        row["rounds"] = [50, 51]
    report = json.loads((run / "report.json").read_text())
    for row in report["artifacts"]:
        row["accuracy_percent"] = 100 * row.pop("quality")
    del report["metric"]
    (run / "measurements.json").write_text(json.dumps(rows))
    (run / "report.json").write_text(json.dumps(report))
    for name in ("record", "stages"):
        shutil.rmtree(run / name)
    (run / "confirmed.json").unlink()
    code, said, _ = call("history", "take-in", run)
    assert code == 0, said
    row = read(history)["measure", PRUNED]
    assert (row.metric, row.quality, row.verdict, row.shipped) == ("top-1 accuracy", 79.0, "pass", True)
    assert json.loads(row.conditions)["governor"] == "performance"
    assert row.speedup == report["speedup"]


def test_a_folder_without_runs_is_refused(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, said = call("history", "take-in", tmp_path / "empty")
    assert code == 1
    assert "no run directory that has measured anything is in it" in said


def test_a_ready_file_that_is_measured_is_a_row(
    call: Call, history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(b"not looked at")
    measured = make_measurement("model", "f" * 64, 1.5, ["unstable"])
    monkeypatch.setattr(boards, "measure_files", lambda *_: (FACTS, {"model": measured}))
    code, *_ = call("measure", model, "--target", "local")
    assert code == 4
    (row,) = read_rows(history, Filters())
    assert (row.stage, row.artifact, row.target, row.host, row.valid) == (
        "file",
        "model.tflite",
        "local",
        "desk",
        False,
    )
    assert (row.file_bytes, row.artifact_sha256, row.run) == (13, "f" * 64, None)


def test_a_count_is_a_row_of_instructions_and_of_no_ms() -> None:
    timed = make_measurement("net", "a" * 64, 3e6)
    row = describe_measurement(replace(timed, unit=INSTRUCTIONS), "file", "2026-11-28T10:00:00+00:00")
    assert (row.instructions, row.latency_p50_ms, row.latency_low_ms) == (3e6, None, None)
    assert describe_measurement(timed, "file", "2026-11-28T10:00:00+00:00").instructions is None
