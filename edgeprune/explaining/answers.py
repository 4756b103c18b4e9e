"""The nets before and after as functions of inputs: the run's files in their runtime here, else the nets in torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.fx import GraphModule

from edgeprune.core.artifact import Artifact
from edgeprune.core.formats import find_runtime
from edgeprune.errors import EdgepruneError, ExportError, MissingExtra, RunError
from edgeprune.exporting.formats import find_format
from edgeprune.exporting.runners import fit_inputs, run_file
from edgeprune.graph.storage import load_model
from edgeprune.stages.job import Job
from edgeprune.stages.open_net import FILE as ORIGINAL
from edgeprune.stages.record import find_candidates, read_figures

Answer = Callable[[np.ndarray], np.ndarray]
"""Outputs `[N, ...]` for inputs `[N, ...]`."""
BATCH = 64
FLOATS = ("fp32", "fp16")


@dataclass(frozen=True)
class Net:
    """A net that answers: `name` is its file in the run or "torch", `runtime` what runs it here."""

    name: str
    runtime: str
    answer: Answer


@dataclass(frozen=True)
class Pair:
    """The unpruned net and the pruned one; `note` says why it is not the files that answer."""

    before: Net
    after: Net
    note: str = ""

    def to_dict(self) -> dict[str, str]:
        """What is said of where outputs came from."""
        return {
            "before": self.before.name,
            "after": self.after.name,
            "runtime": " and ".join(dict.fromkeys((self.before.runtime, self.after.runtime))),
            "machine": "this machine, not the device",
            "note": self.note,
        }


def open_pair(job: Job, example: np.ndarray) -> Pair:
    """The unpruned fp32 file and the one that ships, if `example` `[1, ...]` can be run; else the nets in torch.

    Raises:
        RunError: the net is not cut and trained yet.
    """
    if not job.run.finished("recover"):
        raise RunError("the net is not cut and trained yet: stage 'recover' has not run")
    if not job.run.finished("measure"):
        return _open_torch(job, "no file ships yet: stage 'measure' has not run")
    candidates = find_candidates(job, read_figures(job))
    before, after = (_open_file(job, file.artifact) for file in (candidates.baseline, candidates.chosen))
    try:
        for net in (before, after):
            net.answer(example)
    except (ExportError, MissingExtra) as exc:
        return _open_torch(job, f"the files do not run here: {exc}")
    return Pair(before, after)


def _open_file(job: Job, artifact: Artifact) -> Net:
    """A file, in reference kernels where those of this machine may saturate and those of its board do not."""
    path, kind = job.run.file(artifact.path), find_format(artifact.format)
    is_slow = kind.saturates and job.facts.is_remote and artifact.precision not in FLOATS
    runtime = str(find_runtime(artifact.format)) + ", reference kernels" * is_slow
    return Net(artifact.path, runtime, partial(_run_file, path, not is_slow))


def _run_file(path: Path, optimised: bool, inputs: np.ndarray) -> np.ndarray:
    return run_file(path, fit_inputs(path, inputs), optimised)


def _open_torch(job: Job, note: str) -> Pair:
    before, after = (load_model(job.run.file(name)) for name in (ORIGINAL, "recovered.pt2"))
    runtime = f"torch {torch.__version__}"
    return Pair(
        Net("torch", runtime, partial(_run_torch, before)), Net("torch", runtime, partial(_run_torch, after)), note
    )


def _run_torch(program: GraphModule, inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        batches = torch.split(torch.from_numpy(inputs), BATCH)
        return np.concatenate([np.asarray(program(batch)) for batch in batches])


def find_quality(job: Job, outputs: np.ndarray, targets: np.ndarray) -> float:
    """The recipe's metric; NaN where it gives no number, as of outputs that it cannot judge."""
    try:
        return float(job.recipe.metric(outputs, targets))
    except EdgepruneError:
        return float("nan")
