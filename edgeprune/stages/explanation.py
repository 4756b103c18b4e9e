"""What is known of a run without its net's outputs: the plan explained, the waterfall, the first warnings.

Imports neither torch nor a runtime, so that the stage `report` and the command `explain` have it in no time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.core.artifact import name_artifact
from edgeprune.core.explaining.overpruning import warn_of_plan, warn_of_training
from edgeprune.core.explaining.waterfall import ESTIMATED, PREDICTED, Times, describe_waterfall
from edgeprune.core.planning.plan import PruningPlan
from edgeprune.core.releasing.document import Figures
from edgeprune.core.releasing.shipping import Candidates
from edgeprune.errors import RunError
from edgeprune.run import Run, read_json, write_json
from edgeprune.stages.job import Job
from edgeprune.stages.record import find_candidates, read_figures
from edgeprune.stages.results import Fitted, Profiled, Recovery, Scored, Traced

if TYPE_CHECKING:
    from edgeprune.core.planning.planner import Problem

EXPLANATION_VERSION = 1
EXPLANATION = "explanation.json"
"""What the command `explain` keeps in the run directory."""
EXPLAINED_PLAN = "plan.explained.json"
"""What the stage `fit` writes beside the plan."""
RESTS_ON = ("trace", "profile", "score", "plan", "fit", "prune", "recover", "export", "measure", "confirm")
"""Stages whose records an explanation rests on."""


def write_explained_plan(job: Job, plan: PruningPlan, problem: Problem, cap_ms: float) -> None:
    """Explain a plan that holds, within the stage that made it: `problem` and `cap_ms` are what it was made by."""
    write_json(job.run.product(EXPLAINED_PLAN), explain_fitted(job, plan, problem, cap_ms))


def explain_fitted(job: Job, plan: PruningPlan, problem: Problem, cap_ms: float) -> dict[str, Any]:
    """The document of a plan (docs/explain.md)."""
    from edgeprune.core.explaining.plan import Basis, explain_plan

    scored = job.read(Scored)
    basis = Basis(problem, cap_ms, scored.scores, scored.importance, scored.steps)
    return {**explain_plan(plan, basis), "unit": job.unit}


def has_explained_plan(run: Run) -> bool:
    """Whether the plan was explained when it was made; earlier versions did not."""
    return run.finished("fit") and EXPLAINED_PLAN in run.files_of("fit")


def explain_run(job: Job, plan: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The explanation as `report.json` has it; `plan` stands in for one that the run itself has not explained.

    Raises:
        RunError: a file that it rests on is gone or was changed.
    """
    missing = {}
    if plan is None and has_explained_plan(job.run):
        plan = read_json(job.run.file(EXPLAINED_PLAN))
    if plan is None:
        missing["plan"] = "the plan was made by an earlier edgeprune; `edgeprune explain` makes up for it"
    waterfall = None
    if plan is None or plan["parts"] is None:
        missing["waterfall"] = missing.get("plan") or "no layer of this net has multiply-accumulates"
    else:
        waterfall = _describe_waterfall(job, plan["parts"])
    return {
        "version": EXPLANATION_VERSION,
        "unit": job.unit,
        "plan": plan,
        "waterfall": waterfall,
        "warnings": _warn(job, plan),
        "missing": missing,
    }


def _warn(job: Job, plan: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    warnings = warn_of_plan(plan["groups"]) if plan else []
    if job.run.finished("recover"):
        warnings += warn_of_training(job.metric, job.read(Traced).quality, job.read(Recovery).quality_before)
    return warnings


def _describe_waterfall(job: Job, parts: Mapping[str, Any]) -> dict[str, Any]:
    if job.run.finished("measure"):
        return _describe_measured(job, parts)
    profiled = job.read(Profiled)
    if job.estimated:
        end, basis = "predicted: no board was measured", f"estimated for {job.target.name}, never measured"
        estimate = parts["unpruned_ms"], parts["pruned_ms"], parts["pruned_ms"]
        whole = profiled.baseline_precision
        times = Times(
            profiled.baseline_ms,
            *estimate,
            origin=ESTIMATED,
            planned_origin=ESTIMATED,
            end=end,
            baseline_precision=whole,
        )
        return describe_waterfall(parts, times, basis, valid=False)
    fit_ms = _find_fit_ms(job)
    last_ms, origin = (parts["pruned_ms"], PREDICTED) if fit_ms is None else (fit_ms, "measured")
    end = "predicted" if fit_ms is None else "the cut net, untrained, in the stage fit"
    times = Times(profiled.baseline_ms, _find_unpruned_ms(job, parts), last_ms, last_ms, planned_origin=origin, end=end)
    target = job.planned
    basis = f"{job.facts.host}: {job.facts.cpu}, {target.runtime}, {target.threads} thread(s), medians of the profile"
    if job.is_counted:
        basis = f"instructions counted in QEMU ({job.facts.machine}), {job.facts.cpu}, {target.runtime}"
    return describe_waterfall(parts, times, basis, valid=not profiled.problems)


def _describe_measured(job: Job, parts: Mapping[str, Any]) -> dict[str, Any]:
    figures = read_figures(job)
    candidates = find_candidates(job, figures)
    result, baseline = candidates.find_last(candidates.chosen)
    speed = baseline.latency.p50_ms / job.read(Profiled).baseline_ms
    times = Times(
        unpruned_fp32_ms=baseline.latency.p50_ms,
        unpruned_ms=speed * _find_unpruned_ms(job, parts),
        planned_ms=_find_planned_ms(job, figures, candidates, (result, baseline)),
        shipped_ms=result.latency.p50_ms,
        speed=speed,
        end=f"{result.artifact.path}{'' if job.is_counted else ', p50'}",
        baseline_precision=job.baseline_precision,
    )
    measurement = result.measurement
    runtimes = dict.fromkeys(
        f"{file.measurement.runtime} {file.measurement.runtime_version}" for file in (baseline, result)
    )
    basis = (
        f"{job.facts.host}: {job.facts.cpu}, {' and '.join(runtimes)}, {measurement.conditions.threads} thread(s), p50"
    )
    if measurement.is_counted:
        basis = f"instructions counted in QEMU ({job.facts.machine}), {job.facts.cpu}, {' and '.join(runtimes)}"
    return describe_waterfall(parts, times, basis, valid=measurement.valid and baseline.measurement.valid)


def _find_unpruned_ms(job: Job, parts: Mapping[str, Any]) -> float:
    """The unpruned net as the plan is for, in the session of the profile: measured as the first of its whole nets."""
    profiled, target = job.read(Profiled), job.planned
    if target.fitted_precision == job.baseline_precision and target.runtime == job.baseline_runtime:
        return profiled.baseline_ms
    return profiled.variants[0].net.measured_ms if profiled.variants else float(parts["unpruned_ms"])


def _find_planned_ms(
    job: Job, figures: Mapping[str, Figures], candidates: Candidates, last: tuple[Figures, Figures]
) -> float:
    """The pruned file that was planned for, at the speed of the last session; what ships where it was not measured."""
    result, baseline = last
    name = name_artifact("pruned", job.planned.format, job.planned.fitted_precision)
    if name == result.artifact.name or name not in figures:
        return result.latency.p50_ms
    speed = baseline.latency.p50_ms / candidates.baseline.latency.p50_ms
    return speed * figures[name].latency.p50_ms


def _find_fit_ms(job: Job) -> float | None:
    """What the planned net took untrained, None where none was measured."""
    fitted = job.read(Fitted)
    return next(
        (attempt.measured_ms for attempt in fitted.tries if attempt.predicted_ms == fitted.plan.predicted_ms), None
    )


def hash_records(run: Run) -> str:
    """SHA-256 over the records of the stages that an explanation rests on, and the recipe's file where it is one:
    another one once any stage was run anew, or the recipe's data may be others.

    Raises:
        RunError: something that a finished stage has made is gone or was changed.
    """
    total, recipe = hashlib.sha256(), Path(run.request.get("recipe") or "")
    if recipe.is_file():
        total.update(recipe.read_bytes())
    for stage in filter(run.finished, RESTS_ON):
        run.check(stage)
        total.update((run.directory / "record" / f"{stage}.json").read_bytes())
    return total.hexdigest()


def read_explanation(run: Run) -> dict[str, Any] | None:
    """What was kept of a run, if it rests on what the run is now.

    Raises:
        RunError: something that a finished stage has made is gone or was changed.
    """
    digest, path = hash_records(run), run.directory / EXPLANATION
    if not path.exists():
        return None
    try:
        document = read_json(path)
    except RunError:
        return None  # damaged, so made anew
    is_known = isinstance(document, dict) and document.get("version") == EXPLANATION_VERSION
    return document if is_known and document.get("run_sha256") == digest else None
