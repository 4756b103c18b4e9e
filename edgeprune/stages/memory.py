"""Work that an earlier run has done, whichever run it was: found again by the hash of all that it reads.

CACHE/stages/STAGE-KEY/entry.json    what was read, the result, and the sha256 of each file
CACHE/stages/STAGE-KEY/files/...     the files that the stage had made, by their names in the run
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeprune.disk import describe_os_error
from edgeprune.errors import RunError
from edgeprune.run import Run, hash_file, read_json, write_json
from edgeprune.shipped import cache_dir
from edgeprune.stages.job import Job
from edgeprune.stages.results import R, from_document, to_document

ENTRY, FILES, PARTIAL = "entry.json", "files", ".partial-"
FOLDERS = ("stages", "profiles")
"""What of the cache may be cleared: results of stages, and latency tables of layers."""


@dataclass(frozen=True)
class Entry:
    """Something in the cache: what it is, its size, and when it was made (UTC)."""

    path: Path
    bytes: int
    made_at: str
    description: str


def remember(
    job: Job, kind: type[R], reads: Mapping[str, Any], compute: Callable[[], R], is_worth: Callable[[R], bool]
) -> tuple[R, bool]:
    """The result of equal work in an earlier run, its files put into this one; else computed now, and kept if it
    `is_worth` that. Tells whether it was found. `reads` is JSON-ready: all that the result hangs on.

    Nothing is looked for where the run was asked for fresh results, or this stage to be made anew.
    """
    reads = json.loads(json.dumps(reads))  # as an entry gives it back
    folder = cache_dir() / "stages" / f"{kind.stage}-{_hash({'version': kind.version, **reads})[:24]}"
    is_fresh = job.run.request.get("fresh") or kind.stage in job.anew
    result = None if is_fresh else _recall(job, kind, reads, folder)
    if result is not None:
        return result, True
    result = compute()
    if is_worth(result):
        _keep(job, result, reads, folder)
    return result, False


def _hash(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _recall(job: Job, kind: type[R], reads: Mapping[str, Any], folder: Path) -> R | None:
    """The result of an entry, its files copied into the run; None where there is none, or it is not what it was."""
    if not folder.is_dir():
        return None
    try:
        entry = read_json(folder / ENTRY)
        if entry["sha256"] != _hash_entry(entry) or entry["reads"] != reads:
            raise RunError(f"{ENTRY} is not what it was when it was made")
        result = from_document(kind, entry["result"], job.run)
        for name, digest in entry["files"].items():
            _copy_into(job.run, name, folder / FILES / name, digest)
        for name in entry["files"]:
            job.run.product(name)
        return result
    except (RunError, OSError, LookupError, TypeError, ValueError, AttributeError) as exc:
        reason = exc if isinstance(exc, RunError) else "it cannot be read"
        job.detail(f"{folder}: damaged, and left aside: {reason}")
        return None


def _copy_into(run: Run, name: str, source: Path, digest: str) -> None:
    """Copy a file into the run, and require the copy to be what was kept."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise RunError(f"{name!r} lies outside of a run")
    place = run.path(name)
    shutil.copyfile(source, place)
    if hash_file(place) != digest:
        raise RunError(f"{FILES}/{name} is not what it was when it was made")


def _hash_entry(entry: Mapping[str, Any]) -> str:
    """Of all that an entry says, but for this hash."""
    return _hash({name: value for name, value in entry.items() if name != "sha256"})


def _keep(job: Job, result: R, reads: Mapping[str, Any], folder: Path) -> None:
    """Put a result and the files of its stage into the cache; where that cannot be, say so and go on."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder.parent) as partial:
            _write_entry(job, result, reads, Path(partial) / folder.name)
            _remove(folder)
            (Path(partial) / folder.name).replace(folder)
    except (OSError, RunError) as exc:
        reason = describe_os_error(exc, folder) if isinstance(exc, OSError) else exc
        job.detail(f"not kept for other runs: {reason}")


def _write_entry(job: Job, result: R, reads: Mapping[str, Any], folder: Path) -> None:
    names = job.run.products
    for name in names:
        place = folder / FILES / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(job.run.directory / name, place)
    entry = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": job.recipe_name,
        "target": job.target.name,
        "host": job.run.request.get("host"),
        "reads": dict(reads),
        "files": {name: hash_file(folder / FILES / name) for name in names},
        "result": to_document(result),
    }
    write_json(folder / ENTRY, entry | {"sha256": _hash_entry(entry)})


def list_entries() -> Iterator[Entry]:
    """What the cache holds that may be cleared, stages before tables."""
    stages, tables = (cache_dir() / name for name in FOLDERS)
    for path in sorted(stages.glob("*")) + sorted(tables.glob("*.json")):
        with suppress(OSError):  # gone meanwhile
            yield _describe(path)


def _describe(path: Path) -> Entry:
    status = path.lstat()
    made_at = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds")
    if path.is_symlink() or not path.is_dir():
        return Entry(path, status.st_size, made_at, "a latency table of layers" if path.suffix else "not readable")
    size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
    entry: Any = None
    with suppress(RunError):
        entry = read_json(path / ENTRY) if (path / ENTRY).is_file() else None
    if not isinstance(entry, dict):
        return Entry(path, size, made_at, "not readable")
    words = " ".join(str(entry[name]) for name in ("recipe", "target", "host") if entry.get(name))
    return Entry(path, size, str(entry.get("made_at", made_at)), words)


def clear_cache() -> int:
    """Remove what :func:`list_entries` lists and nothing else; gives the number of bytes that this frees.

    Raises:
        RunError: something cannot be removed.
    """
    entries = list(list_entries())
    for entry in entries:
        try:
            _remove(entry.path)
        except OSError as exc:
            raise RunError(describe_os_error(exc, entry.path)) from exc
    return sum(entry.bytes for entry in entries)


def _remove(path: Path) -> None:
    """Remove an entry, whatever it is; of a link the link. Others may be at work on it: that is tried again."""
    for last in (False, False, True):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            return
        except OSError:
            if last and path.exists():
                raise
