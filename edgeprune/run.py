"""The run directory: one attempt at a deployment, every stage's result on disk before the next begins.

    DIR/request.json        what was asked, so that `--run DIR` alone resumes
    DIR/stages/NAME.json    the result of a finished stage
    DIR/...                 the files that stages wrote (models, artifacts, plans, tables)

A file is written under another name, flushed and renamed, so that a kill never leaves half of one.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.disk import describe_os_error
from edgeprune.errors import RunError


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        RunError: the disk is full or the place cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as exc:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {describe_os_error(exc, path)}") from exc


def write_json(path: Path, document: Any) -> None:
    """Write JSON, whole or not at all."""
    write_atomic(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        RunError: missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as exc:
        raise RunError(f"{path}: no such file; is this a run directory?") from exc
    except (OSError, ValueError) as exc:
        raise RunError(f"{path}: cannot be read: {exc}") from exc


@dataclass(frozen=True)
class Run:
    """A run directory, open and locked against a second process."""

    directory: Path
    request: dict[str, Any]

    def path(self, name: str) -> Path:
        """A file of this run; its folder exists.

        Raises:
            RunError: its folder cannot be made.
        """
        path = self.directory / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise RunError(describe_os_error(exc, path.parent)) from exc
        return path

    def finished(self, stage: str) -> bool:
        """Whether a stage's result is saved."""
        return self._result(stage).exists()

    def result(self, stage: str) -> Any:
        """The saved result of a finished stage.

        Raises:
            RunError: the stage has not finished.
        """
        if not self.finished(stage):
            raise RunError(
                f"{self.directory}: stage {stage!r} has not run yet; run `edgeprune deploy --run` with it first"
            )
        return read_json(self._result(stage))

    def stage(self, name: str, compute: Callable[[], Any]) -> Any:
        """The result of a stage: read if it has finished before, else computed and saved. JSON values only."""
        if not self.finished(name):
            write_json(self._result(name), compute())
        return self.result(name)

    def forget(self, *stages: str) -> None:
        """Drop the results of stages, so that they run again."""
        for stage in stages:
            self._result(stage).unlink(missing_ok=True)

    def _result(self, stage: str) -> Path:
        return self.directory / "stages" / f"{stage}.json"


@contextmanager
def open_run(directory: Path, request: dict[str, Any]) -> Iterator[Run]:
    """Open a run directory, new or begun; what is None in `request` is taken from the run's own request.

    Raises:
        RunError: another process is at work in it, or it was made for a different request.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("a")
    except OSError as exc:
        raise RunError(f"cannot be used as a run directory: {describe_os_error(exc, directory)}") from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise RunError(
                f"{directory}: another edgeprune is at work here; wait for it or name another --run"
            ) from exc
        yield Run(directory, _settle_request(directory, request))


def _settle_request(directory: Path, request: dict[str, Any]) -> dict[str, Any]:
    stored = directory / "request.json"
    known: dict[str, Any] = read_json(stored) if stored.exists() else {}
    for key, value in request.items():
        if value is not None and key in known and known[key] != value:
            raise RunError(
                f"{directory}: was made with {key} = {known[key]!r}, not {value!r}; "
                f"name another --run, or leave {key} out"
            )
    settled = {key: known.get(key) if value is None else value for key, value in request.items()}
    if settled != known:
        write_json(stored, settled)
    return settled
