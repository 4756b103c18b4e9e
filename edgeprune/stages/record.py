"""What the finished stages of a run have left: its files, what was measured of them, and which of them ships.

Imports nothing heavy, so that a run is judged again in no time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from edgeprune.core.artifact import Artifact, name_artifact
from edgeprune.core.formats import AUTO
from edgeprune.core.measuring.measurement import Measurement, parse_measurement
from edgeprune.core.releasing.document import Figures
from edgeprune.core.releasing.shipping import Candidates
from edgeprune.run import read_json
from edgeprune.stages.job import Job
from edgeprune.stages.results import Exported, Fitted, Measured, Profiled

CONFIRMED = "confirmed.json"
"""What was measured of the file that ships, and of the unpruned one, in sessions of their own."""


def read_originals(job: Job) -> tuple[Artifact, ...]:
    """The unpruned net's files, as the profile made them."""
    return job.read(Profiled).originals


def read_artifacts(job: Job) -> tuple[Artifact, ...]:
    """Every file of this run."""
    return job.read(Exported).artifacts


def read_refused(job: Job) -> dict[str, str]:
    """Why files of this run may not ship, by their name: they do not compute what the net computes."""
    return job.read(Exported).refused


def baseline_name(job: Job) -> str:
    """Name of the artifact that everything is held against: the unpruned net in fp32, or in int8 where nothing else
    runs."""
    return name_artifact("original", job.baseline_format, job.baseline_precision)


def find_needed(job: Job) -> tuple[str, ...]:
    """Names of the files without which a run makes no sense: the baseline, and what is asked for."""
    precision = "fp32" if job.target.precision == AUTO else job.target.precision
    return baseline_name(job), name_artifact("pruned", job.planned.format, precision)


def is_open(job: Job, artifact: Artifact) -> bool:
    """Whether a file may be what ships: the pruned net, as the target names it or leaves it open."""
    formats = job.formats if job.target.runtime == AUTO else (job.target.format,)
    precise = job.target.precision in (AUTO, artifact.precision)
    return artifact.role == "pruned" and artifact.format in formats and precise


def find_candidates(job: Job, figures: Mapping[str, Figures]) -> Candidates:
    """Of all that was measured, the pruned net's files that compute what the net computes."""
    broken = job.read(Measured).broken
    files = [file for file in figures.values() if file.artifact.role == "pruned" and file.artifact.name not in broken]
    choice = {file.artifact.name for file in files if is_open(job, file.artifact)}
    return Candidates(
        files=tuple(files),
        baseline=figures[baseline_name(job)],
        gates=job.gates,
        open=choice,
        again=_read_again(job, figures),
        confidence=job.target.budget.gate_confidence,
    )


def _read_again(job: Job, figures: Mapping[str, Figures]) -> dict[str, Figures]:
    """What the stage `confirm` has measured again, once it has."""
    if not job.run.finished("confirm"):
        return {}
    rows = read_json(job.run.file(CONFIRMED))
    return {name: replace(figures[name], measurement=parse_measurement(row)) for name, row in rows.items()}


def read_measurements(job: Job) -> dict[str, Measurement]:
    """The measurements of all files, which took turns, by artifact name."""
    return {name: parse_measurement(row) for name, row in read_json(job.run.file("measurements.json")).items()}


def read_figures(job: Job) -> dict[str, Figures]:
    """Everything measured, by artifact name."""
    result, exported, measurements, metric = job.read(Measured), job.read(Exported), read_measurements(job), job.metric
    fitted = name_artifact("pruned", job.planned.format, job.planned.fitted_precision)
    original = name_artifact("original", job.planned.format, job.baseline_precision)
    predicted = {
        original: job.read(Profiled).baseline_predicted_ms,
        fitted: job.read(Fitted).plan.predicted_ms,
    }
    return {
        artifact.name: Figures(
            artifact=artifact,
            measurement=measurements[artifact.name],
            quality=_read_quality(result.quality[artifact.name]),
            samples=result.samples,
            costs=exported.costs[artifact.name],
            predicted_ms=predicted.get(artifact.name, artifact.predicted_ms),
            metric=metric,
            spread=result.spreads.get(artifact.name),
        )
        for artifact in exported.artifacts
        if artifact.name in measurements
    }


def _read_quality(value: float | None) -> float:
    """A figure of quality as `measure` has saved it: null where the metric gave no finite number."""
    return math.nan if value is None else float(value)
