"""The last stages: hold the figures against the gates, and write the report."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from edgeprune.core.document import REPORT_VERSION, Figures, budget_gates, describe_conditions, gate_figures
from edgeprune.core.gate import decide, judge
from edgeprune.core.measurement import find_ratio
from edgeprune.core.shipping import DEFAULT_LIMIT, Candidates
from edgeprune.core.target import AUTO
from edgeprune.report.junit import render_junit
from edgeprune.report.page import render_page
from edgeprune.run import read_json, write_atomic, write_json
from edgeprune.stages.artifacts import read_artifacts, read_refused
from edgeprune.stages.job import Job
from edgeprune.stages.measure import baseline_name, read_candidates, read_figures, read_measurements, shipped

ARTIFACT_FIELDS = ("path", "sha256", "format", "precision", "bytes", "role", "scheme")


def gate(job: Job) -> dict[str, Any]:
    """Judge the shipped artifact by the target's gates and its own budget."""
    figures = read_figures(job)
    baseline, result = figures[baseline_name(job)], figures[shipped(job)]
    looked_at, beside = gate_figures(result, baseline), gate_figures(baseline)
    results = [judge(one, looked_at, beside) for one in budget_gates(job.target.budget, job.target.gates)]
    return {"verdict": decide(results), "gates": [one.to_dict() for one in results]}


def report(job: Job) -> dict[str, Any]:
    """Write `report.json`, `report.html` and `gates.junit.xml`."""
    document = build_report(job)
    measured = read_measurements(job)
    samples = {
        "before": measured[baseline_name(job)].samples_ms,
        "after": measured[shipped(job)].samples_ms,
    }
    write_json(job.run.path("report.json"), document)
    write_atomic(job.run.path("gates.junit.xml"), render_junit(document))
    write_atomic(job.run.path("report.html"), render_page(document, samples))
    return {"verdict": document["verdict"]}


def build_report(job: Job) -> dict[str, Any]:
    """The report document; its fields are described in docs/report.md."""
    figures, judged, profiled = read_figures(job), job.run.result("gate"), job.run.result("profile")
    candidates = read_candidates(job)
    baseline, result = candidates.baseline, figures[shipped(job)]
    speedup = find_ratio(baseline.measurement, result.measurement)
    fitted, budget = job.run.result("fit"), job.target.budget
    return {
        "version": REPORT_VERSION,
        "edgeprune": version("edgeprune"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "verdict": judged["verdict"],
        "gates": judged["gates"],
        "target": job.target.name,
        "recipe": job.recipe.name,
        "runtime": f"{job.target.runtime} {result.measurement.runtime_version}",
        "baseline": baseline.to_dict(),
        "result": result.to_dict(),
        "budget": {
            "latency_ms": fitted["plan"]["budget_ms"],
            "asked_latency_ms": budget.latency_ms,
            "asked_speedup": budget.speedup,
            "asked_energy_mj": budget.energy_mj,
        },
        "predicted": {
            "latency_ms": fitted["plan"]["predicted_ms"],
            "origin": "measured layers, corrected by measured whole nets",
            "correction": profiled["correction"],
            "tries": fitted["tries"],
        },
        "speedup": speedup[0],
        "speedup_interval": list(speedup[1:]),
        "artifacts": _artifact_rows(job, figures, candidates),
        "device": profiled["device"],
        "conditions": describe_conditions(result.measurement),
        "plan": read_json(job.run.path("plan.json")),
        "parity": job.run.result("export")["parity"] + job.run.result("measure")["parity"],
        "torch_accuracy_percent": {
            "original": job.run.result("trace")["accuracy_percent"],
            "cut": job.run.result("recover")["accuracy_before_percent"],
            "recovered": job.run.result("recover")["accuracy_percent"],
        },
        "notes": [
            *job.run.result("trace")["notes"],
            *job.run.result("measure")["notes"],
            *_choice_notes(job, candidates, result),
            *_problems(result, baseline),
        ],
    }


def _choice_notes(job: Job, candidates: Candidates, result: Figures) -> list[str]:
    """How the file that ships was chosen, where there is something to say."""
    notes = list(candidates.explain(result))
    notes += [f"refused: {reason}" for name, reason in read_refused(job).items() if f"-{job.target.format}-" in name]
    if job.target.precision == AUTO and candidates.limits == (DEFAULT_LIMIT,):
        notes.append(f"no gate on accuracy: what ships was chosen within {DEFAULT_LIMIT.describe()}")
    return notes


def _artifact_rows(job: Job, figures: dict[str, Figures], candidates: Candidates) -> list[dict[str, Any]]:
    """Every file; of those that could ship also whether it is accurate enough, and the fastest of these."""
    names = {one.artifact.name for one in candidates.files}
    accurate = {one.artifact.name for one in candidates.accurate}
    rows, ships, refused = [], shipped(job), read_refused(job)
    for artifact in read_artifacts(job):
        name = artifact.name
        row = {field: getattr(artifact, field) for field in ARTIFACT_FIELDS} | {"shipped": name == ships}
        if name in figures:
            found = figures[name]
            row |= {
                "accuracy_percent": found.accuracy_percent,
                "latency": found.latency.to_dict(),
                "origin": "measured",
            }
        if name in refused:
            row |= {"refused": refused[name]}
        if name in names:
            row |= {"accurate": name in accurate, "fastest": name == candidates.fastest.artifact.name}
        rows.append(row)
    return rows


def _problems(*figures: Figures) -> list[str]:
    return [f"{one.artifact.path}: invalid run: {text}" for one in figures for text in one.measurement.problems]
