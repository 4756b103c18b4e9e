"""The files that a run goes by (recipe, target, gates), as its stages read them. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from edgeprune.core.stages import STEPS
from edgeprune.errors import RunError
from edgeprune.recipes.built_in import BUILT_IN
from edgeprune.recipes.fingerprint import hash_code
from edgeprune.run import SOURCES, Run, hash_file, read_json, write_json
from edgeprune.shipped import find_target
from edgeprune.stages.job import Job

NAMES = tuple(STEPS)
RECIPE_STAGES = NAMES[: NAMES.index("confirm")]
TARGET_STAGES = NAMES[NAMES.index("profile") : NAMES.index("report")]


def note_sources(job: Job, stage: str) -> None:
    """Write down what the files that a stage has just gone by are now.

    Raises:
        RunError: one cannot be read, or the note cannot be written.
    """
    if paths := _find_sources(job, stage):
        rows = {**_read(job.run), stage: {str(path): _hash(path) for path in paths}}
        write_json(job.run.path(SOURCES), rows)


def describe_changes(job: Job, again: Collection[str] = ()) -> list[str]:
    """What to say of each file that was changed since stages used it; those `again` are about to be made anew.

    Nothing is known of stages that an older edgeprune has made.
    """
    rows = {stage: files for stage, files in _read(job.run).items() if job.run.finished(stage)}
    stages_by_path = dict[str, list[str]]()
    for stage in NAMES:
        for path, digest in rows.get(stage, {}).items():
            if _hash(Path(path)) != digest:
                stages_by_path.setdefault(path, []).append(stage)
    return [_describe(job.run, Path(path), stages, again) for path, stages in stages_by_path.items()]


def _describe(run: Run, path: Path, stages: Sequence[str], again: Collection[str]) -> str:
    held = [stage for stage in stages if stage not in again]
    what = f"{path}: {'was changed' if path.exists() else 'is gone'} since this run used it"
    if not held:
        return f"{what}; {' and '.join(stages)} uses it as it is now"
    names = f"{held[0]} to {held[-1]} stay" if len(held) > 1 else f"{held[0]} stays"
    return (
        f"{what}; {names} as made then, what is made from now on uses the file as it is; "
        f"`edgeprune deploy --run {run.directory} --from {held[0]}` makes all anew"
    )


def _find_sources(job: Job, stage: str) -> list[Path]:
    """The files that a stage goes by."""
    request = job.run.request
    recipe = BUILT_IN.get(request["recipe"], Path(request["recipe"]))
    paths = [recipe] if stage in RECIPE_STAGES else []
    paths += [find_target(request["target"])] if stage in TARGET_STAGES else []
    paths += [job.gates_file] if stage == "gate" and job.gates_file is not None else []
    return [path.absolute() for path in paths]


def _hash(path: Path) -> str:
    """SHA-256 of a file, of a recipe with what it imports from beside it; empty where it is gone."""
    if not path.exists():
        return ""
    return hash_code(path) if path.suffix == ".py" else hash_file(path)


def _read(run: Run) -> dict[str, dict[str, str]]:
    """The note, by stage and path; empty where there is none that can be read, as in a run of an older edgeprune."""
    if not (run.directory / SOURCES).exists():
        return {}
    document = read_json(run.directory / SOURCES)
    if not isinstance(document, dict) or not all(isinstance(files, dict) for files in document.values()):
        raise RunError(f"{run.directory / SOURCES}: expected files and their hashes by stage; remove it")
    return document
