"""Baselines as files: a run becomes one, and one is found again by its name. Imports nothing heavy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from edgeprune.core.cost import name_costs
from edgeprune.core.measuring.measurement import DeviceFacts
from edgeprune.core.releasing.baseline import (
    Baseline,
    Newcomer,
    check_baseline,
    describe_device,
    device_kind,
    device_unit,
    find_parity,
    parse_baseline,
    parse_slowdown,
    strip_address,
)
from edgeprune.core.releasing.document import Figures as ShippedFigures
from edgeprune.core.releasing.gate import Figure
from edgeprune.core.text import suggest
from edgeprune.disk import describe_os_error
from edgeprune.errors import BaselineError, RunError
from edgeprune.run import REQUEST, hash_file, look_at_run, read_json, write_atomic
from edgeprune.stages.job import Job
from edgeprune.stages.record import find_candidates, read_figures
from edgeprune.stages.results import Exported, Judged, Measured

FOLDER = Path("baselines")
"""Where baselines are kept by name, beside the project: they are committed with it."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SUSTAINED = "sustained.json"
"""What `edgeprune measure RUN --sustained TIME --output RUN/sustained.json` writes."""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class StoredBaseline:
    """A baseline, where it was read, and the file that it shipped."""

    baseline: Baseline
    place: Path
    artifact: Path


def read_newcomer(job: Job) -> Newcomer:
    """What a run ships, with everything that a baseline is held against.

    Raises:
        RunError: it was not measured, or a file of it was changed.
    """
    candidates = find_candidates(job, read_figures(job))
    result, original = candidates.find_last(candidates.chosen)
    job.run.file(result.artifact.path)
    return Newcomer(job.target.name, job.recipe_name, job.facts, result, original.measurement, _find_more(job, result))


def _find_more(job: Job, result: ShippedFigures) -> dict[str, Figure]:
    """Figures that no measurement holds: parity, and a sustained run where there is one of this very file."""
    rows = (*job.read(Exported).parity, *job.read(Measured).parity)
    path = job.run.directory / SUSTAINED
    sustained = parse_slowdown(read_json(path), result.artifact.sha256) if path.exists() else None
    more = {"parity_sqnr_db": find_parity(rows, result.artifact), "sustained_slowdown": sustained}
    return {name: figure for name, figure in more.items() if figure is not None}


def describe_run(directory: Path, name: str, say: Progress) -> StoredBaseline:
    """A run directory as a baseline.

    Raises:
        BaselineError: it was planned on an estimate.
        RunError: it was not judged yet, or a file of it was changed.
    """
    with ExitStack() as stack:
        job = Job(look_at_run(directory), say, stack)
        if job.estimated:
            raise BaselineError(
                f"{directory}: was planned on an estimated profile; name a run that a board has measured"
            )
        judged, run = job.read(Judged), read_newcomer(job)
        baseline = Baseline(
            name=name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            edgeprune=version("edgeprune"),
            target=run.target,
            recipe=run.recipe,
            verdict=judged.verdict,
            gates=judged.gates,
            device=strip_address(run.device),
            unit=device_unit(run.device),
            figures=run.figures,
            reference=replace(run.reference, samples_ms=()) if run.reference else None,
            more=run.more,
        )
        return StoredBaseline(baseline, directory, job.run.file(run.figures.artifact.path))


def set_baseline(name: str, directory: Path, folder: Path, say: Progress) -> StoredBaseline:
    """Keep what a run shipped as the baseline of this name for its kind of device; replaces an earlier one.

    Raises:
        BaselineError: the name is none, or the run did not pass.
        RunError: the run was not judged, was changed, or the folder cannot be written.
    """
    if not NAME.fullmatch(name):
        raise BaselineError(f"{name!r} is no name of a baseline; expected letters, digits, '.', '_' and '-', as main")
    stored = describe_run(directory, name, say)
    check_baseline(stored.baseline, str(directory))
    figures, kind = stored.baseline.figures, stored.baseline.kind
    place = folder / name / f"{kind}.json"
    copy = place.with_name(f"{kind}-{figures.artifact.sha256[:12]}.{figures.artifact.format}")
    baseline = replace(stored.baseline, figures=replace(figures, artifact=replace(figures.artifact, path=copy.name)))
    before = _find_copies(place)
    write_atomic(copy, stored.artifact.read_bytes())
    write_atomic(place, json.dumps(name_costs(baseline.to_dict()), separators=(",", ":"), allow_nan=False) + "\n")
    for path in before - {copy}:
        path.unlink(missing_ok=True)
    return StoredBaseline(baseline, place, copy)


def _find_copies(place: Path) -> set[Path]:
    """The files of earlier baselines of this kind."""
    return {path for path in place.parent.glob(f"{place.stem}-*") if path.suffix != ".json"}


def remove_baseline(place: Path) -> None:
    """Remove a baseline's file and the copies beside it, and its folder where nothing else is there.

    Raises:
        BaselineError: it is no baseline's file, or cannot be removed.
    """
    if place.suffix != ".json" or not isinstance(document := read_json(place), dict) or "checksum" not in document:
        raise BaselineError(f"{place}: is no baseline's file; `edgeprune baseline list` shows them")
    try:
        for path in (place, *_find_copies(place)):
            path.unlink()
        if not any(place.parent.iterdir()):
            place.parent.rmdir()
    except OSError as exc:
        raise BaselineError(describe_os_error(exc, place)) from exc


def list_baselines(folder: Path) -> tuple[list[StoredBaseline], list[str]]:
    """All baselines in a folder, by name and kind; and what is wrong with those that cannot be read."""
    stored, problems = [], []
    for place in sorted(folder.glob("*/*.json")):
        try:
            stored.append(read_baseline(place))
        except (BaselineError, RunError) as exc:
            problems.append(str(exc))
    return stored, problems


def read_baseline(place: Path) -> StoredBaseline:
    """A baseline's file, and its copy of what shipped, if that is there.

    Raises:
        BaselineError: it is damaged or of a newer version, or the copy is another file than the one that was measured.
        RunError: it cannot be read.
    """
    try:
        document = read_json(place)
    except RunError as exc:
        raise BaselineError(f"{exc}; restore the file, or set the baseline again") from exc
    baseline = parse_baseline(document, str(place))
    artifact = baseline.figures.artifact
    copy = place.with_name(Path(artifact.path).name)
    if copy.exists() and hash_file(copy) != artifact.sha256:
        raise BaselineError(
            f"{copy}: is not the file that baseline {baseline.name!r} measured (its sha256 differs); restore it, or "
            "set the baseline again"
        )
    return StoredBaseline(baseline, place, copy)


def find_baselines(text: str) -> list[Path]:
    """The files of a baseline: of a name in FOLDER, else of a path, each kind of device one; or a run directory.

    Raises:
        BaselineError: there is none.
    """
    folder, path = FOLDER / text, Path(text)
    if NAME.fullmatch(text) and (places := sorted(folder.glob("*.json"))):
        return places
    if path.is_file() or (path / REQUEST).exists():
        return [path]
    if places := sorted(path.glob("*.json")):
        return places
    names = {place.parent.name for place in FOLDER.glob("*/*.json")}
    known = suggest(text, names) if names else f"; {FOLDER} has none: `edgeprune baseline set NAME --run DIR` makes one"
    raise BaselineError(f"no baseline {text!r}: neither a name in {FOLDER}, a run directory, nor a file{known}")


def open_baseline(text: str, facts: DeviceFacts, say: Progress) -> StoredBaseline:
    """The baseline that is meant by a name, a run directory or a file, for a kind of device.

    Raises:
        BaselineError: there is none for this kind, or no run may be held against it.
        RunError: a run directory that was not judged, or was changed.
    """
    places = find_baselines(text)
    if len(places) == 1:
        stored = describe_run(places[0], text, say) if places[0].is_dir() else read_baseline(places[0])
    else:
        own = [place for place in places if place.stem == device_kind(facts)]
        if not own:
            kinds = "; ".join(describe_device(read_baseline(place).baseline.device) for place in places)
            raise BaselineError(
                f"baseline {text!r}: none for this kind of device, {describe_device(facts)}; it has: {kinds}; set one "
                "from a run on this kind"
            )
        stored = read_baseline(own[0])
    check_baseline(stored.baseline, name_place(stored, text))
    return stored


def name_place(stored: StoredBaseline, text: str) -> str:
    """A baseline in the words of a message: as it was named, and where it is."""
    return f"baseline {text!r} ({stored.place})" if str(stored.place) != text else f"baseline {text}"
