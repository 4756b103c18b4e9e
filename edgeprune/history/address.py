"""Where the history is: an option, the environment, or the user's data directory."""

from __future__ import annotations

import os
from pathlib import Path

from edgeprune.errors import UsageError

VARIABLE = "EDGEPRUNE_HISTORY"


def find_history(option: str | None = None) -> Path | None:
    """The file: the option's, else `$EDGEPRUNE_HISTORY`, else `$XDG_DATA_HOME/edgeprune/history.sqlite` (or below
    `~/.local/share`). None where the first of them that is set is empty: no history is kept."""
    address = os.environ.get(VARIABLE) if option is None else option
    if address is None:
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return Path(data).absolute() / "edgeprune" / "history.sqlite"
    return Path(address).expanduser().absolute() if address else None


def require_history(option: str | None = None) -> Path:
    """The file, for a command that is about it.

    Raises:
        UsageError: the history is switched off.
    """
    path = find_history(option)
    if path is None:
        raise UsageError(f"the history is switched off ({VARIABLE} is empty); name its file with --history FILE")
    return path
