"""Work that an earlier run has done, whichever run it was: found again by the hash of all that it reads.

CACHE/stages/STAGE-KEY/entry.json    what was read, the result, and the sha256 of each file
CACHE/stages/STAGE-KEY/files/...     the files that the stage had made, by their names in the run
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeprune.disk import describe_os_error
from edgeprune.errors import RunError
from edgeprune.run import hash_file, read_json, write_json
from edgeprune.shipped import cache_dir
from edgeprune.stages.job import Job
from edgeprune.stages.results import R, from_document, to_document

ENTRY, FILES = "entry.json", "files"
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
    folder = cache_dir() / "stages" / f"{kind.stage}-{_hash(kind, reads)}"
    is_fresh = job.run.request.get("fresh") or kind.stage in job.anew
    result = None if is_fresh else _recall(job, kind, folder)
    if result is not None:
        return result, True
    result = compute()
    if is_worth(result):
        _keep(job, result, reads, folder)
    return result, False


def _hash(kind: type[R], reads: Mapping[str, Any]) -> str:
    text = json.dumps({"version": kind.version, **reads}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _recall(job: Job, kind: type[R], folder: Path) -> R | None:
    if not (folder / ENTRY).exists():
        return None
    try:
        entry = read_json(folder / ENTRY)
        result = from_document(kind, entry["result"], job.run)
        for name, digest in entry["files"].items():
            if hash_file(folder / FILES / name) != digest:
                raise RunError(f"{folder / FILES / name}: is not what it was when it was made")
        for name in entry["files"]:
            shutil.copyfile(folder / FILES / name, job.run.product(name))
    except (RunError, OSError, KeyError, TypeError, AttributeError) as exc:
        job.detail(f"{folder}: damaged, and left aside: {exc}")
        return None
    return result


def _keep(job: Job, result: R, reads: Mapping[str, Any], folder: Path) -> None:
    """Put a result and the files of its stage into the cache; where that cannot be, say so and go on."""
    names = job.run.products
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for name in names:
            place = partial / FILES / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(job.run.directory / name, place)
        entry = {
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "recipe": job.recipe_name,
            "target": job.target.name,
            "host": job.run.request.get("host"),
            "reads": dict(reads),
            "files": {name: hash_file(partial / FILES / name) for name in names},
            "result": to_document(result),
        }
        write_json(partial / ENTRY, entry)
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    except (OSError, RunError) as exc:
        shutil.rmtree(partial, ignore_errors=True)
        reason = describe_os_error(exc, folder) if isinstance(exc, OSError) else exc
        job.detail(f"not kept for other runs: {reason}")


def list_entries() -> Iterator[Entry]:
    """What the cache holds that may be cleared, stages before tables."""
    stages, tables = (cache_dir() / name for name in FOLDERS)
    for folder in sorted(stages.glob("*-*")):
        entry: dict[str, Any] = {}
        with suppress(RunError):
            entry = read_json(folder / ENTRY)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        words = " ".join(str(entry[name]) for name in ("recipe", "target", "host") if entry.get(name))
        yield Entry(folder, size, str(entry.get("made_at", "")), words or "not readable")
    for path in sorted(tables.glob("*.json")):
        status = path.stat()
        made_at = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds")
        yield Entry(path, status.st_size, made_at, "a latency table of layers")


def clear_cache() -> int:
    """Remove all that :func:`list_entries` lists; gives the number of bytes that this frees.

    Raises:
        RunError: something cannot be removed.
    """
    freed = sum(entry.bytes for entry in list_entries())
    for name in FOLDERS:
        try:
            shutil.rmtree(cache_dir() / name)
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise RunError(describe_os_error(exc, cache_dir() / name)) from exc
    return freed
