"""Run directories as the line leaves them, every file in its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.run import Run, open_run
from edgeprune.stages.results import Result, to_document


def record_run(
    folder: Path, request: Mapping[str, Any], stages: Mapping[str, Any], files: Mapping[str, Sequence[str]]
) -> Path:
    """Let stages have finished with these results; `files` are those, there already, that each of them made."""
    with open_run(folder, dict(request)) as run:
        run.begin()
        for name, result in stages.items():
            record_stage(run, name, result, files.get(name, ()))
    return folder


def record_stage(run: Run, name: str, result: Any, files: Sequence[str] = ()) -> None:
    """Let a stage have finished, anew where it has before; `result` is a Result, or a document."""

    def compute() -> Any:
        for path in files:
            run.product(path)
        return to_document(result) if isinstance(result, Result) else result

    content = {path: (run.directory / path).read_bytes() for path in files}
    run.forget(name)
    for path, data in content.items():
        run.path(path).write_bytes(data)
    run.stage(name, compute)
