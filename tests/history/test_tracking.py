"""What is logged to MLflow, with a module in its place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from measured_run import FACTS, record_measured_run

from edgeprune.history.tracking import find_figures

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a stand-in for MLflow was given."""
    calls: dict[str, Any] = {"active": None}
    stub = ModuleType("mlflow")
    for name in ("log_params", "log_metrics", "set_tags"):
        setattr(stub, name, lambda values, name=name: calls.update({name: values}))
    vars(stub)["active_run"] = lambda: calls["active"]
    vars(stub)["start_run"] = lambda run_name: calls.update(run_name=run_name) or nullcontext()
    monkeypatch.setitem(sys.modules, "mlflow", stub)
    return calls


def test_a_result_is_logged_where_it_is_set_up(
    call: Call, logged: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record_measured_run(tmp_path / "run")
    _, _, said = call("gate", "--run", run)
    assert logged == {"active": None}
    assert "MLflow" not in said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///nowhere")
    _, _, said = call("gate", "--run", run)
    assert "logged to MLflow" in said
    assert logged["run_name"] == "run"
    assert logged["log_params"]["recipe"] == "mine"
    assert logged["log_params"]["device"] == FACTS.fingerprint
    assert logged["set_tags"] == {"edgeprune.verdict": "pass", "edgeprune.run": str(run)}
    metrics = logged["log_metrics"]
    assert metrics["latency_p50_ms"] == pytest.approx(0.404)
    assert metrics["baseline_latency_p50_ms"] == pytest.approx(1.01)
    assert metrics["speedup"] == pytest.approx(2.5)
    assert all(type(value) is float for value in metrics.values())


def test_a_run_that_is_active_is_logged_to(call: Call, logged: dict[str, Any], tmp_path: Path) -> None:
    logged["active"] = object()
    call("gate", "--run", record_measured_run(tmp_path / "run"))
    assert "log_metrics" in logged
    assert "run_name" not in logged


@pytest.mark.parametrize("stub", [None, ModuleType("mlflow")], ids=["not installed", "broken"])
def test_what_goes_wrong_there_is_told_and_stops_nothing(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: ModuleType | None
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", stub)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///nowhere")
    code, _, said = call("gate", "--run", record_measured_run(tmp_path / "run"))
    assert code == 0
    assert "not logged to MLflow: " in said


def test_percentiles_that_do_not_exist_are_not_logged() -> None:
    row = {"latency": {"p50_ms": 1.0, "p95_ms": None, "p99_ms": None}}
    figures = find_figures({"speedup": 2.0, "result": row, "baseline": row})
    assert figures == {"speedup": 2.0, "latency_p50_ms": 1.0, "baseline_latency_p50_ms": 1.0}
