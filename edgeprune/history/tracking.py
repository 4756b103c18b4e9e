"""A run's result in MLflow, where the user has set that up; nothing of it is imported otherwise."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeprune.core.cost import INSTRUCTIONS, MS, name_ratio

SET_UP = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID")
"""Variables of the environment that say that MLflow is wanted
(https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html)."""
PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")
FIGURES = ("quality", "init_ms", "first_ms", "file_bytes", "peak_memory_mib", "parameters", "macs", "energy_mj")


def track(directory: Path, report: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Log a report's parameters and figures: to the run that is active in this process, else to one of its own.

    What goes wrong is told, and stops nothing.
    """
    try:
        if _is_wanted():
            _log_run(importlib.import_module("mlflow"), directory, report)
            say("logged to MLflow")
    except Exception as exc:  # whatever its server, its store or its import raise
        say(f"not logged to MLflow: {type(exc).__name__}: {' '.join(str(exc).split())[:300]}")


def _is_wanted() -> bool:
    """Whether MLflow is set up: by the environment, or by a run that is active in this process."""
    if any(os.environ.get(name) for name in SET_UP):
        return True
    return "mlflow" in sys.modules and sys.modules["mlflow"].active_run() is not None


def _log_run(mlflow: Any, directory: Path, report: Mapping[str, Any]) -> None:
    if mlflow.active_run() is not None:
        _log(mlflow, directory, report)
        return
    with mlflow.start_run(run_name=None if os.environ.get("MLFLOW_RUN_ID") else directory.name):
        _log(mlflow, directory, report)


def _log(mlflow: Any, directory: Path, report: Mapping[str, Any]) -> None:
    parameters = {name: report[name] for name in ("target", "recipe", "runtime", "edgeprune")}
    device = {"device": report["device"]["fingerprint"], "host": report["device"]["host"]}
    mlflow.log_params({**parameters, **device, "artifact": report["result"]["artifact"]})
    mlflow.set_tags({"edgeprune.verdict": report["verdict"], "edgeprune.run": str(directory)})
    mlflow.log_metrics(find_figures(report))


def find_figures(report: Mapping[str, Any]) -> dict[str, float]:
    """The finite figures of the file that ships and of the baseline, by a name with its unit."""
    is_counted = report.get("unit") == INSTRUCTIONS
    names = {"instructions": "p50_ms"} if is_counted else {f"latency_{name}": name for name in PERCENTILES}
    figures: dict[str, Any] = {name_ratio(report.get("unit", MS)): report["speedup"]}
    for side in ("result", "baseline"):
        part, prefix = report[side], "" if side == "result" else "baseline_"
        figures |= {f"{prefix}{name}": part.get(name) for name in FIGURES}
        figures |= {f"{prefix}{name}": part["latency"][field] for name, field in names.items()}
    return {
        name: float(value) for name, value in figures.items() if isinstance(value, int | float) and math.isfinite(value)
    }
