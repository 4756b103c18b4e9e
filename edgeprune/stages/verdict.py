"""The last stages: hold the figures against the gates, and write the report."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from edgeprune.core.document import REPORT_VERSION, Figures, budget_gates, describe_conditions, gate_figures
from edgeprune.core.gate import decide, judge
from edgeprune.core.statistics import ratio_interval
from edgeprune.report.junit import render_junit
from edgeprune.report.page import render_page
from edgeprune.run import read_json, write_atomic, write_json
from edgeprune.stages.artifacts import read_artifacts, read_figures, read_measurements, shipped
from edgeprune.stages.job import Job


def gate(job: Job) -> dict[str, Any]:
    """Judge the shipped artifact by the target's gates and its own budget."""
    figures = read_figures(job)
    baseline, result = figures[f"original-{job.target.format}-fp32"], figures[shipped(job)]
    looked_at, beside = gate_figures(result, baseline), gate_figures(baseline)
    results = [judge(one, looked_at, beside) for one in budget_gates(job.target.budget, job.target.gates)]
    return {"verdict": decide(results), "gates": [one.to_dict() for one in results]}


def report(job: Job) -> dict[str, Any]:
    """Write `report.json`, `report.html` and `gates.junit.xml`."""
    document = build_report(job)
    measured = read_measurements(job)
    samples = {
        "before": measured[f"original-{job.target.format}-fp32"].samples_ms,
        "after": measured[shipped(job)].samples_ms,
    }
    write_json(job.run.path("report.json"), document)
    write_atomic(job.run.path("gates.junit.xml"), render_junit(document))
    write_atomic(job.run.path("report.html"), render_page(document, samples))
    return {"verdict": document["verdict"]}


def build_report(job: Job) -> dict[str, Any]:
    """The report document; its fields are described in docs/report.md."""
    figures, judged, profiled = read_figures(job), job.run.result("gate"), job.run.result("profile")
    baseline, result = figures[f"original-{job.target.format}-fp32"], figures[shipped(job)]
    speedup = ratio_interval(baseline.measurement.samples_ms, result.measurement.samples_ms)
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
        },
        "predicted": {
            "latency_ms": fitted["plan"]["predicted_ms"],
            "origin": "measured layers, corrected by measured whole nets",
            "correction": profiled["correction"],
            "tries": fitted["tries"],
        },
        "speedup": speedup[0],
        "speedup_interval": list(speedup[1:]),
        "artifacts": [_artifact_row(job, one.name, figures) for one in read_artifacts(job)],
        "device": profiled["device"],
        "conditions": describe_conditions(result.measurement),
        "plan": read_json(job.run.path("plan.json")),
        "parity": job.run.result("export")["parity"] + job.run.result("measure")["parity"],
        "torch_accuracy_percent": {
            "original": job.run.result("trace")["accuracy_percent"],
            "cut": job.run.result("recover")["accuracy_before_percent"],
            "recovered": job.run.result("recover")["accuracy_percent"],
        },
        "notes": [*job.run.result("trace")["notes"], *job.run.result("measure")["notes"], *_problems(result, baseline)],
    }


def _artifact_row(job: Job, name: str, figures: dict[str, Figures]) -> dict[str, Any]:
    artifact = next(one for one in read_artifacts(job) if one.name == name)
    row = {
        **{
            field: getattr(artifact, field)
            for field in ("path", "sha256", "format", "precision", "bytes", "role", "scheme")
        },
        "shipped": name == shipped(job),
    }
    if name in figures:
        found = figures[name]
        row |= {"accuracy_percent": found.accuracy_percent, "latency": found.latency.to_dict(), "origin": "measured"}
    return row


def _problems(*figures: Figures) -> list[str]:
    return [f"{one.artifact.path}: invalid run: {text}" for one in figures for text in one.measurement.problems]
