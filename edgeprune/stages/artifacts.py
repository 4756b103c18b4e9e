"""Stages on files: export and check them, push them, measure them on the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.core.artifact import Artifact, parse_artifact
from edgeprune.core.document import Figures
from edgeprune.core.latency import LatencyTable
from edgeprune.core.measurement import Measurement, parse_measurement
from edgeprune.core.shipping import Candidates, accuracy_limits, is_within
from edgeprune.core.target import AUTO, MIXED, RUNTIMES
from edgeprune.device.energy import add_energy, measure_energy
from edgeprune.device.measure import ModelFile, evaluate_model, measure_models
from edgeprune.errors import ExportError, ParityError
from edgeprune.export.artifacts import ExportRequest, build_artifacts, check_artifact
from edgeprune.export.files import sha256_of
from edgeprune.export.links import Bisector, find_bisectors
from edgeprune.export.parity import TOLERANCES, Parity, check_parity, compare_artifacts, compare_outputs
from edgeprune.export.quantize_onnx import choose_onnx_scheme
from edgeprune.export.runners import RUNNERS, fit_inputs
from edgeprune.export.tflite import TfliteForm
from edgeprune.graph.storage import load_model
from edgeprune.run import read_json, write_json
from edgeprune.stages.job import Job
from edgeprune.stages.table import read_stored_table

FORMAT_RUNTIMES = {file_format: runtime for runtime, file_format in RUNTIMES.items()}
DEPLOYED = ("fp32", "fp16", "int8")
"""Precisions that are always made and measured; what the target asks for comes on top."""
PARITY_ROWS = 64
BISECT_ROWS = 8
REMOTE_ROWS = 1000
"""Evaluation inputs pushed to a board; this machine takes all."""


@dataclass(frozen=True)
class Files:
    """Which files to make of a net, and in which folder: the run directory or one inside it."""

    directory: Path
    role: str
    formats: tuple[str, ...]
    precisions: tuple[str, ...]
    tuned: bool = False


def build(job: Job, program: GraphModule, files: Files) -> tuple[Artifact, ...]:
    """Export a net, with the int8 scheme that suits the device."""
    facts = job.facts
    request = ExportRequest(
        directory=files.directory,
        role=files.role,
        formats=files.formats,
        precisions=files.precisions,
        calibration=_inputs_only(job.recipe.calibration_data()),
        scheme=choose_onnx_scheme(facts.machine, facts.cpu_flags),
        origin=_origin(job, files.role),
        tuned=files.tuned,
        form=TfliteForm(nhwc=job.target.input_layout == "nhwc", integers=job.target.io == "integer"),
        accurate=partial(_is_accurate, job),
        tables=_read_tables(job) if MIXED in files.precisions else (),
    )
    return build_artifacts(program, job.recipe.example_input(), request)


def _origin(job: Job, role: str) -> dict[str, str]:
    """What a file says of where it came from; of the plan only where it was pruned by the final one."""
    found = {"recipe": job.recipe.name, "model_sha256": job.run.result("trace")["model_sha256"]}
    if role == "pruned" and job.run.finished("prune"):
        found["plan_sha256"] = sha256_of(job.run.path("plan.json"))
    return found


def build_variant(job: Job, name: str, program: GraphModule) -> Path:
    """Export an untrained net as the target runs it, to be timed only."""
    folder = job.run.directory / "variants" / name
    (artifact,) = build(job, program, Files(folder, "pruned", (job.target.format,), (job.planned.fitted_precision,)))
    return folder / artifact.path


def _inputs_only(batches: Iterable[Any]) -> Iterator[Tensor]:
    for batch in batches:
        yield batch[0] if isinstance(batch, (tuple, list)) else batch


def export(job: Job) -> dict[str, Any]:
    """Every format in the precisions that are measured, each checked against the net it was made from."""
    program = load_model(job.run.path("recovered.pt2"))
    inputs, _ = evaluation_rows(job, PARITY_ROWS)
    originals = read_originals(job)
    made = _build_all(job, program)
    same = not job.facts.host_key
    links = compare_artifacts(job.original, originals, job.run.directory, inputs, same)
    links += compare_artifacts(program, made, job.run.directory, inputs, same)
    for link in links:
        job.detail(f"{link.describe()}")
        check_link(link, (*originals, *made), job.run.directory, inputs, {"original": job.original, "pruned": program})
    return {
        "artifacts": [one.to_dict() for one in (*originals, *made)],
        "parity": [_parity_row(link) for link in links],
    }


def read_originals(job: Job) -> list[Artifact]:
    """The unpruned net's files, as the profile made them."""
    return [parse_artifact(row) for row in job.run.result("profile")["originals"]]


def _build_all(job: Job, program: GraphModule) -> tuple[Artifact, ...]:
    """The pruned net in every format and precision that is measured: some layers stay in float where int8 alone is not
    accurate enough on this machine.
    """
    directory, target = job.run.directory, job.target
    if target.precision == MIXED:
        precisions = tuple(MIXED if one == "int8" else one for one in DEPLOYED)
        return build(job, program, Files(directory, "pruned", job.formats, precisions, tuned=True))
    precisions = tuple(dict.fromkeys((*DEPLOYED, job.planned.fitted_precision)))
    made = build(job, program, Files(directory, "pruned", job.formats, precisions, tuned=True))
    quantized = next(one for one in made if (one.format, one.precision) == (target.format, "int8"))
    if _is_accurate(job, directory / quantized.path):
        return made
    try:
        files = Files(directory, "pruned", (target.format,), ("fp32", MIXED), tuned=True)
        return (*made, build(job, program, files)[-1])
    except ExportError as exc:
        job.detail(f"{exc}")
        return made


def _is_accurate(job: Job, path: Path) -> bool:
    """Whether a file is within the accuracy limits beside the unpruned net, on some evaluation inputs, here."""
    inputs, targets = evaluation_rows(job, REMOTE_ROWS)
    originals = read_originals(job)
    original = next(job.run.path(one.path) for one in originals if path.suffix == f".{one.format}")
    run = RUNNERS[path.suffix.removeprefix(".")]
    accuracies = [float(job.recipe.metric(run(one, inputs), targets)) for one in (path, original)]
    return is_within(accuracy_limits(job.target.gates), *accuracies)


def _read_tables(job: Job) -> tuple[LatencyTable, ...]:
    """What layers cost on this device in fp32 and in int8, where both were measured."""
    found = [read_stored_table(job, precision) for precision in ("fp32", "int8")]
    return tuple(one for one in found if one is not None) if None not in found else ()


def check_link(
    link: Parity,
    artifacts: Sequence[Artifact],
    directory: Path,
    inputs: np.ndarray,
    programs: Mapping[str, GraphModule],
) -> None:
    """Require a link to be within its tolerance; of a broken one, name the layer. `programs` are the nets by role.

    Raises:
        ParityError: it is not.
    """
    try:
        check_parity(link)
    except ParityError as exc:
        files = {(one.role, one.format, one.precision): directory / one.path for one in artifacts}
        for key in files:
            bisector = find_bisectors(key, files, programs.__getitem__).get(link.link)
            if bisector is not None:
                raise ParityError(f"{exc}; {_name_layer(bisector, inputs[:BISECT_ROWS])}") from exc
        raise


def _name_layer(bisector: Bisector, inputs: np.ndarray) -> str:
    try:
        return bisector(inputs).describe()
    except ExportError as exc:
        return f"no layer can be named: {exc}"


def _parity_row(link: Parity) -> dict[str, Any]:
    row = asdict(link)
    row["tolerance"] = link.tolerance.describe()
    return row


def evaluation_rows(job: Job, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The first `most` evaluation inputs `[N, ...]` and targets, or all."""
    inputs, targets, count = [], [], 0
    for batch, wanted in job.recipe.eval_data():
        inputs.append(np.asarray(batch))
        targets.append(np.asarray(wanted))
        count += len(batch)
        if most is not None and count >= most:
            break
    return np.concatenate(inputs)[:most], np.concatenate(targets)[:most]


def read_artifacts(job: Job) -> list[Artifact]:
    """Every file of this run."""
    return [parse_artifact(row) for row in job.run.result("export")["artifacts"]]


def shipped(job: Job) -> str:
    """Name of the artifact that ships: the pruned net in the target's format and precision, or the fastest for AUTO."""
    if job.target.precision == AUTO:
        return read_candidates(job).fastest.artifact.name
    return f"pruned-{job.target.format}-{job.target.precision}"


def read_candidates(job: Job) -> Candidates:
    """What could ship, measured."""
    figures, broken = read_figures(job), job.run.result("measure").get("broken", ())
    files = [one for one in figures.values() if _may_ship(job, one.artifact) and one.artifact.name not in broken]
    return Candidates(tuple(files), figures[baseline_name(job)], accuracy_limits(job.target.gates))


def _may_ship(job: Job, artifact: Artifact) -> bool:
    return (artifact.role, artifact.format) == ("pruned", job.target.format)


def baseline_name(job: Job) -> str:
    """Name of the artifact that everything is held against: the unpruned net in fp32, in the target's format."""
    return f"original-{job.target.format}-fp32"


def measure(job: Job) -> dict[str, Any]:
    """Latency of every artifact, interleaved, energy of those that could ship, and accuracy, all on the device.

    Raises:
        ParityError: the file that is to ship, or the baseline, computes something else on the device than here.
    """
    runtimes = {runtime for runtime in RUNTIMES if job.device.runtime_version(runtime)}
    artifacts = [one for one in read_artifacts(job) if FORMAT_RUNTIMES[one.format] in runtimes]
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
    broken = find_broken(links, (baseline_name(job), f"pruned-{job.target.format}-{job.target.fitted_precision}"))
    skipped = sorted({FORMAT_RUNTIMES[file_format] for file_format in job.formats} - runtimes)
    return {
        "accuracy_percent": accuracy,
        "samples": len(inputs),
        "parity": [_parity_row(link) for link in links.values()],
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
    predicted = {
        baseline_name(job): job.run.result("profile")["baseline_predicted_ms"],
        f"pruned-{job.target.format}-{job.planned.fitted_precision}": job.run.result("fit")["plan"]["predicted_ms"],
    }
    return {
        one.name: Figures(
            artifact=one,
            measurement=measured[one.name],
            accuracy_percent=result["accuracy_percent"][one.name],
            samples=result["samples"],
            parameters=sizes[one.role]["parameters"],
            macs=sizes[one.role]["macs"],
            predicted_ms=predicted.get(one.name),
        )
        for one in read_artifacts(job)
        if one.name in measured
    }
