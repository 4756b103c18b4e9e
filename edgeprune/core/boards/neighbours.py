"""Other work on a board, in cores: how much of it makes what is measured there not a run's own."""

from __future__ import annotations

OTHERS_LIMIT, OTHERS_SHARE = 0.2, 0.03
"""A board is not a run's own where others take more than so many cores, or, of a large one, this share of all."""


def describe_taken(subject: str, taken_cores: float | None, cores: int) -> str:
    """That others took so much of a board that it was not a run's own; empty where they did not, or nothing tells."""
    if taken_cores is None or taken_cores <= max(OTHERS_LIMIT, OTHERS_SHARE * cores):
        return ""
    return f"the board was not this run's own: {subject} {taken_cores:.2f} of {cores or '?'} cores"
