"""The whole explanation of a run: read from `explanation.json` where that is up to date, else made and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from edgeprune.core.explaining.corruptions import corrupt
from edgeprune.core.explaining.outputs import (
    compare_classes,
    compare_errors,
    find_chance,
    find_errors,
    find_excess_chance,
    is_by_class,
)
from edgeprune.core.explaining.overpruning import warn_of_classes, warn_of_corruptions
from edgeprune.errors import EdgepruneError
from edgeprune.explaining.answers import Pair, find_quality, open_pair
from edgeprune.explaining.excitement import find_exciting
from edgeprune.run import write_json
from edgeprune.stages.artifacts import evaluation_rows
from edgeprune.stages.explanation import EXPLANATION, explain_fitted, explain_run, has_explained_plan, hash_records
from edgeprune.stages.job import Job
from edgeprune.stages.latency import find_first_goal
from edgeprune.stages.model import read_plan

CLEAN_ROWS, CORRUPTED_ROWS = 1000, 500
"""Evaluation inputs that are answered as they are, and with noise and corruption."""
IMAGE_DIMENSIONS = 4
HEAVY = ("outputs", "classes", "errors", "robustness", "excited")


@dataclass(frozen=True)
class Examination:
    """Inputs `[N, ...]` and targets of the evaluation data, and what the nets before and after answer."""

    pair: Pair
    inputs: np.ndarray
    targets: np.ndarray
    before: np.ndarray
    after: np.ndarray


def make_explanation(job: Job) -> dict[str, Any]:
    """Explain a run, and keep it in the run directory, but where the recipe or a file could not be read.

    Raises:
        RunError: the stage `fit` has not finished; a file that it rests on is gone or was changed.
    """
    digest = hash_records(job.run)
    plan = None
    if not has_explained_plan(job.run):
        job.detail("solving the plan again: the run was planned by an earlier edgeprune")
        plan = explain_fitted(job, read_plan(job), *find_first_goal(job))
    document = explain_run(job, plan) | {
        "run_sha256": digest,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "edgeprune": version("edgeprune"),
        **dict.fromkeys(HEAVY),
    }
    failures = _examine_(job, document)
    if not failures:
        write_json(job.run.path(EXPLANATION), document)
    return document


def _examine_(job: Job, document: dict[str, Any]) -> list[str]:
    """Fill in what needs outputs; gives what failed, and so may be had another time."""
    missing, failures = document["missing"], list[str]()
    try:
        examination = _answer(job)
        document["outputs"] = examination.pair.to_dict()
        _compare_(job, document, examination)
    except EdgepruneError as exc:
        missing |= dict.fromkeys(("outputs", "classes", "errors", "robustness"), str(exc))
        failures += [str(exc)] if job.run.finished("recover") else []
    try:
        document["excited"], missing["excited"] = _excite(job, document["plan"]["groups"])
    except EdgepruneError as exc:
        missing["excited"] = str(exc)
        failures.append(str(exc))
    document["missing"] = {name: why for name, why in missing.items() if why}
    return failures


def _answer(job: Job) -> Examination:
    inputs, targets = evaluation_rows(job, CLEAN_ROWS) if job.run.finished("recover") else (np.zeros(1), np.zeros(1))
    pair = open_pair(job, inputs[:1])
    job.detail(f"answers of {pair.before.name} and {pair.after.name} on {len(inputs)} inputs, here")
    return Examination(pair, inputs, targets, pair.before.answer(inputs), pair.after.answer(inputs))


def _compare_(job: Job, document: dict[str, Any], examination: Examination) -> None:
    missing, before, after = document["missing"], examination.before, examination.after
    errors = _find_pair_errors(before, after, examination.targets)
    if is_by_class(before, examination.targets):
        document["classes"] = compare_classes(before, after, examination.targets, job.recipe.labels)
        document["warnings"] += warn_of_classes(document["classes"])
        missing["errors"] = "each input has a class: see classes"
    elif errors is not None:
        document["errors"] = compare_errors(*errors, job.metric.unit if job.metric.better == "lower" else "")
        missing["classes"] = "no output a class and class an input"
    else:
        shapes = f"outputs {list(before.shape)} and targets {list(examination.targets.shape)}"
        missing |= dict.fromkeys(("classes", "errors"), f"{shapes} do not tell the error of one input")
    document["robustness"] = _judge_corruptions(job, examination)
    if document["robustness"] is None:
        missing["robustness"] = "inputs are integers, or single numbers: no noise of this set fits them"
    else:
        document["warnings"] += warn_of_corruptions(job.metric, document["robustness"]["rows"])


def _find_pair_errors(
    before: np.ndarray, after: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    first, second = (find_errors(outputs, targets) for outputs in (before, after))
    return None if first is None or second is None else (first, second)


def _judge_corruptions(job: Job, examination: Examination) -> dict[str, Any] | None:
    """Quality under each corruption, before and after; None where no corruption fits the inputs."""
    inputs, targets = examination.inputs[:CORRUPTED_ROWS], examination.targets[:CORRUPTED_ROWS]
    corrupted = list(corrupt(inputs, examination.inputs))
    if not corrupted:
        return None
    pair = examination.pair
    clean = examination.before[: len(inputs)], examination.after[: len(inputs)]
    clean_errors = _find_pair_errors(*clean, targets)
    chance = None if clean_errors is None else find_chance(*clean_errors)
    rows = [_describe_row(job, {"corruption": "none", "severity": 0}, clean, targets, chance)]
    for number, (name, severity, spoilt) in enumerate(corrupted, 1):
        job.detail(f"{name} of severity {severity} ({number} of {len(corrupted)})")
        outputs = pair.before.answer(spoilt), pair.after.answer(spoilt)
        errors = _find_pair_errors(*outputs, targets)
        chance = None
        if clean_errors is not None and errors is not None:
            single = max(find_chance(*errors), find_excess_chance(clean_errors, errors))
            chance = min(1.0, len(corrupted) * single)
        rows.append(_describe_row(job, {"corruption": name, "severity": severity}, outputs, targets, chance))
    return {"inputs": len(inputs), "metric": job.metric.to_dict(), "rows": rows}


def _describe_row(
    job: Job, name: Mapping[str, Any], outputs: tuple[np.ndarray, np.ndarray], targets: np.ndarray, chance: float | None
) -> dict[str, Any]:
    before, after = (find_quality(job, side, targets) for side in outputs)
    figures = {"before": before, "after": after, "drop": job.metric.drop(after, before)}
    finite = {key: value if np.isfinite(value) else None for key, value in figures.items()}
    return {**name, **finite, "chance": chance}


def _excite(job: Job, groups: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, str]:
    """Inputs that excited channels, or why there are none."""
    if not any(row["cut"] for row in groups):
        return None, "no channel was cut"
    if job.recipe.example_input().ndim != IMAGE_DIMENSIONS:
        return None, "inputs are no images"
    job.detail("inputs that excited the cut channels most")
    return find_exciting(job, groups), ""
