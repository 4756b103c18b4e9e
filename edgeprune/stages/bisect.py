"""Of the files in a run directory, layer by layer: which goes wrong first, and why. Needs no finished stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeprune.core.text import suggest
from edgeprune.errors import UsageError
from edgeprune.exporting.artifacts import FOLDER
from edgeprune.exporting.files import sha256_of
from edgeprune.exporting.parity.bisect import Bisection
from edgeprune.exporting.parity.links import Key, find_bisectors
from edgeprune.exporting.parity.tolerances import TOLERANCES
from edgeprune.graph.storage import load_model
from edgeprune.stages.artifacts import evaluation_rows
from edgeprune.stages.chain import BISECT_ROWS
from edgeprune.stages.job import Job
from edgeprune.stages.results import Exported, Profiled

PROGRAMS = {"original": "original.pt2", "pruned": "recovered.pt2"}
"""Role to the net that its files were made from."""


@dataclass(frozen=True)
class Finding:
    """One link of a run, layer by layer; `stale` where the file is not the one that was exported."""

    link: str
    bisection: Bisection
    stale: bool

    def describe(self) -> str:
        """For people."""
        note = " (changed since it was exported)" if self.stale else ""
        return f"{self.link}{note}: {self.bisection.describe()}"


def bisect(job: Job, name: str) -> tuple[Finding, ...]:
    """Every link that leads to a file of the run, or to the one called `name` ("pruned-onnx-int8").

    Raises:
        UsageError: no such file in the run, or none at all.
        ExportError: a file does not run, or has few layers in common with its fp32 file.
    """
    files = find_files(job.run.directory)
    names = {"-".join(key): key for key in files}
    if not files:
        raise UsageError(f"{job.run.directory}: no exported files there yet; `edgeprune export --run` makes them")
    if name and name not in names:
        raise UsageError(f"{job.run.directory}: no exported file {name!r}{suggest(name, names)}")
    inputs, _ = evaluation_rows(job, BISECT_ROWS)
    recorded = _recorded_hashes(job)
    return tuple(
        Finding(link, compare(inputs), recorded.get("-".join(key), "") not in ("", sha256_of(files[key])))
        for key in ([names[name]] if name else files)
        for link, compare in find_bisectors(
            key, files, lambda role: load_model(job.run.directory / PROGRAMS[role])
        ).items()
    )


def find_files(directory: Path) -> dict[Key, Path]:
    """The exported files of a run, fp32 first: also those of an export that stopped at a broken link."""
    files = {}
    for path in sorted((directory / FOLDER).glob("*.*.*"), key=lambda path: ".fp32." not in path.name):
        role, precision, file_format = path.name.split(".", 2)
        if role in PROGRAMS and precision in TOLERANCES:
            files[role, file_format, precision] = path
    return files


def _recorded_hashes(job: Job) -> dict[str, str]:
    """SHA-256 by artifact name, as far as the run has recorded them."""
    artifacts = job.read(Profiled).originals if job.run.finished("profile") else ()
    artifacts = job.read(Exported).artifacts if job.run.finished("export") else artifacts
    return {artifact.name: artifact.sha256 for artifact in artifacts}
