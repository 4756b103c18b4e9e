"""Verdict and report of runs whose record is written down here: no board, no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import record_run

from edgeprune.cli import main
from edgeprune.core.artifact import Artifact
from edgeprune.core.latency.correction import Correction
from edgeprune.core.measuring.measurement import Conditions, DeviceFacts, Measurement
from edgeprune.core.metric import TOP1, Metric
from edgeprune.core.planning.limits import Costs
from edgeprune.core.planning.plan import PruningPlan
from edgeprune.deployment import REQUEST
from edgeprune.run import hash_file, read_json, write_json
from edgeprune.stages.results import Confirmed, Exported, Fitted, Measured, Profiled, Recovery, Traced

F1 = Metric("F1", better="higher")
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}
FACTS = DeviceFacts("board", "aarch64", "a board", "a CPU", 4, (), 1000, "Linux", "6.1", "3.11", {"onnxruntime": "1"})


@dataclass(frozen=True)
class File:
    """One file of a run: `original-onnx-fp32` and what was measured of it."""

    name: str
    p50_ms: float
    quality: float | None = 0.8
    problems: tuple[str, ...] = ()
    bytes: int = 1000
    parameters: int = 100

    def artifact(self, folder: Path) -> Artifact:
        role, file_format, precision = self.name.split("-", 2)
        path = folder / "artifacts" / f"{role}.{precision}.{file_format}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self.name.encode().ljust(self.bytes))
        place = f"artifacts/{path.name}"
        return Artifact(place, role, file_format, precision, self.bytes, hash_file(path), (), (), "a scheme")

    def measurement(self, artifact: Artifact) -> Measurement:
        samples = tuple(float(ms) for ms in self.p50_ms * np.linspace(0.98, 1.02, 101))
        runtime = RUNTIMES[artifact.format]
        return Measurement(
            self.name, artifact.sha256, runtime, "1.0", FACTS.fingerprint, Conditions(1), 1.0, 1.0, 1, samples, 50.0,
            problems=self.problems,
        )  # fmt: skip


ORIGINALS = (File("original-onnx-fp32", 1.0), File("original-tflite-fp32", 0.9))
ONNX, TFLITE = File("pruned-onnx-fp32", 0.4, 0.795), File("pruned-tflite-fp32", 0.2, 0.795)
Judge = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Judge:
    """Record a run, judge it; gives its report and what was printed."""

    def run(
        *files: File,
        metric: Metric = F1,
        target: str = "",
        chosen: dict[str, str] | None = None,
        again: Sequence[File] = (),
        notes: Sequence[str] = (),
    ) -> Any:
        folder, toml = tmp_path / "run", tmp_path / "board.toml"
        folder.mkdir()
        toml.write_text(target or 'description = "a board"\n[budget]\nspeedup = 2\n')
        artifacts = [one.artifact(folder) for one in files]
        by_name = {one.name: one for one in files}
        measured = {one.name: by_name[one.name].measurement(one) for one in artifacts}
        costs = {one.name: Costs(one.parameters, 1, 1, 1) for one in files}
        plan = PruningPlan((), predicted_ms=0.4, budget_ms=0.5, notes=tuple(notes))
        stages = {
            "trace": Traced(metric=metric.to_dict(), quality=0.8),
            "profile": Profiled(baseline_ms=1.0, baseline_predicted_ms=1.0, device=FACTS, correction=Correction()),
            "fit": Fitted(plan=plan),
            "recover": Recovery(quality_before=0.5, quality=0.795),
            "export": Exported(artifacts=tuple(artifacts), costs=costs),
            "measure": Measured(quality={one.name: one.quality for one in files}, samples=10),
            "confirm": Confirmed(artifact="", sessions=1),
        }
        write_json(folder / "plan.json", plan.to_dict())
        write_json(folder / "measurements.json", {name: one.to_dict() for name, one in measured.items()})
        confirmed = {one.name: one.measurement(one.artifact(folder)).to_dict() for one in again}
        write_json(folder / "confirmed.json", confirmed)
        made = {"fit": ["plan.json"], "measure": ["measurements.json"], "confirm": ["confirmed.json"]}
        made |= {"export": [one.path for one in artifacts]}
        if chosen:
            write_json(folder / "chosen.json", chosen)
            made["profile"] = ["chosen.json"]
        request = dict.fromkeys(REQUEST) | {"target": str(toml), "recipe": "mine.py"}
        record_run(folder, request, stages, made)
        with pytest.raises(SystemExit) as ended:
            main(["gate", "--run", str(folder)])
        said = capsys.readouterr()
        assert (folder / "report.json").exists(), said.err
        report = read_json(folder / "report.json")
        assert {"pass": 0, "fail": 3, "inconclusive": 4}[report["verdict"]] == ended.value.code
        return report, said.out

    return run


def shipped(report: dict[str, Any]) -> str:
    (row,) = (row for row in report["artifacts"] if row["shipped"])
    assert row["path"] == report["result"]["artifact"]
    return str(row["path"])


def fastest(report: dict[str, Any]) -> list[str]:
    return [row["path"] for row in report["artifacts"] if row.get("fastest")]


def test_what_the_target_names_ships_and_a_faster_file_of_another_runtime_is_told(judge: Judge) -> None:
    report, printed = judge(*ORIGINALS, ONNX, TFLITE)
    assert (report["verdict"], shipped(report)) == ("pass", "artifacts/pruned.fp32.onnx")
    assert fastest(report) == ["artifacts/pruned.fp32.tflite"]
    assert report["speedup"] == pytest.approx(2.5)
    assert (report["runtime"], report["baseline"]["artifact"]) == ("onnxruntime 1.0", "artifacts/original.fp32.onnx")
    note = (
        "onnx fp32 is slower than tflite fp32 here: 0.4 against 0.2 ms; a run with --runtime litert ships it, one with"
    )
    assert any(line.startswith(note) for line in report["notes"])
    assert next(line for line in printed.splitlines() if "pruned.fp32.tflite" in line).endswith("fastest")


def test_an_open_runtime_ships_the_fastest_of_all(judge: Judge) -> None:
    target = 'description = "a board"\nruntime = "auto"\n[budget]\nspeedup = 2\n'
    chosen = {"runtime": "onnxruntime", "precision": "fp32", "baseline": "litert"}
    report, _ = judge(*ORIGINALS, ONNX, TFLITE, target=target, chosen=chosen)
    assert shipped(report) == fastest(report)[0] == "artifacts/pruned.fp32.tflite"
    assert (report["runtime"], report["baseline"]["artifact"]) == ("litert 1.0", "artifacts/original.fp32.tflite")
    assert report["speedup"] == pytest.approx(4.5)
    (limit,) = (note for note in report["notes"] if note.startswith("no gate on F1"))
    assert "quality max_regression 0.01 (F1)" in limit


def test_an_open_runtime_keeps_to_the_precision_that_is_asked_for(judge: Judge) -> None:
    gates = '[[gates]]\nmetric = "quality"\nat_least = 0.5\n'
    target = f'description = "a board"\nruntime = "auto"\n[budget]\nspeedup = 2\n{gates}'
    chosen = {"runtime": "onnxruntime", "precision": "fp32", "baseline": "onnxruntime"}
    quick = File("pruned-tflite-int8", 0.1, 0.795)
    report, _ = judge(*ORIGINALS, ONNX, TFLITE, quick, target=target, chosen=chosen)
    assert shipped(report) == "artifacts/pruned.fp32.tflite"
    assert fastest(report) == ["artifacts/pruned.int8.tflite"]
    assert "the speed-up is that over the unpruned fp32 net in onnxruntime 1.0" in report["notes"]
    assert any("a run with --precision int8 ships it" in note for note in report["notes"])
    assert not any(note.startswith("no gate on") for note in report["notes"])


def test_an_invalid_run_is_marked_and_passes_nothing(judge: Judge) -> None:
    report, printed = judge(*ORIGINALS, File("pruned-onnx-fp32", 0.4, 0.795, ("throttled: under-voltage",)), TFLITE)
    assert report["verdict"] == "inconclusive"
    assert report["gates"][0]["reason"] == "invalid run: throttled: under-voltage"
    assert "speed-up 2.50, NOT VALID" in printed
    assert "artifacts/pruned.fp32.onnx: invalid run: throttled: under-voltage" in report["notes"]
    row = next(line for line in printed.splitlines() if line.startswith("artifacts/pruned.fp32.onnx"))
    assert row.endswith("shipped, not valid")
    assert next(line for line in printed.splitlines() if line.startswith("run ")).split()[1:] == [
        "valid",
        "NOT",
        "VALID",
    ]


def test_a_file_first_measured_beside_other_work_and_again_without_is_valid_and_says_so(judge: Judge) -> None:
    busy = "the board was not this run's own: others took 1.21 of 2 cores"
    files = (*ORIGINALS, File("pruned-onnx-fp32", 0.4, 0.795, (busy,)), TFLITE)
    report, printed = judge(*files, again=(ORIGINALS[0], ONNX))
    assert report["verdict"] == "pass"
    row = next(line for line in printed.splitlines() if line.startswith("artifacts/pruned.fp32.onnx"))
    assert row.endswith("shipped, not valid at first, measured again")
    assert (
        f"artifacts/pruned.fp32.onnx was first measured beside other work and again without: {busy}" in report["notes"]
    )
    assert "NOT VALID" not in printed


def test_a_plan_that_cuts_nothing_is_told(judge: Judge) -> None:
    report, printed = judge(
        *ORIGINALS, ONNX, notes=("nothing was cut: in int8 the whole net meets the budget", "other")
    )
    assert "note: nothing was cut: in int8 the whole net meets the budget" in printed
    assert "other" not in report["notes"]


def test_a_baseline_that_is_not_valid_passes_nothing_either(judge: Judge) -> None:
    report, printed = judge(File("original-onnx-fp32", 1.0, 0.8, ("unstable",)), ONNX)
    assert (report["verdict"], report["gates"][0]["reason"]) == ("inconclusive", "invalid run: baseline: unstable")
    assert "speed-up 2.50, NOT VALID" in printed


def test_a_metric_that_is_no_number_fails_with_and_without_a_gate(judge: Judge) -> None:
    report, printed = judge(*ORIGINALS, File("pruned-onnx-fp32", 0.4, None))
    assert report["verdict"] == "fail"
    assert report["gates"][-1] == {
        "gate": "F1", "outcome": "fail", "value": None, "reason": "the recipe's metric gave no finite number",
    }  # fmt: skip
    assert report["result"]["quality"] is None
    assert next(line for line in printed.splitlines() if line.startswith("F1 (in")).split()[-2:] == ["0.8", "-"]


def test_a_collapsed_f1_fails_its_gate(judge: Judge) -> None:
    target = 'description = "x"\n[budget]\nspeedup = 2\n[[gates]]\nmetric = "quality"\nmax_regression = 0.05\n'
    report, _ = judge(File("original-onnx-fp32", 1.0, 0.77), File("pruned-onnx-fp32", 0.4, 0.10), target=target)
    assert [row["outcome"] for row in report["gates"]] == ["pass", "fail"]
    assert report["gates"][1]["gate"] == "quality max_regression 0.05 (F1)"


def test_the_board_chooses_within_the_size_of_the_file(judge: Judge) -> None:
    target = 'description = "x"\nprecision = "auto"\n[budget]\nspeedup = 2\nfile_bytes = 500\nparameters = 100\n'
    chosen = {"runtime": "onnxruntime", "precision": "fp32", "baseline": "onnxruntime"}
    small = File("pruned-onnx-int8", 0.44, 0.795, bytes=400)
    report, _ = judge(*ORIGINALS, ONNX, small, target=target, chosen=chosen)
    assert (report["verdict"], shipped(report)) == ("pass", "artifacts/pruned.int8.onnx")
    assert fastest(report) == ["artifacts/pruned.fp32.onnx"]
    assert any("it does not pass file_bytes at_most 500" in note for note in report["notes"])


def test_a_budget_that_the_file_misses_fails(judge: Judge) -> None:
    target = 'description = "x"\n[budget]\nspeedup = 2\nfile_bytes = 999\nparameters = 99\nmacs = 1\n'
    report, _ = judge(*ORIGINALS, ONNX, target=target)
    outcomes = {row["gate"]: row["outcome"] for row in report["gates"]}
    assert outcomes == {
        "speedup at_least 2": "pass", "file_bytes at_most 999": "fail", "parameters at_most 99": "fail",
        "macs at_most 1": "pass",
    }  # fmt: skip
    assert report["budget"]["asked_file_bytes"] == 999


def test_the_default_metric_is_in_per_cent(judge: Judge) -> None:
    target = 'description = "x"\n[budget]\nspeedup = 2\n[[gates]]\nmetric = "accuracy_drop_points"\nat_most = 1.5\n'
    files = (File("original-onnx-fp32", 1.0, 98.7), File("pruned-onnx-fp32", 0.4, 97.2))
    report, printed = judge(*files, metric=TOP1, target=target)
    assert report["gates"][1]["outcome"] == "pass"  # exactly 1.5 points
    row = next(line for line in printed.splitlines() if line.startswith("top-1 accuracy (in the runtime)"))
    assert row.split()[-4:] == ["98.70", "%", "97.20", "%"]


def test_a_verdict_that_cannot_be_made_anew_stays(judge: Judge, tmp_path: Path) -> None:
    report, _ = judge(File("original-onnx-fp32", 1.0), ONNX)
    folder = tmp_path / "run"
    place = folder / report["artifacts"][0]["path"]
    content = place.read_bytes()
    place.unlink()
    for command in ("gate", "report"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--run", str(folder)])
        assert ended.value.code == 1
        assert read_json(folder / "report.json") == report
    place.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main(["gate", "--run", str(folder)])
    assert ended.value.code in (0, 3, 4)
