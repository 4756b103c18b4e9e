"""Runs read from their directories: finished, estimated and unfinished ones, sweeps, and what a card is made from."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from measured_run import FACTS, record_measured_run
from recorded import record_run, record_stage
from recorded_sweep import OPTIONS, open_lab

import edgeprune as ep
from edgeprune.comparing import gather_evidence, read_comparison
from edgeprune.core.latency.table import ESTIMATED
from edgeprune.core.planning.plan import PruningPlan
from edgeprune.deployment import REQUEST
from edgeprune.errors import RunError, UsageError
from edgeprune.run import look_at_run, open_run, read_json, write_json
from edgeprune.stages.explanation import EXPLANATION, EXPLANATION_VERSION, hash_records
from edgeprune.stages.job import open_job
from edgeprune.stages.results import Fitted, Judged, Reported, run_stage
from edgeprune.stages.verdict import gate, report


def finish_run(folder: Path, pruned_ms: float = 0.4, **options: Any) -> Path:
    """A finished run, with a report."""
    record_measured_run(folder, pruned_ms, **options)
    with open_job(folder, dict.fromkeys(REQUEST), lambda text: None) as job:
        run_stage(job.run, Judged, partial(gate, job))
        run_stage(job.run, Reported, partial(report, job))
    return folder


def plan_run(folder: Path, **fields: Any) -> Path:
    """A run that went as far as its plan."""
    folder.mkdir()
    fitted = Fitted(plan=PruningPlan((), predicted_ms=0.7), **fields)
    return record_run(folder, {**dict.fromkeys(REQUEST), "target": "rpi4", "recipe": "mine.py"}, {"fit": fitted}, {})


def test_runs_as_far_as_they_have_come(tmp_path: Path) -> None:
    runs = [
        finish_run(tmp_path / "finished"),
        plan_run(tmp_path / "estimated", origin=ESTIMATED),
        plan_run(tmp_path / "planned"),
    ]
    finished, estimated, planned = read_comparison(runs).points
    assert (finished.exclusion, finished.recipe, finished.setting and finished.setting.device) == (
        "",
        "mine",
        FACTS.fingerprint,
    )
    assert finished.latency is not None
    assert finished.latency.value == pytest.approx(0.404)
    assert (estimated.exclusion, estimated.latency and estimated.latency.value) == ("estimated, not measured", 0.7)
    assert (planned.exclusion, planned.latency) == ("not measured", None)


def test_runs_of_one_name_are_told_apart_and_none_is_named_twice(tmp_path: Path) -> None:
    first, second = (finish_run(tmp_path / folder / "run") for folder in "ab")
    assert [point.name for point in read_comparison([first, second]).points] == [str(first), str(second)]
    with pytest.raises(UsageError, match="named twice"):
        read_comparison([first, first / ".." / "run"])
    with pytest.raises(UsageError, match="is no run directory"):
        read_comparison([first / "report.json"])
    with pytest.raises(RunError, match="is this a run directory"):
        read_comparison([tmp_path])


def test_a_report_that_was_changed_is_refused(tmp_path: Path) -> None:
    run = finish_run(tmp_path / "run")
    (run / "report.json").write_text((run / "report.json").read_text().replace('"pass"', '"fail"'))
    with pytest.raises(RunError, match="is not what it was"):
        read_comparison([run])


def test_a_report_of_another_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    run = finish_run(tmp_path / "run")
    document = read_json(run / "report.json") | {"version": 1}
    write_json(run / "report.json", document)
    with open_run(run, {}) as opened:
        record_stage(opened, "report", Reported(verdict="pass"), ["report.json"])
    for read in (read_comparison, gather_evidence):
        with pytest.raises(RunError, match=r"version 1; this edgeprune reads version 2; .*edgeprune report --run"):
            read([run])


def test_a_sweep_is_read_as_it_was_measured_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = open_lab(monkeypatch)
    done = ep.sweep(tmp_path / "sweep", lambda text: None, speedup=[2, 4], **OPTIONS)  # type: ignore[arg-type]
    assert read_comparison([done.directory]).to_dict() == done.comparison
    beside = read_comparison([done.directory, finish_run(tmp_path / "run")])
    assert [point.name for point in beside.points] == ["sweep/unpruned", "sweep/speedup-2", "sweep/speedup-4", "run"]
    assert not beside.interleaved
    lab.killed_at = 3
    with pytest.raises(KeyboardInterrupt):
        ep.sweep(done.directory, lambda text: None, speedup=[3])
    begun = read_comparison([done.directory])
    excluded = {point.name: point.exclusion for point in begun.points}
    assert excluded == {"unpruned": "", "speedup-2": "", "speedup-4": "", "speedup-3": "not measured"}
    assert begun.interleaved


def test_a_card_has_the_curve_of_its_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_lab(monkeypatch)
    done = ep.sweep(tmp_path / "sweep", lambda text: None, speedup=[2, 4], **OPTIONS)  # type: ignore[arg-type]
    for directories in ([done.directory / "speedup-2"], [done.directory / "speedup-2", done.directory]):
        evidence = gather_evidence(directories)
        assert evidence.run.name == "speedup-2"
        assert [point.name for point in evidence.curve] == ["speedup-2", "speedup-4"]
    with pytest.raises(UsageError, match=r"name one of its runs, as --run .*NAME"):
        gather_evidence([done.directory])  # F1 falls by more than 1 %


def test_a_card_takes_repeats_and_other_budgets_and_refuses_the_rest(tmp_path: Path) -> None:
    run = finish_run(tmp_path / "run")
    other = finish_run(tmp_path / "other", 0.3, request={"speedup": 3.0})
    with pytest.raises(UsageError, match="it ships the same file"):
        gather_evidence([run, finish_run(tmp_path / "same")])
    evidence = gather_evidence([run, other])
    assert ([point.name for point in evidence.curve], evidence.repeats) == (["run", "other"], [])
    document = {"version": EXPLANATION_VERSION, "run_sha256": hash_records(look_at_run(run)), "robustness": None}
    for digest, known in ((document["run_sha256"], True), ("of what the run was before", False)):
        write_json(run / EXPLANATION, document | {"run_sha256": digest})
        assert (gather_evidence([run]).run.explanation is not None) == known
    with pytest.raises(RunError, match="deploy --run"):
        gather_evidence([plan_run(tmp_path / "planned")])
