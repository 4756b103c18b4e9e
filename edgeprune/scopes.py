"""A run with another budget: a scope of its own within the run directory, which measures and scores nothing anew."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from edgeprune.disk import describe_os_error
from edgeprune.errors import RunError
from edgeprune.run import SOURCES, look_at_run, read_request, settle_request

BUDGET = ("latency_ms", "instructions", "speedup", "confidence", "sram_bytes", "flash_bytes")
"""What of a request is its budget."""
COSTS = ("latency_ms", "instructions", "speedup")
"""Of which one is given."""
SHARED = ("trace", "profile", "score")
"""Stages whose results no budget changes, in order."""
FOLDER = "budgets"


def find_scope(directory: Path, request: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The directory of a run, or of the scope within it that has the budget that is asked for; and its whole request.

    A run that was asked for this budget, or for none in particular, is its own. Nothing is written.

    Raises:
        RunError: the run's request cannot be read, or it was begun with something else beside its budget.
    """
    own = read_request(directory)
    changes = {name: request[name] for name in BUDGET if request.get(name) is not None}
    if not own or all(own.get(name) == value for name, value in changes.items()):
        return directory, dict(request)
    own_budget = _budget_of(own)
    if changes.keys() & set(COSTS):
        own_budget |= dict.fromkeys(COSTS)
    budget = own_budget | changes
    base = directory.parent.parent if directory.parent.name == FOLDER else directory
    name = "-".join(_name_limit(name, value) for name, value in budget.items() if value is not None)
    is_base = base != directory and _budget_of(read_request(base)) == budget
    base_request = settle_request(directory, {**request, **dict.fromkeys(BUDGET)})
    return base if is_base else base / FOLDER / name, base_request | budget


def _name_limit(name: str, value: float) -> str:
    """`latency-1.5`, `sram-49152`."""
    text = str(value) if isinstance(value, int) else f"{value:g}"
    return f"{name.removesuffix('_ms').removesuffix('_bytes')}-{text}"


def _budget_of(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: request.get(name) for name in BUDGET}


def begin_scope(scope: Path, directory: Path) -> tuple[str, ...]:
    """Take over what the first stages of a run have made, where the scope is a new one; gives their names.

    Raises:
        RunError: something of it was changed or is gone, or cannot be copied.
    """
    if (scope / "request.json").exists():
        return ()
    source = look_at_run(directory)
    stages = tuple(takewhile(source.finished, SHARED))
    names = [SOURCES] if stages and (directory / SOURCES).exists() else []
    for stage in stages:
        source.check(stage)
        names += [*source.files_of(stage), f"record/{stage}.json"]
    for name in names:
        place = scope / name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(directory / name, place)
        except OSError as exc:
            raise RunError(describe_os_error(exc, place)) from exc
    return stages
