"""The waterfall of runs that are recorded here: another precision, another file, a faster or slower session."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from measured_run import FACTS, make_measurement, record_measured_run
from recorded import record_run

from edgeprune.core.artifact import Artifact
from edgeprune.core.latency.correction import Correction, MeasuredNet
from edgeprune.core.metric import TOP1
from edgeprune.core.planning.limits import Costs
from edgeprune.core.planning.plan import PruningPlan
from edgeprune.deployment import REQUEST
from edgeprune.run import hash_file, look_at_run, read_json, write_json
from edgeprune.stages.explanation import EXPLAINED_PLAN, explain_run
from edgeprune.stages.job import Job
from edgeprune.stages.results import (
    Confirmed,
    Exported,
    Fitted,
    Measured,
    Profiled,
    Recovery,
    Result,
    Traced,
    Try,
    Variant,
)

PARTS = {
    "macs_before": 1000,
    "macs_after": 500,
    "unpruned_ms": 0.7,
    "pruned_ms": 0.4,
    "lost_ms": {"staircase": 0.05, "overhead": 0.01},
}
NAMES = ("original-onnx-fp32", "pruned-onnx-fp32", "pruned-onnx-int8")


def record(
    folder: Path, precision: str | None, times: dict[str, float], until: str = "confirm", problems: tuple[str, ...] = ()
) -> Path:
    """The profile saw 1 ms in fp32 and 0.8 in int8, the plan's net 0.42 ms untrained; files were seen with `times`."""
    (folder / "artifacts").mkdir(parents=True)
    (folder / "board.toml").write_text('description = "a board"\n[budget]\nspeedup = 2\n')
    (folder / "mine.py").write_text("# a recipe")
    plan, files = PruningPlan((), predicted_ms=0.4, budget_ms=0.5), list[Artifact]()
    for name in NAMES:
        role, kind, own = name.split("-")
        place = f"artifacts/{role}.{own}.{kind}"
        (folder / place).write_bytes(name.encode())
        files.append(Artifact(place, role, kind, own, 1000, hash_file(folder / place), (), (), "a scheme"))
    rows = {file.name: make_measurement(file.name, file.sha256, times[file.name], problems) for file in files}
    write_json(folder / "measurements.json", {name: row.to_dict() for name, row in rows.items()})
    write_json(folder / "confirmed.json", {})
    write_json(folder / "plan.json", plan.to_dict())
    write_json(folder / EXPLAINED_PLAN, {"groups": [], "parts": PARTS, "origin": "measured"})
    variant = Variant(widths={}, net=MeasuredNet(0.7, 0.0, 0.1, 0.8))
    attempts = tuple(Try(predicted_ms=ms, measured_ms=ms + 0.02, share_of_budget=0.9) for ms in (0.5, 0.4))
    stages: dict[str, Result] = {
        "trace": Traced(metric=TOP1.to_dict(), quality=90.0),
        "profile": Profiled(baseline_ms=1.0, device=FACTS, correction=Correction(), variants=(variant,)),
        "fit": Fitted(plan=plan, tries=attempts),
        "recover": Recovery(quality_before=40.0, quality=89.0),
        "export": Exported(artifacts=tuple(files), costs=dict.fromkeys(NAMES, Costs(1, 1, 1, 1))),
        "measure": Measured(quality=dict.fromkeys(NAMES, 89.9), samples=10),
        "confirm": Confirmed(artifact="", sessions=1),
    }
    products = {"fit": ["plan.json", EXPLAINED_PLAN], "measure": ["measurements.json"], "confirm": ["confirmed.json"]}
    kept = list(stages)[: list(stages).index(until) + 1]
    own = {"target": str(folder / "board.toml"), "recipe": str(folder / "mine.py"), "precision": precision}
    return record_run(folder, {**dict.fromkeys(REQUEST), **own}, {name: stages[name] for name in kept}, products)


def explain(folder: Path) -> dict[str, Any]:
    with ExitStack() as stack:
        return explain_run(Job(look_at_run(folder), lambda _: None, stack))


def steps_of(document: dict[str, Any]) -> dict[str, float]:
    steps = document["waterfall"]["steps"]
    return {step["name"]: step["ms"] for step in steps}


SLOW = {"original-onnx-fp32": 2.0, "pruned-onnx-fp32": 1.0, "pruned-onnx-int8": 0.9}
"""Of a session in which the board was half as fast as in that of the profile."""


def test_predictions_are_brought_to_the_speed_of_the_session(tmp_path: Path) -> None:
    steps = steps_of(explain(record(tmp_path / "run", "fp32", SLOW)))
    assert "precision" not in steps
    assert steps["macs"] == pytest.approx(-1.0)
    assert (steps["staircase"], steps["overhead"]) == (pytest.approx(0.1), pytest.approx(0.02))
    assert steps["unexplained"] == pytest.approx(1.0 - 1.12)
    assert steps["pruned"] == pytest.approx(1.0)


def test_another_precision_is_a_step_by_the_unpruned_net_in_it(tmp_path: Path) -> None:
    steps = steps_of(explain(record(tmp_path / "run", "int8", SLOW)))
    assert steps["precision"] == pytest.approx(2 * (0.8 - 1.0))
    assert steps["macs"] == pytest.approx(-0.8)
    assert steps["pruned"] == pytest.approx(0.9)
    assert "other_file" not in steps


def test_a_file_that_ships_in_place_of_the_planned_one_is_a_step(tmp_path: Path) -> None:
    """Of mixed precision int8 is fitted; fp32 is planned for where the board decides, and int8 is faster here."""
    folder = record(tmp_path / "run", "auto", SLOW, until="measure")
    (folder / "chosen.json").write_text('{"runtime": "onnxruntime", "precision": "fp32", "baseline": "onnxruntime"}')
    record_file = folder / "record" / "profile.json"
    recorded = read_json(record_file)
    write_json(record_file, {**recorded, "chosen.json": hash_file(folder / "chosen.json")})
    steps = steps_of(explain(folder))
    assert steps["other_file"] == pytest.approx(-0.1)
    assert steps["pruned"] == pytest.approx(0.9)


def test_before_files_are_measured_the_untrained_net_ends_it(tmp_path: Path) -> None:
    document = explain(record(tmp_path / "run", "fp32", SLOW, until="recover"))
    steps = steps_of(document)
    assert steps["unpruned"] == 1.0
    assert steps["pruned"] == pytest.approx(0.42)  # that of the plan that holds, not of the one tried first
    assert "the cut net, untrained" in document["waterfall"]["steps"][-1]["text"]


def test_what_was_left_before_fine_tuning_is_warned_of(tmp_path: Path) -> None:
    (warning,) = explain(record(tmp_path / "run", "fp32", SLOW))["warnings"]
    assert warning["text"] == "top-1 accuracy before fine-tuning: 40.00 %, 90.00 % unpruned"


def test_a_plan_of_an_earlier_version_is_said_to_be_unexplained(tmp_path: Path) -> None:
    document = explain(record_measured_run(tmp_path / "run"))
    assert document["plan"] is document["waterfall"] is None
    assert "edgeprune explain" in document["missing"]["plan"]
    assert document["missing"]["waterfall"] == document["missing"]["plan"]


@pytest.mark.parametrize("problems", [(), ("others were at work",)])
def test_a_run_beside_other_work_is_not_valid(tmp_path: Path, problems: tuple[str, ...]) -> None:
    waterfall = explain(record(tmp_path / "run", "fp32", SLOW, problems=problems))["waterfall"]
    assert waterfall["valid"] == (not problems)
    assert waterfall["basis"] == "desk: a CPU, onnxruntime 1.0, 2 thread(s), p50"
