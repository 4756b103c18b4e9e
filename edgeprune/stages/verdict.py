"""The last stages: hold the figures against the gates, and write the report. They import neither torch nor runtimes."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgeprune.core.cost import cost_name
from edgeprune.core.formats import AUTO
from edgeprune.core.measuring.pairing import find_ratio
from edgeprune.core.measuring.spread import StudentSpread, explain_quotient
from edgeprune.core.planning.plan import NOTHING_CUT
from edgeprune.core.releasing.document import REPORT_VERSION, Figures, describe_conditions
from edgeprune.core.releasing.gate import QUALITY_METRICS, GateResult, decide
from edgeprune.core.releasing.shipping import Candidates
from edgeprune.history.address import find_history
from edgeprune.history.measured import hash_sources
from edgeprune.history.tracking import track
from edgeprune.history.writing import keep_run
from edgeprune.report.junit import render_junit
from edgeprune.report.markdown import render_markdown
from edgeprune.report.page import Evidence, render_report
from edgeprune.run import read_json, write_atomic, write_json
from edgeprune.shipped import load_target
from edgeprune.stages.against import BESIDE, Standing
from edgeprune.stages.explanation import explain_run, read_explanation
from edgeprune.stages.job import Job
from edgeprune.stages.record import find_candidates, read_artifacts, read_figures, read_refused
from edgeprune.stages.results import Against, Exported, Fitted, Judged, Measured, Profiled, Recovery, Reported, Traced
from edgeprune.stages.sources import describe_changes

LIBRARIES = ("torch", "onnx", "onnxruntime", "litert-torch", "ai-edge-quantizer")
"""Whose versions on this machine decide what is in the files."""
FRONT = "front.json"
ARTIFACT_FIELDS = ("path", "sha256", "format", "precision", "bytes", "role", "scheme")


def gate(job: Job, standing: Standing | None = None) -> Judged:
    """Judge the shipped artifact by the target's gates and its whole budget; and by how it stands against a baseline.

    Raises:
        RunError: a file that it rests on is gone or was changed since it was measured.
    """
    candidates = find_candidates(job, read_figures(job))
    result = candidates.chosen
    _check_files(job, result, candidates.baseline)
    results, against = candidates.judge(result), standing.against if standing else None
    if standing and standing.measured:
        rows = {name: measurement.to_dict() for name, measurement in standing.measured.items()}
        write_json(job.run.product(BESIDE), rows)
    return Judged(
        verdict=decide([*results, *_baseline_results(against)]),
        against=against,
        gates=tuple(results),
        artifact=result.artifact.name,
        judged_by=tuple(gate.to_dict() for gate in candidates.gates),
        source=job.gates_source,
    )


def _baseline_results(against: Against | None) -> list[GateResult]:
    return [row.to_result(against.name) for row in against.rows] if against else []


def _check_files(job: Job, *figures: Figures) -> None:
    for file in figures:
        job.run.file(file.artifact.path)


def report(job: Job) -> Reported:
    """Write `report.json`, `report.html`, `gates.junit.xml` and `gates.md`.

    Raises:
        RunError: a file that it rests on is gone or was changed since it was measured.
    """
    figures = read_figures(job)
    candidates = find_candidates(job, figures)
    result = candidates.chosen
    _check_files(job, result, candidates.baseline)
    document = build_report(job, figures, candidates)
    last, baseline = candidates.find_last(result)
    evidence = Evidence(
        before=baseline.measurement,
        after=last.measurement,
        front=read_json(job.run.file(FRONT)) if (job.run.directory / FRONT).exists() else None,
        explanation=read_explanation(job.run),
    )
    write_json(job.run.product("report.json"), document)
    write_atomic(job.run.product("gates.junit.xml"), render_junit(document))
    write_atomic(job.run.product("gates.md"), render_markdown(document, job.run.directory))
    write_atomic(job.run.product("report.html"), render_report(document, evidence))
    keep_run(job.run, document, job.history, job.detail)
    track(job.run.directory, document, job.detail)
    return Reported(verdict=document["verdict"])


def build_report(job: Job, figures: Mapping[str, Figures], candidates: Candidates) -> dict[str, Any]:
    """The report document; its fields are described in docs/report.md."""
    judged, profiled, fitted = job.read(Judged), job.read(Profiled), job.read(Fitted)
    result, baseline = candidates.find_last(candidates.chosen)
    ratio = find_ratio(baseline.measurement, result.measurement)
    speedup = ratio.interval(candidates.confidence)
    traced, recovered, measured = job.read(Traced), job.read(Recovery), job.read(Measured)
    return {
        "version": REPORT_VERSION,
        "unit": job.unit,
        "edgeprune": version("edgeprune"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "verdict": judged.verdict,
        "gates": [result.to_dict() for result in (*judged.gates, *_baseline_results(judged.against))],
        "against": asdict(judged.against) if judged.against else None,
        "judged_by": judged.source,
        "target": job.target.name,
        "recipe": job.recipe_name,
        "metric": job.metric.to_dict(),
        "runtime": _describe_runtime(result),
        "target_runtime": _find_target_runtime(job),
        "baseline": baseline.to_dict(),
        "result": result.to_dict(),
        "budget": {
            "latency_ms": fitted.plan.budget_ms,
            **_describe_budget(job),
        },
        "predicted": {
            "latency_ms": fitted.plan.predicted_ms,
            "origin": "measured layers, corrected by measured whole nets",
            "correction": asdict(profiled.correction),
            "tries": [asdict(attempt) for attempt in fitted.tries],
        },
        "speedup": speedup[0],
        "speedup_interval": list(speedup[1:]),
        "artifacts": _artifact_rows(job, figures, candidates),
        "device": job.facts.to_dict(),
        "conditions": describe_conditions(result.measurement),
        "plan": read_json(job.run.file("plan.json")),
        "explanation": explain_run(job),
        "parity": [*job.read(Exported).parity, *measured.parity],
        "torch_quality": {
            "original": traced.quality,
            "cut": recovered.quality_before,
            "recovered": recovered.quality,
        },
        "provenance": _describe_provenance(job),
        "notes": [
            *traced.notes,
            *recovered.notes,
            *measured.notes,
            *_choice_notes(job, candidates, candidates.chosen),
            *_counted_notes(job),
            *_busy_notes(job, candidates),
            *_problems(result, baseline),
            *_speedup_notes(result, baseline, ratio),
            *_baseline_notes(job, judged),
            *describe_changes(job),
        ],
    }


def _describe_budget(job: Job) -> dict[str, Any]:
    """What was asked for; of limits in ms and in instructions those that the board can be held to."""
    other = "latency_ms" if job.is_counted else "instructions"
    budget = asdict(job.target.budget)
    return {f"asked_{name}": limit for name, limit in budget.items() if name != other}


def _describe_provenance(job: Job) -> dict[str, Any]:
    """What was asked, and the hashes of what the files were made of."""
    history = find_history(job.history)
    return {
        "request": {name: value for name, value in job.run.request.items() if value is not None},
        "run": str(job.run.directory.absolute()),
        "python": platform.python_version(),
        "libraries": {name: _find_version(name) for name in LIBRARIES},
        **hash_sources(job.run),
        "history": None if history is None else str(history),
    }


def _find_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _find_target_runtime(job: Job) -> str:
    """The runtime of the target as it is written: of a microcontroller that QEMU stands in for another than was run."""
    return str(load_target(job.run.request["target"]).runtime)


def _describe_runtime(figures: Figures) -> str:
    return f"{figures.measurement.runtime} {figures.measurement.runtime_version}"


def _choice_notes(job: Job, candidates: Candidates, result: Figures) -> list[str]:
    """How the file that ships was chosen, where there is something to say."""
    notes = [note for note in job.read(Fitted).plan.notes if note.startswith(NOTHING_CUT)]
    notes += candidates.explain(result)
    notes += [
        f"refused: {reason}" for name, reason in read_refused(job).items() if f"-{result.artifact.format}-" in name
    ]
    if AUTO in (job.target.precision, job.target.runtime) and not any(
        gate.metric in QUALITY_METRICS for gate in candidates.gates
    ):
        (limit,) = candidates.limits
        notes.append(f"no gate on {job.metric.name}: what ships was chosen within {limit.describe()}")
    if result.artifact.format != candidates.baseline.artifact.format:
        notes.append(f"the speed-up is that over the unpruned fp32 net in {_describe_runtime(candidates.baseline)}")
    return notes


def _artifact_rows(job: Job, figures: Mapping[str, Figures], candidates: Candidates) -> list[dict[str, Any]]:
    """Every file; of those that could ship also whether it is accurate enough, and the fastest of these."""
    ships, refused, rows = candidates.chosen, read_refused(job), []
    for artifact in read_artifacts(job):
        row = {field: getattr(artifact, field) for field in ARTIFACT_FIELDS}
        row |= {"shipped": artifact.name == ships.artifact.name}
        if artifact.name in figures:
            row |= _measured_row(candidates, figures[artifact.name])
            row |= {
                "confirmed": artifact.name in candidates.again and candidates.again[artifact.name].measurement.valid
            }
        if artifact.name in refused:
            row |= {"refused": refused[artifact.name]}
        rows.append(row)
    return rows


def _measured_row(candidates: Candidates, figures: Figures) -> dict[str, Any]:
    row = {
        "quality": figures.shown_quality,
        "latency": figures.measurement.describe_latency(),
        "runs_per_sample": figures.measurement.runs_per_sample,
        "origin": figures.measurement.origin,
        "problems": list(figures.measurement.problems),
    }
    if figures in candidates.files:
        row |= {"accurate": figures in candidates.accurate, "fastest": figures is candidates.fastest}
    return row


def _speedup_notes(result: Figures, baseline: Figures, speedup: StudentSpread) -> list[str]:
    """Why the speed-up is not the quotient of the two medians that stand beside it, where it is not."""
    quotient = baseline.latency.p50_ms / result.latency.p50_ms
    basis = explain_quotient(quotient, speedup)
    return [f"the medians alone would give a speed-up of {quotient:.3g}: {basis}"] if basis else []


def _busy_notes(job: Job, candidates: Candidates) -> list[str]:
    """What else worked on the board while the figures were taken that the plan, or the choice of a file, rests on."""
    first, (last, _) = candidates.chosen, candidates.find_last(candidates.chosen)
    again = [
        f"{first.artifact.path} was first measured beside other work and again without: {problem}"
        for problem in first.measurement.problems
        if last.measurement.valid
    ]
    if (profiled := job.read(Profiled)).recalled:
        again.append(
            f"the {cost_name()} profile is that of an earlier run on this device, measured {profiled.measured_at}"
        )
    return again + [
        f"the plan rests on figures that were taken beside other work: {problem}"
        for problem in job.read(Profiled).problems
    ]


def _baseline_notes(job: Job, judged: Judged) -> list[str]:
    """That limits against a baseline were not judged, where there are some and no baseline was named."""
    if judged.against or not job.target.baseline:
        return []
    return ["limits against a baseline were not judged: `edgeprune gate --run DIR --baseline NAME` judges them"]


def _counted_notes(job: Job) -> list[str]:
    """What a run in QEMU does not tell, and what its counts are of."""
    if not job.is_counted:
        return []
    device, shipped = job.facts, _find_target_runtime(job)
    notes = [
        f"counted in QEMU ({device.machine}, {device.cpu}), no time: instructions are exact for an input, and tell "
        "nothing of cycles, memory waits, energy or a cold start"
    ]
    if shipped != job.target.runtime:
        notes.append(
            f"no address of a board was given: instructions are those of C generated from the TFLite file; {shipped} "
            "runs the same file with other kernels"
        )
    return notes


def _problems(*figures: Figures) -> list[str]:
    return [f"{file.artifact.path}: invalid run: {text}" for file in figures for text in file.measurement.problems]
