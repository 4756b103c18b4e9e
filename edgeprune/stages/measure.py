"""The stage that measures files on the device, and what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune.core.artifact import Artifact, name_artifact
from edgeprune.core.document import Figures
from edgeprune.core.measurement import Measurement, parse_measurement
from edgeprune.core.shipping import Candidates, accuracy_limits
from edgeprune.core.target import AUTO, RUNTIMES
from edgeprune.device.energy import add_energy, measure_energy
from edgeprune.device.measure import ModelFile, evaluate_model, measure_models
from edgeprune.export.artifacts import check_artifact
from edgeprune.export.parity import TOLERANCES, Parity, check_parity, compare_outputs
from edgeprune.export.runners import RUNNERS, fit_inputs
from edgeprune.run import read_json, write_json
from edgeprune.stages.artifacts import (
    PARITY_ROWS,
    REMOTE_ROWS,
    evaluation_rows,
    find_needed,
    read_artifacts,
    read_refused,
)
from edgeprune.stages.chain import parity_row
from edgeprune.stages.job import Job

FORMAT_RUNTIMES = {file_format: runtime for runtime, file_format in RUNTIMES.items()}


def shipped(job: Job) -> str:
    """Name of the artifact that ships: the pruned net in the target's format and precision, or the fastest for AUTO."""
    if job.target.precision == AUTO:
        return read_candidates(job).fastest.artifact.name
    return name_artifact("pruned", job.target.format, job.target.precision)


def read_candidates(job: Job) -> Candidates:
    """What could ship, measured."""
    figures, broken = read_figures(job), job.run.result("measure").get("broken", ())
    files = [one for one in figures.values() if _may_ship(job, one.artifact) and one.artifact.name not in broken]
    return Candidates(tuple(files), figures[baseline_name(job)], accuracy_limits(job.target.gates))


def _may_ship(job: Job, artifact: Artifact) -> bool:
    return (artifact.role, artifact.format) == ("pruned", job.target.format)


def baseline_name(job: Job) -> str:
    """Name of the artifact that everything is held against: the unpruned net in fp32, in the target's format."""
    return name_artifact("original", job.target.format, "fp32")


def measure(job: Job) -> dict[str, Any]:
    """Latency of every artifact, interleaved, energy of those that could ship, and accuracy, all on the device.

    Raises:
        ParityError: the file that is to ship, or the baseline, computes something else on the device than here.
    """
    runtimes = {runtime for runtime in RUNTIMES if job.device.runtime_version(runtime)}
    refused = read_refused(job)
    artifacts = [
        one for one in read_artifacts(job) if FORMAT_RUNTIMES[one.format] in runtimes and one.name not in refused
    ]
    models = {one.name: _model_file(job, one) for one in artifacts}
    precisions = {one.name: one.precision for one in artifacts}
    remote = bool(job.device.facts.host_key)
    elsewhere = remote or bool(job.target.python)
    inputs, targets = evaluation_rows(job, REMOTE_ROWS if remote else None)
    measured = measure_models(job.device, list(models.values()), job.target.threads, job.target.protocol, job.detail)
    looping = [models[one.name] for one in artifacts if _may_ship(job, one) or one.name == baseline_name(job)]
    measured = add_energy(measured, measure_energy(job.device, looping, job.target, job.detail))
    write_json(job.run.path("measurements.json"), {name: one.to_dict() for name, one in measured.items()})
    accuracy, links = {}, {}
    for name, model in models.items():
        outputs = evaluate_model(job.device, model, fit_inputs(model.path, inputs), job.detail)
        accuracy[name] = float(job.recipe.metric(outputs, targets))
        job.detail(f"{name}: accuracy {accuracy[name]:.2f}, p50 {measured[name].latency.p50_ms:.4g} ms")
        if elsewhere:
            links[name] = _device_link(model, precisions[name], inputs[:PARITY_ROWS], outputs[:PARITY_ROWS])
    broken = find_broken(links, find_needed(job.target))
    skipped = sorted({FORMAT_RUNTIMES[file_format] for file_format in job.formats} - runtimes)
    return {
        "accuracy_percent": accuracy,
        "samples": len(inputs),
        "parity": [parity_row(link) for link in links.values()],
        "broken": broken,
        "notes": [
            *(f"{runtime} is not installed on the device: its artifacts were not measured" for runtime in skipped),
            *(f"cannot ship, as the device computes something else: {links[name].describe()}" for name in broken),
        ],
    }


def find_broken(links: Mapping[str, Parity], needed: Sequence[str]) -> list[str]:
    """Names of files that compute something else on the device than here.

    Raises:
        ParityError: one that is needed does.
    """
    for name in needed:
        if name in links:
            check_parity(links[name])
    return [name for name, link in links.items() if not link.ok]


def _model_file(job: Job, artifact: Artifact) -> ModelFile:
    path = check_artifact(artifact, job.run.directory)
    return ModelFile(artifact.name, path, artifact.sha256, FORMAT_RUNTIMES[artifact.format])


def _device_link(model: ModelFile, precision: str, inputs: np.ndarray, outputs: np.ndarray) -> Parity:
    """The same file on the device and here."""
    here = RUNNERS[RUNTIMES[model.runtime]](model.path, inputs)
    return compare_outputs(f"{model.name}: here -> on the device", here, outputs, TOLERANCES[precision])


def read_measurements(job: Job) -> dict[str, Measurement]:
    """The final measurements by artifact name."""
    return {name: parse_measurement(row) for name, row in read_json(job.run.path("measurements.json")).items()}


def read_figures(job: Job) -> dict[str, Figures]:
    """Everything measured, by artifact name."""
    result, measured = job.run.result("measure"), read_measurements(job)
    sizes = {"original": job.run.result("trace"), "pruned": job.run.result("prune")}
    fitted = name_artifact("pruned", job.target.format, job.planned.fitted_precision)
    predicted = {
        baseline_name(job): job.run.result("profile")["baseline_predicted_ms"],
        fitted: job.run.result("fit")["plan"]["predicted_ms"],
    }
    return {
        one.name: Figures(
            artifact=one,
            measurement=measured[one.name],
            accuracy_percent=result["accuracy_percent"][one.name],
            samples=result["samples"],
            parameters=sizes[one.role]["parameters"],
            macs=sizes[one.role]["macs"],
            predicted_ms=predicted.get(one.name, one.predicted_ms),
        )
        for one in read_artifacts(job)
        if one.name in measured
    }
