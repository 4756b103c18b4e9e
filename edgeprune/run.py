"""The run directory: one attempt at a deployment, every stage's result on disk before the next begins.

    DIR/request.json        what was asked, so that `--run DIR` alone resumes
    DIR/sources.json        the sha256 of the recipe, target and gates that each stage went by
    DIR/stages/NAME.json    the result of a finished stage
    DIR/record/NAME.json    the sha256 of that result and of each file that the stage has made and others rest on
    DIR/...                 the files that stages wrote (models, artifacts, plans, tables)

A file is written under another name, flushed and renamed, so that a kill never leaves half of one. What a stage rests
on is held against its record before it is used; the record is written before the result, which makes a stage finished.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.core.cost import name_costs, read_costs
from edgeprune.disk import describe_os_error
from edgeprune.errors import RunError

CHANGEABLE = ("accelerator", "allow_busy", "fresh", "history")
"""What of a request may be another one when a run is resumed: it changes no result, only whether to wait for one,
whether one of an earlier run will do, or where what was measured is written down too."""
REQUEST, SWEEP = "request.json", "sweep.json"
"""What a run directory, and that of a sweep, is known by."""
SOURCES = "sources.json"
ANEW = "begin a new run"
TAKE_IN = "`edgeprune history take-in {directory}` keeps its figures"
BEGINNING = "request"
"""In place of a stage in the record: the beginning of the run, when its request was written."""


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file whole or not at all; where a link leads, and into a pipe or device as it is.

    Raises:
        RunError: the disk is full or the place cannot be written.
    """
    content = data.encode() if isinstance(data, str) else data
    place = path.resolve() if path.is_symlink() else path
    partial = place.with_name(f".{place.name}.partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists() and not place.is_file():
            with place.open("wb") as stream:
                stream.write(content)
            return
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(place)
    except OSError as exc:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {describe_os_error(exc, path)}") from exc


def write_json(path: Path, document: Any) -> None:
    """Write JSON, whole or not at all."""
    write_atomic(path, _render(document))


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        RunError: missing, unreadable or not JSON.
    """
    return _parse(path, _read(path))


def hash_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file.

    Raises:
        RunError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise RunError(f"{path}: cannot be read: {exc.strerror}") from exc


@dataclass(frozen=True)
class Run:
    """A run directory; open and locked against a second process, or looked at only (:func:`look_at_run`)."""

    directory: Path
    request: dict[str, Any]
    _products: list[str] = field(default_factory=list, compare=False, repr=False)
    """Files of the stage under way."""
    _proven: set[str] = field(default_factory=set, compare=False, repr=False)
    """Files that were held against the record by this process."""
    _records: dict[str, dict[str, str]] = field(default_factory=dict, compare=False, repr=False)

    def begin(self) -> None:
        """Write the request down, so that the directory alone resumes the run.

        Raises:
            RunError: it cannot be written.
        """
        if self.request != read_request(self.directory):
            text = _render(self.request)
            _remove(self._place(BEGINNING))
            write_atomic(self.directory / REQUEST, text)
            write_json(self._place(BEGINNING), {REQUEST: hashlib.sha256(text.encode()).hexdigest()})

    def path(self, name: str) -> Path:
        """A file of this run that nothing rests on; its folder exists.

        Raises:
            RunError: the folder cannot be made.
        """
        path = self.directory / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise RunError(describe_os_error(exc, path.parent)) from exc
        return path

    def scope(self, name: str) -> Run:
        """A folder within this run in which stages run on their own, such as "rounds/2"; under the same lock."""
        return Run(self.directory / name, self.request)

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the files that the stage under way has made so far."""
        return tuple(dict.fromkeys(self._products))

    def product(self, name: str) -> Path:
        """Where the stage under way writes a file that others rest on; its hash is recorded when the stage ends."""
        self._products.append(name)
        return self.path(name)

    def file(self, name: str) -> Path:
        """A file that a stage has made, proven to be what it was then.

        Raises:
            RunError: it is gone, was changed, was never made or lies elsewhere; says which stage to run again.
        """
        path = self.directory / name
        if not path.resolve().is_relative_to(self.directory.resolve()):
            raise RunError(f"{self.directory}: {name!r} is named as a file of it, and lies outside of the run")
        if name not in self._products and name not in self._proven:
            self._prove(name, self._find_maker(name))
        return path

    def check(self, stage: str) -> None:
        """Require the result of a finished stage, and all that it has made, to be what they were then.

        Raises:
            RunError: one is gone or was changed; says which stage to run again.
        """
        for name in self._record(stage):
            if name not in self._proven:
                self._prove(name, stage)

    def files_of(self, stage: str) -> tuple[str, ...]:
        """Names of the files that a finished stage has made, its result among them.

        Raises:
            RunError: the record of it is gone or damaged.
        """
        return tuple(self._record(stage))

    def finished(self, stage: str) -> bool:
        """Whether a stage's result is saved."""
        return self._result(stage).exists()

    def result(self, stage: str) -> Any:
        """The saved result of a finished stage.

        Raises:
            RunError: the stage has not finished, or its result was changed.
        """
        if not self.finished(stage):
            raise RunError(
                f"{self.directory}: stage {stage!r} has not run yet; `edgeprune deploy --run {self.directory}` runs it"
            )
        return read_json(self.file(f"stages/{stage}.json"))

    def stage(self, name: str, compute: Callable[[], Any]) -> Any:
        """The result of a stage: read if it has finished before, else computed and saved. JSON values only.

        Raises:
            RunError: something on this machine cannot be read or written.
        """
        if not self.finished(name):
            self._products.clear()
            try:
                result = _render(compute())
            except BrokenPipeError:
                raise  # nobody reads what is said any more
            except OSError as exc:
                raise RunError(
                    f"{exc.filename or self.directory}: {exc.strerror or exc}, in stage {name!r}; then "
                    f"`edgeprune deploy --run {self.directory}` goes on"
                ) from exc
            self._save(name, result)
        return self.result(name)

    def forget(self, *stages: str) -> None:
        """Drop the results of stages and the files that they have made, so that they run again."""
        for stage in stages:
            hashes: dict[str, str] = {}
            with suppress(RunError):  # of a damaged record nothing is known, and all is made anew
                hashes = self._record(stage)
            for name in (f"stages/{stage}.json", *hashes, f"record/{stage}.json"):
                _remove(self.directory / name)
                self._proven.discard(name)
            self._records.pop(stage, None)

    def _save(self, stage: str, result: str) -> None:
        hashes = {name: hash_file(self.directory / name) for name in dict.fromkeys(self._products)}
        own = f"stages/{stage}.json"
        self._records[stage] = {own: hashlib.sha256(result.encode()).hexdigest(), **hashes}
        write_json(self._place(stage), self._records[stage])
        write_atomic(self._result(stage), result)
        self._proven.difference_update(self._records[stage])
        self._products.clear()

    def _record(self, stage: str) -> dict[str, str]:
        if stage not in self._records:
            place = self._place(stage)
            if not place.exists():
                _refuse_unrecorded(self.directory)
                raise RunError(f"{place}: is gone; {self._remedy(stage)}")
            self._records[stage] = self._read_record(place, stage)
        return self._records[stage]

    def _read_record(self, place: Path, stage: str) -> dict[str, str]:
        try:
            record = read_json(place)
            damage = "" if isinstance(record, dict) else f"{place}: expected files and their hashes"
        except RunError as exc:
            damage = str(exc)
        if damage:
            raise RunError(f"{damage}; {self._remedy(stage)}")
        return {str(name): str(digest) for name, digest in record.items()}

    def _find_maker(self, name: str) -> str:
        """The stage that has recorded a file."""
        if name.startswith("stages/"):
            return Path(name).stem
        for place in sorted((self.directory / "record").glob("*.json")):
            if name in self._record(place.stem):
                return place.stem
        raise RunError(f"{self.directory / name}: no such file yet; `edgeprune deploy --run {self.directory}` makes it")

    def _prove(self, name: str, stage: str) -> None:
        path, recorded = self.directory / name, self._record(stage).get(name)
        if not path.exists():
            raise RunError(f"{path}: is gone; {self._remedy(stage)}")
        if (now := hash_file(path)) != recorded:
            raise RunError(
                f"{path}: is not what it was when it was made (sha256 {now[:12]}..., recorded "
                f"{str(recorded)[:12]}...); put that back, or {self._remedy(stage)}"
            )
        self._proven.add(name)

    def _remedy(self, stage: str) -> str:
        if stage == BEGINNING:
            return ANEW
        return f"make it anew: `edgeprune deploy --run {self.directory} --from {stage}`"

    def _result(self, stage: str) -> Path:
        return self.directory / "stages" / f"{stage}.json"

    def _place(self, stage: str) -> Path:
        """Where the record of a stage is."""
        return self.directory / "record" / f"{stage}.json"


@contextmanager
def open_run(directory: Path, request: dict[str, Any]) -> Iterator[Run]:
    """Open a run directory, new or begun; what is None in `request` is taken from the run's own request.

    Nothing binds the directory to the request before :meth:`Run.begin`.

    Raises:
        RunError: another process is at work in it, or it was made for a different request.
    """
    with hold_directory(directory, REQUEST):
        yield Run(directory, settle_request(directory, request))


@contextmanager
def hold_directory(directory: Path, beginning: str) -> Iterator[None]:
    """A folder, made where there is none, that no other process works in meanwhile; one in which no file `beginning`
    was written goes again.

    Raises:
        RunError: another process is at work in it, or it cannot be made or written.
    """
    _check_place(directory)
    missing = [place for place in (directory, *directory.absolute().parents) if not _exists(place)]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("a")
    except OSError as exc:
        raise RunError(f"cannot be used as a run directory: {describe_os_error(exc, directory)}") from exc
    with lock:
        _take(lock.fileno(), directory)
        try:
            yield
        finally:
            if missing and not (directory / beginning).exists():
                _leave_no_trace(directory, missing)


def _leave_no_trace(directory: Path, folders: Sequence[Path]) -> None:
    """Remove the folders of a run that was refused before it began, as far as nothing else is in them."""
    with suppress(OSError):
        (directory / ".lock").unlink()
        for folder in folders:
            folder.rmdir()


@contextmanager
def preview_run(directory: Path, request: dict[str, Any]) -> Iterator[Run]:
    """The run that :func:`open_run` would open, refused where that refuses; nothing is written.

    Raises:
        RunError: another process is at work in it, it was made for a different request, or cannot be made.
    """
    _check_place(directory)
    lock = directory / ".lock"
    if not lock.exists():
        yield Run(directory, settle_request(directory, request))
        return
    with lock.open("a") as stream:
        _take(stream.fileno(), directory)
        yield Run(directory, settle_request(directory, request))


def look_at_run(directory: Path) -> Run:
    """A run directory to read from, whoever is at work in it.

    Raises:
        RunError: it is none.
    """
    if (directory / SWEEP).exists():
        raise RunError(f"{directory}: is a sweep; name one of its runs, as {directory / 'speedup-2'}")
    if not (directory / REQUEST).exists():
        raise RunError(f"{directory / REQUEST}: no such file; is this a run directory?")
    return Run(directory, read_request(directory))


def read_request(directory: Path) -> dict[str, Any]:
    """What a run was asked for; nothing where it is a new one.

    Raises:
        RunError: it cannot be read, or was changed since it was written.
    """
    path = directory / REQUEST
    if not _exists(path):
        return {}
    run = Run(directory, {})
    if (directory / "record" / REQUEST).exists():
        run.file(REQUEST)
    elif any((directory / "stages").glob("*.json")):
        _refuse_unrecorded(directory)
        raise RunError(
            f"{directory / 'record' / REQUEST}: is gone, or never was, as an older edgeprune wrote none, so that "
            f"nothing tells what was asked for; {ANEW}; {TAKE_IN.format(directory=directory)}"
        )
    request = read_json(path)
    if not isinstance(request, dict):
        raise RunError(f"{path}: expected what a run was asked for, by name; found {type(request).__name__}")
    if not isinstance(request.get("target"), str):
        raise RunError(f"{path}: target: expected the name of a target, found {request.get('target')!r}; {ANEW}")
    return request


def _refuse_unrecorded(directory: Path) -> None:
    """Refuse a run without any record, which the first versions did not keep.

    Raises:
        RunError: it is one.
    """
    if not any((directory / "record").glob("*.json")):
        raise RunError(
            f"{directory}: was made by an older edgeprune, which kept no record of its files, and cannot be gone on "
            f"with; {ANEW} with the same target and recipe; {TAKE_IN.format(directory=directory)}"
        )


def settle_request(directory: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The request of a run: what is asked now, and what it was begun with.

    Raises:
        RunError: it was begun with something else.
    """
    own = read_request(directory)
    for key, value in request.items():
        if value is not None and key in own and own[key] != value and key not in CHANGEABLE:
            raise RunError(
                f"{directory}: was made with {key} = {own[key]!r}, not {value!r}; "
                f"name another --run, or leave {key} out"
            )
    return {**own, **{key: own.get(key) if value is None else value for key, value in request.items()}}


def _check_place(directory: Path) -> None:
    """Require a folder that can be written, or a place where one can be made."""
    existing = next(place for place in (directory, *directory.absolute().parents) if _exists(place))
    if not existing.is_dir():
        raise RunError(f"{directory}: cannot be used as a run directory: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise RunError(f"{directory}: cannot be used as a run directory: {existing} cannot be written")


def _take(lock: int, directory: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise RunError(f"{directory}: another edgeprune is at work here; wait for it or name another --run") from exc
    except OSError as exc:
        raise RunError(f"{directory}: cannot be locked: {exc.strerror}; name a --run on another file system") from exc


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise RunError(f"{path}: cannot be removed: {exc.strerror}") from exc


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except NotADirectoryError:
        return False
    except OSError as exc:
        raise RunError(f"{path}: cannot be looked at: {exc.strerror}") from exc


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError as exc:
        raise RunError(f"{path}: no such file; is this a run directory?") from exc
    except (OSError, ValueError) as exc:
        raise RunError(f"{path}: cannot be read: {exc}") from exc


def _parse(path: Path, text: str) -> Any:
    try:
        return read_costs(json.loads(text))
    except (ValueError, RecursionError) as exc:
        raise RunError(f"{path}: cannot be read: {exc}") from exc


def _render(document: Any) -> str:
    return json.dumps(name_costs(document), indent=1, allow_nan=False) + "\n"
