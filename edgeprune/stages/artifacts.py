"""The stage that makes files and checks them, and what it made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.core.artifact import Artifact, name_artifact
from edgeprune.core.formats import AUTO, FORMATS, MIXED, RUNTIMES
from edgeprune.core.metric import TOP1
from edgeprune.core.planning.limits import STATED_BYTES, Costs
from edgeprune.core.progress import Count
from edgeprune.core.releasing.shipping import is_within, quality_limits
from edgeprune.core.target import Target
from edgeprune.errors import ExportError
from edgeprune.exporting.artifacts import build_artifacts, place_artifact
from edgeprune.exporting.files import sha256_of
from edgeprune.exporting.formats import find_format
from edgeprune.exporting.parity.chain import Judge, compare_outputs
from edgeprune.exporting.parity.tolerances import TOLERANCES
from edgeprune.exporting.quantizing.mixed import Wishes
from edgeprune.exporting.request import ExportRequest, Form, Processor
from edgeprune.exporting.runners import run_file
from edgeprune.graph.costs import count_net
from edgeprune.graph.groups import find_groups
from edgeprune.graph.storage import load_model
from edgeprune.stages.chain import Checked, Nets, check_artifacts_, parity_row
from edgeprune.stages.job import Job
from edgeprune.stages.net import Net
from edgeprune.stages.open_net import read_net
from edgeprune.stages.prices import price_net
from edgeprune.stages.record import find_needed, read_originals
from edgeprune.stages.results import Exported, Traced

DEPLOYED = ("fp32", "fp16", "int8")
"""Precisions that are always made and measured; what the target asks for comes on top."""
PRICED = ("fp32", "int8")
"""Precisions of the whole net that mixed precision is priced by."""
IMAGE_DIMENSIONS = 4
"""Of an input `[N, C, H, W]`."""
PARITY_ROWS = 64
REMOTE_ROWS = 1000
"""Evaluation inputs pushed to a board; this machine takes all."""
EMULATED_ROWS = 256
"""Evaluation inputs of a board in QEMU, which takes a second for each hundred million instructions or so."""
REFERENCE_ROWS = 256
"""Evaluation inputs that reference kernels run on."""


@dataclass(frozen=True)
class Files:
    """Which files to make of a net, and in which folder: the run directory or one inside it.

    `wishes` are what is asked of one of mixed precision; `has_float`: the fp32 files are there, made before.
    """

    directory: Path
    role: str
    formats: tuple[str, ...]
    precisions: tuple[str, ...]
    tuned: bool = False
    wishes: Wishes = Wishes()
    has_float: bool = False


def build(job: Job, program: GraphModule, files: Files) -> tuple[Artifact, ...]:
    """Export a net, with the int8 scheme that suits the device.

    Raises:
        ExportError: it cannot be made in the target's format; another format that cannot be made is left out.
    """
    artifacts = list[Artifact]()
    for file_format in files.formats:
        try:
            artifacts += build_format(job, program, files, file_format)
        except ExportError as exc:
            if file_format == job.planned.format:
                raise
            job.detail(f"no {file_format} files of this net: {exc}")
    return tuple(artifacts)


def build_format(job: Job, program: GraphModule, files: Files, file_format: str) -> tuple[Artifact, ...]:
    """Export a net to one of the formats.

    Raises:
        ExportError: it cannot be made.
    """
    processor = Processor() if job.estimated else Processor(job.facts.machine, job.facts.cpu_flags)
    example = job.recipe.example_input()
    request = ExportRequest(
        directory=files.directory,
        role=files.role,
        formats=(file_format,),
        precisions=tuple(precision for precision in files.precisions if precision in FORMATS[file_format].precisions),
        calibration=_inputs_only(job.recipe.calibration_data()),
        int8_scheme=job.target.int8_scheme,
        processor=processor,
        origin=_origin(job, files.role),
        tuned=files.tuned,
        form=find_form(job.target, example),
        wishes=files.wishes,
        has_float=files.has_float,
    )
    numbers = count(1)

    def tell(text: str) -> None:
        if len(request.precisions) > 1:
            job.detail(Count(f"exporting {next(numbers)} of {len(request.precisions)}: {text}"))

    artifacts = build_artifacts(program, example, request, tell)
    if files.directory == job.run.directory:
        for artifact in artifacts:
            job.run.product(artifact.path)
    return artifacts


def find_form(target: Target, example: Tensor) -> Form:
    """What files for a target take and give; an input that is no image has no layout that could be asked for."""
    is_image = example.ndim == IMAGE_DIMENSIONS
    return Form(nhwc=is_image and target.input_layout == "nhwc", integers=target.io == "integer")


def _origin(job: Job, role: str) -> dict[str, str]:
    """What a file says of where it came from; of the plan only where it was pruned by the final one."""
    origin = {"recipe": job.recipe.name, "model_sha256": job.read(Traced).model_sha256}
    if job.recipe.labels:
        origin["labels"] = json.dumps(job.recipe.labels)
    if job.recipe.preprocessing:
        origin["preprocessing"] = job.recipe.preprocessing
    if role == "pruned" and job.run.finished("prune"):
        origin["plan_sha256"] = sha256_of(job.run.file("plan.json"))
    return origin


def build_variant(job: Job, name: str, program: GraphModule) -> Path:
    """Export an untrained net as the target runs it, to be timed only."""
    folder = job.run.directory / "variants" / name
    (artifact,) = build(job, program, Files(folder, "pruned", (job.planned.format,), (job.planned.fitted_precision,)))
    return folder / artifact.path


def _inputs_only(batches: Iterable[Any]) -> Iterator[Tensor]:
    for batch in batches:
        yield batch[0] if isinstance(batch, (tuple, list)) else batch


def export(job: Job) -> Exported:
    """Every format in the precisions that are measured, each checked against the net it was made from.

    Where int8 is refused or not accurate enough, a file with some layers in float is tried; where the fastest file
    ships, also one with those in float that are faster so.

    Raises:
        ExportError: a file that is needed cannot be made.
        ParityError: a file that is needed computes something else than the net; names the layer.
    """
    net, program, checked = read_net(job), load_model(job.run.file("recovered.pt2")), Checked()
    originals, pruned = read_originals(job), _build_all(job, program)
    for artifact in originals:
        job.run.file(artifact.path)
    inputs, targets = evaluation_rows(job, PARITY_ROWS)
    nets = Nets(
        programs={"original": net.program, "pruned": program},
        directory=job.run.directory,
        inputs=inputs,
        same_processor=not job.facts.is_remote,
        needed=(*find_needed(job), name_artifact("pruned", job.planned.format, "fp32")),
        judge=judge_rows(job, targets),
    )
    check_artifacts_(checked, nets, originals)
    check_artifacts_(checked, nets, pruned)
    is_accurate = make_judge(job)
    is_int8_right = partial(_is_int8_right, job, checked, is_accurate)
    always = wants_mixed(job.planned.runtime, job.target.precision, is_int8_right)
    if always is not None:
        wishes = Wishes(
            accurate=partial(_is_right, job, is_accurate),
            ask=partial(price_net, job, {precision: _place(job, precision) for precision in PRICED}),
            always=always,
            **_sizes_allowed(job, pruned),
        )
        for mixed in _build_mixed(job, program, wishes):
            floats = [
                artifact for artifact in pruned if (artifact.format, artifact.precision) == (mixed.format, "fp32")
            ]
            check_artifacts_(checked, nets, [*floats, mixed])
            pruned = (*pruned, mixed)
    for link in checked.links:
        job.detail(f"{link.describe()}")
    for name, reason in checked.refused.items():
        job.detail(f"{name} is refused: {reason}")
    return Exported(
        artifacts=(*originals, *pruned),
        costs=_count(net, program, (*originals, *pruned)),
        parity=tuple(parity_row(link) for link in checked.links),
        refused=checked.refused,
    )


def wants_mixed(runtime: str, precision: str, is_int8_right: Callable[[], bool]) -> bool | None:
    """Whether a file with some layers in float is made: None: it is not; False: only if some are better in float."""
    if not RUNTIMES[runtime].takes(MIXED):
        return None
    if precision == MIXED or not is_int8_right():
        return True
    return False if precision == AUTO else None


def _count(net: Net, program: GraphModule, artifacts: Iterable[Artifact]) -> dict[str, Costs]:
    """What the net in each file costs, by the file's name: counted on the nets as they are, not on what was planned."""
    nets = {"original": (net.program, net.analysis), "pruned": (program, find_groups(program))}
    costs = {artifact.name: count_net(*nets[artifact.role], artifact.precision) for artifact in artifacts}
    activation_bytes = {
        artifact.name: artifact.activation_bytes for artifact in artifacts if artifact.activation_bytes is not None
    }
    return {
        name: replace(cost, activation_bytes=activation_bytes.get(name, cost.activation_bytes))
        for name, cost in costs.items()
    }


def _sizes_allowed(job: Job, artifacts: Iterable[Artifact]) -> dict[str, float]:
    """What a mixed file may take beside the int8 file that was made: what is left of the budget."""
    budget = job.target.budget
    in_int8 = next(
        artifact for artifact in artifacts if (artifact.format, artifact.precision) == (job.planned.format, "int8")
    )
    room = inf if budget.file_bytes is None else budget.file_bytes - in_int8.bytes - STATED_BYTES
    return {"room_bytes": room, "most_activation_bytes": budget.activation_bytes or inf}


def _build_all(job: Job, program: GraphModule) -> tuple[Artifact, ...]:
    """The pruned net in every format and precision that is measured, but mixed."""
    precisions = (*(("fp32",) if job.is_counted else DEPLOYED), job.planned.fitted_precision)
    files = Files(job.run.directory, "pruned", job.formats, tuple(dict.fromkeys(precisions)), tuned=True)
    return build(job, program, files)


def _build_mixed(job: Job, program: GraphModule, wishes: Wishes) -> tuple[Artifact, ...]:
    """The pruned net with those layers in float that int8 cannot do without or that are faster so; none without such.

    Raises:
        ExportError: there are none, and the target asks for them.
    """
    formats, precisions = (job.planned.format,), (MIXED,)
    files = Files(job.run.directory, "pruned", formats, precisions, tuned=True, wishes=wishes, has_float=True)
    try:
        return build(job, program, files)
    except ExportError as exc:
        if job.target.precision == MIXED:
            raise
        job.detail(f"{exc}")
        return ()


def _place(job: Job, precision: str) -> Path:
    """The pruned net's file in a precision, in the target's format."""
    return place_artifact(job.run.directory, "pruned", job.planned.format, precision)


def _is_int8_right(job: Job, checked: Checked, is_accurate: Callable[[Path], bool]) -> bool:
    refused = name_artifact("pruned", job.planned.format, "int8") in checked.refused
    return not refused and is_accurate(_place(job, "int8"))


def _is_right(job: Job, is_accurate: Callable[[Path], bool], path: Path) -> bool:
    """Whether a file of mixed precision may ship: it is accurate, and computes what the fp32 file does."""
    inputs, targets = evaluation_rows(job, PARITY_ROWS)
    run, _ = _find_judge(job)
    outputs = run(_place(job, "fp32"), inputs), run(path, inputs)
    return compare_outputs("mixed", *outputs, TOLERANCES[MIXED], judge_rows(job, targets)).ok and is_accurate(path)


def judge_rows(job: Job, targets: np.ndarray) -> Judge:
    """The recipe's metric over rows with these targets; outputs are logits where its loss or its metric says so."""
    metric = job.recipe.metric
    return Judge(metric, targets, job.recipe.classifies or metric == TOP1)


def make_judge(job: Job) -> Callable[[Path], bool]:
    """What says whether a file of the planned format is within the limits on quality beside the unpruned net, on some
    evaluation inputs, here. The unpruned net is run once.
    """
    run, rows = _find_judge(job)
    limits = quality_limits(job.gates, job.metric)

    def measure_quality(path: Path) -> float:
        inputs, targets = evaluation_rows(job, rows)
        return float(job.recipe.metric(run(path, inputs), targets))

    @cache
    def original() -> float:
        artifact = next(
            artifact
            for artifact in read_originals(job)
            if (artifact.format, artifact.precision) == (job.planned.format, job.baseline_precision)
        )
        return measure_quality(job.run.file(artifact.path))

    return lambda path: is_within(limits, measure_quality(path), original())


def _find_judge(job: Job) -> tuple[Callable[[Path, np.ndarray], np.ndarray], int]:
    """What runs files to judge them here, and on how many inputs: kernels of this machine may saturate where those of
    another processor do not, so that files for a board are judged in slow reference kernels.
    """
    if find_format(job.planned.format).saturates and job.facts.is_remote:
        return partial(run_file, optimised=False), REFERENCE_ROWS
    return run_file, REMOTE_ROWS


def evaluation_rows(job: Job, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The first `most` evaluation inputs `[N, ...]` and targets, or all."""
    inputs, targets, count = [], [], 0
    for batch, batch_targets in job.recipe.eval_data():
        inputs.append(np.asarray(batch))
        targets.append(np.asarray(batch_targets))
        count += len(batch)
        if most is not None and count >= most:
            break
    return np.concatenate(inputs)[:most], np.concatenate(targets)[:most]
