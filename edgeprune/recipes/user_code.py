"""Calls into what the user wrote."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from edgeprune.errors import EdgepruneError, RecipeError


def guarded(call: str, source: str, function: Callable[[], Any]) -> Any:
    """Call a user's code; what it raises becomes a RecipeError with the line of the user's file."""
    try:
        return function()
    except EdgepruneError:
        raise
    except (Exception, SystemExit) as exc:
        lines = [frame.lineno for frame in traceback.extract_tb(exc.__traceback__) if frame.filename == source]
        place = f"{source}:{lines[-1]}" if lines else source
        raise RecipeError(f"{place}: {call} raised {describe_error(exc)}") from exc


def describe_error(exc: BaseException) -> str:
    """Its kind and what it says, in one line; of an error in a DataLoader's worker that of the worker."""
    lines = str(exc).strip().splitlines() or ["no message"]
    if len(lines) > 1 and lines[0].startswith("Caught "):  # torch puts the worker's traceback behind this line
        return lines[-1].strip()
    return f"{type(exc).__name__}: {lines[0]}"
