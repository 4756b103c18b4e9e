"""Sweeps: what is run, what is not run again, what one budget's fault does to the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recorded_sweep import OPTIONS, open_lab

import edgeprune as ep
from edgeprune.errors import PlanError, RunError, UsageError
from edgeprune.history.filters import Filters
from edgeprune.history.store import read_rows
from edgeprune.sweeping import settle_sweep


def run_sweep(directory: Path, *speedups: float, **options: Any) -> ep.Sweep:
    return ep.sweep(directory, lambda text: None, speedup=speedups, **{**OPTIONS, **options})


def test_every_budget_has_a_run_and_all_are_measured_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = open_lab(monkeypatch)
    done = run_sweep(tmp_path / "sweep", 3, 1.5, 2)
    assert lab.ran == ["speedup-1.5", "speedup-2", "speedup-3"]
    assert [sorted(names) for names in lab.sessions] == [["speedup-1.5", "speedup-2", "speedup-3", "unpruned"]]
    rows = done.comparison["rows"]
    assert [row["name"] for row in rows] == ["speedup-3", "speedup-2", "speedup-1.5", "unpruned"]
    assert [row["latency_p50_ms"] for row in rows] == pytest.approx([0.3, 0.45, 0.6, 1.0])
    assert [row["speedup"] for row in rows] == pytest.approx([10 / 3, 20 / 9, 5 / 3, 1])
    assert (done.verdict, done.comparison["interleaved"]) == ("pass", True)
    assert json.loads((tmp_path / "sweep" / "comparison.json").read_text()) == done.comparison
    assert done.page.read_text().startswith("<!doctype html>")


def test_the_session_in_turns_is_in_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_HISTORY", str(tmp_path / "history.sqlite"))
    open_lab(monkeypatch)
    run_sweep(tmp_path / "sweep", 1.5, 2)
    rows = read_rows(tmp_path / "history.sqlite", Filters(stage="sweep"))
    by_run = {Path(row.run or "").name: row for row in rows if row.shipped}
    assert {name: row.latency_p50_ms for name, row in by_run.items()} == pytest.approx(
        {"speedup-1.5": 0.6, "speedup-2": 0.45}
    )
    (unpruned,) = (row for row in rows if not row.shipped)
    assert (unpruned.latency_p50_ms, unpruned.plan_sha256) == (pytest.approx(1.0), None)


def test_what_is_done_is_not_done_again_and_budgets_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = open_lab(monkeypatch)
    first = run_sweep(tmp_path / "sweep", 2, 3)
    again = ep.sweep(tmp_path / "sweep", lambda text: None)
    assert (lab.ran, len(lab.sessions)) == (["speedup-2", "speedup-3"], 1)
    assert again.comparison == first.comparison
    run_sweep(tmp_path / "sweep", 2.5, 2)
    assert lab.ran == ["speedup-2", "speedup-3", "speedup-2.5"]
    assert sorted(lab.sessions[-1]) == ["speedup-2", "speedup-2.5", "speedup-3", "unpruned"]


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = open_lab(monkeypatch, killed_at=3)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(tmp_path / "sweep", 2, 3, 4)
    lab.killed_at = None
    done = ep.sweep(tmp_path / "sweep", lambda text: None)
    assert lab.ran == ["speedup-2", "speedup-3", "speedup-4"]
    assert len(done.comparison["rows"]) == 4


def test_a_session_that_was_not_valid_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = open_lab(monkeypatch, problems=("throttled",))
    done = run_sweep(tmp_path / "sweep", 2)
    assert [row["exclusion"] for row in done.comparison["rows"]] == ["not valid", "not valid"]
    assert done.comparison["choice"]["name"] is None
    lab.problems = ()
    again = ep.sweep(tmp_path / "sweep", lambda text: None)
    assert [row["exclusion"] for row in again.comparison["rows"]] == [None, None]
    assert len(lab.sessions) == 2


def test_a_budget_out_of_reach_is_told_and_loses_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = open_lab(monkeypatch, reach=2.5)
    done = run_sweep(tmp_path / "sweep", 2, 3)
    assert done.verdict == "fail"
    assert done.comparison["without_run"] == {"speedup-3": "no widths meet it; ask for --speedup 2.5"}
    assert [row["name"] for row in done.comparison["rows"]] == ["speedup-2", "unpruned"]
    lab.reach = 10  # the profile is what it was, so it is not tried again
    assert ep.sweep(tmp_path / "sweep", lambda text: None).comparison["without_run"] == done.comparison["without_run"]


def test_a_budget_that_failed_otherwise_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = open_lab(monkeypatch, broken=(3,))
    done = run_sweep(tmp_path / "sweep", 2, 3)
    assert (done.verdict, done.comparison["without_run"]) == ("fail", {"speedup-3": "cannot be exported"})
    lab.broken = ()
    assert ep.sweep(tmp_path / "sweep", lambda text: None).verdict == "pass"


def test_a_sweep_without_any_run_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_lab(monkeypatch, reach=1)
    with pytest.raises(PlanError, match="no budget has a run: speedup-2: no widths"):
        run_sweep(tmp_path / "sweep", 2)


@pytest.mark.parametrize(
    ("budgets", "options", "said"),
    [
        ({"speedup": (2, 2.0)}, OPTIONS, "speedup-2: is asked for twice"),
        ({"speedup": (0.5,)}, OPTIONS, "0.5 is no budget of speedup; expected a number of 1 or more"),
        ({"latency_ms": (0.0,)}, OPTIONS, "0 is no budget of latency_ms; expected a number above 0"),
        ({"latency_ms": (float("nan"),)}, OPTIONS, "nan is no budget"),
        ({"speedup": (float("inf"),)}, OPTIONS, "inf is no budget"),
        ({"speedup": (2,), "latency_ms": (1.0,)}, OPTIONS, "not both"),
        ({}, OPTIONS, "the budgets to go through"),
        ({"speedup": (2,)}, {}, "--target is needed"),
    ],
)
def test_budgets_that_cannot_be_meant_are_refused(
    budgets: dict[str, tuple[float, ...]], options: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        settle_sweep(None, budgets, options)


def test_latencies_go_from_the_most_to_the_least() -> None:
    plan = settle_sweep(None, {"latency_ms": (4.0, 8.0, 6.5)}, OPTIONS)
    assert plan.names == ("latency-8", "latency-6.5", "latency-4")
    assert plan.directory.name.startswith("sweep-quick-tiny-")


def test_a_sweep_goes_on_as_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_lab(monkeypatch)
    directory = tmp_path / "sweep"
    run_sweep(directory, 2)
    with pytest.raises(RunError, match="was made with threads = None, not 2"):
        run_sweep(directory, 2, threads=2)
    with pytest.raises(RunError, match="over speedup, not latency_ms"):
        ep.sweep(directory, latency_ms=[3.0])
    with pytest.raises(UsageError, match="is a run of one budget"):
        run_sweep(directory / "speedup-2", 3)
    with pytest.raises(UsageError, match="no 'sped'"):
        ep.sweep(directory, sped=2)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="is a sweep; `edgeprune sweep --run"):
        ep.deploy(directory, speedup=2.0)
    (directory / "sweep.json").write_text('{"version": 1}')
    with pytest.raises(RunError, match="is damaged"):
        ep.sweep(directory)


def test_a_refused_sweep_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no target"):
        run_sweep(tmp_path / "sweep", 2, target="nosuch")
    assert not (tmp_path / "sweep").exists()


def test_time_left_is_told_once_a_run_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_lab(monkeypatch)
    said: list[str] = []
    ep.sweep(tmp_path / "sweep", said.append, speedup=[2, 3], **OPTIONS)  # type: ignore[arg-type]
    heads = [line for line in said if line.startswith("[budget")]
    assert heads[0] == "[budget 1 of 2] speedup-2"
    assert heads[1].startswith("[budget 2 of 2] speedup-3, about ")
