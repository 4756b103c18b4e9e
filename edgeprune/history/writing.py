"""Writing into the history where it must not stop anything, and taking in run directories."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.core.progress import Count
from edgeprune.errors import EdgepruneError, RunError
from edgeprune.history.address import find_history
from edgeprune.history.measured import FILES, describe_run, open_record
from edgeprune.history.row import HistoryRow
from edgeprune.history.store import append_rows
from edgeprune.run import Run

Say = Callable[[str], None]


def keep(option: str | None, describe: Callable[[], Sequence[HistoryRow]], say: Say) -> None:
    """Write measurements into the history, if one is kept; what stands in the way is told, and stops nothing."""
    path = find_history(option)
    if path is None:
        return
    try:
        rows = describe()
        new = append_rows(path, rows)
    except (EdgepruneError, OSError, ValueError) as exc:
        say(f"not written to the history: {' '.join(str(exc).split())}")
        return
    say(f"history: {new} of {len(rows)} measurements are new in {path}")


def keep_run(run: Run, report: Mapping[str, Any], option: str | None, say: Say) -> None:
    """Write what a run has measured, baseline and all, as its report is written; `option` names the file."""
    keep(option, lambda: describe_run(run, report), say)


@dataclass(frozen=True)
class TakenIn:
    """A run directory that was looked at: its measurements, how many were new, or why it cannot be read."""

    directory: Path
    rows: int = 0
    new: int = 0
    problem: str = ""


def take_in(path: Path, folders: Sequence[Path], say: Say = lambda _: None) -> Iterator[TakenIn]:
    """Take in every run directory at or below the folders, those of budgets too, each in one transaction.

    Raises:
        HistoryError: the history cannot be written.
        RunError: a folder without a run directory.
    """
    for folder in folders:
        directories = sorted(place.parent for place in folder.rglob(FILES["measure"]))
        if not directories:
            raise RunError(f"{folder}: no run directory that has measured anything is in it ({FILES['measure']})")
        for number, directory in enumerate(directories, 1):
            say(Count(f"run directory {number} of {len(directories)}: {directory}"))
            try:
                rows = describe_run(open_record(directory))
            except EdgepruneError as exc:
                yield TakenIn(directory, problem=str(exc))
                continue
            yield TakenIn(directory, len(rows), append_rows(path, rows))
