"""The stage that measures files on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np

from edgeprune.core.artifact import Artifact
from edgeprune.core.cost import say_cost
from edgeprune.core.formats import RUNTIMES, find_runtime
from edgeprune.core.measuring.measurement import add_energy
from edgeprune.core.measuring.paired_quality import QualitySpread, find_quality_spread
from edgeprune.core.progress import Count
from edgeprune.device.board import ModelFile
from edgeprune.exporting.formats import format_of
from edgeprune.exporting.parity.chain import Judge, Parity, check_parity, compare_outputs
from edgeprune.exporting.parity.tolerances import TOLERANCES
from edgeprune.exporting.runners import fit_inputs, run_file
from edgeprune.run import write_json
from edgeprune.stages.artifacts import EMULATED_ROWS, PARITY_ROWS, REMOTE_ROWS, evaluation_rows, judge_rows
from edgeprune.stages.chain import parity_row
from edgeprune.stages.job import Job
from edgeprune.stages.record import baseline_name, find_needed, is_open, read_artifacts, read_refused
from edgeprune.stages.results import Measured


def measure(job: Job) -> Measured:
    """Latency of every artifact, interleaved, energy of those that could ship, and quality, all on the device.

    Raises:
        ParityError: the file that is to ship, or the baseline, computes something else on the device than here.
    """
    refused = read_refused(job)
    artifacts = [
        artifact for artifact in read_artifacts(job) if _is_run(job, artifact) and artifact.name not in refused
    ]
    models = {artifact.name: model_file(job, artifact) for artifact in artifacts}
    precisions = {artifact.name: artifact.precision for artifact in artifacts}
    remote = job.board.is_remote
    elsewhere = remote or bool(job.target.python)
    inputs, targets = evaluation_rows(job, EMULATED_ROWS if job.is_counted else REMOTE_ROWS if remote else None)
    measurements = job.board.time(list(models.values()), job.target.threads, job.target.protocol, job.detail)
    looping = [
        models[artifact.name] for artifact in artifacts if is_open(job, artifact) or artifact.name == baseline_name(job)
    ]
    if "energy" not in job.board.lacks:
        measurements = add_energy(measurements, job.board.energy(looping, job.target, job.detail))
    write_json(
        job.run.product("measurements.json"),
        {name: measurement.to_dict() for name, measurement in measurements.items()},
    )
    metric, quality, links = job.recipe.metric, dict[str, float | None](), dict[str, Parity]()
    spreads, original = dict[str, QualitySpread](), baseline_name(job)
    for index, name in enumerate(sorted(models, key=lambda name: name != original), 1):
        model = models[name]
        job.detail(Count(f"evaluating {index} of {len(models)}: {name} on {len(inputs)} inputs"))
        outputs = job.board.run(model, fit_inputs(model.path, inputs), job.detail)
        figure = float(metric(outputs, targets))
        if spread := find_quality_spread(metric, targets, outputs, spreads.get(original)):
            spreads[name] = spread
        quality[name] = figure if math.isfinite(figure) else None
        cost = say_cost(measurements[name].latency.p50_ms)
        job.detail(f"{name}: {metric.name} {metric.describe(figure)}, {'' if job.is_counted else 'p50 '}{cost}")
        if elsewhere:
            judge = judge_rows(job, targets[:PARITY_ROWS])
            links[name] = _device_link(model, precisions[name], inputs[:PARITY_ROWS], outputs[:PARITY_ROWS], judge)
    broken = find_broken(links, find_needed(job))
    skipped = sorted(
        str(find_runtime(file_format)) for file_format in job.formats if job.runtime_of(file_format) is None
    )
    return Measured(
        quality=quality,
        spreads={name: replace(spread, inputs_sha256=hash_array(inputs)) for name, spread in spreads.items()},
        samples=len(inputs),
        parity=tuple(parity_row(link) for link in links.values()),
        broken=tuple(broken),
        notes=(
            *(f"{runtime} is not installed on the device: its artifacts were not measured" for runtime in skipped),
            *(f"cannot ship, as the device computes something else: {links[name].describe()}" for name in broken),
            *(f"{name}: {metric.name} is no finite number" for name, figure in quality.items() if figure is None),
        ),
    )


def _is_run(job: Job, artifact: Artifact) -> bool:
    """Whether a runtime of the board takes a file."""
    runtime = job.runtime_of(artifact.format)
    return runtime is not None and RUNTIMES[runtime].takes(artifact.precision)


def hash_array(values: np.ndarray) -> str:
    """SHA-256 of what an array holds."""
    return sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def find_broken(links: Mapping[str, Parity], needed: Sequence[str]) -> list[str]:
    """Names of files that compute something else on the device than here.

    Raises:
        ParityError: one that is needed does.
    """
    for name in needed:
        if name in links:
            check_parity(links[name])
    return [name for name, link in links.items() if not link.ok]


def model_file(job: Job, artifact: Artifact) -> ModelFile:
    """A file of the run, for a board.

    Raises:
        RunError: it is gone, or was changed since it was exported.
    """
    runtime = job.runtime_of(artifact.format) or job.planned.runtime
    return ModelFile(artifact.name, job.run.file(artifact.path), artifact.sha256, runtime)


def _device_link(
    model: ModelFile, precision: str, inputs: np.ndarray, outputs: np.ndarray, judge: Judge | None = None
) -> Parity:
    """The same file on the device and here; kernels that only round differently may be a step apart in each channel."""
    here, tolerance = run_file(model.path, inputs), TOLERANCES[precision]
    if precision not in ("fp32", "fp16"):
        tolerance = replace(tolerance, channel_db=format_of(model.path).kernels.channel_db)
    return compare_outputs(f"{model.name}: here -> on the device", here, outputs, tolerance, judge)
