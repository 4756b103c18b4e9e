"""What a power meter is, to those who find one, read one and write down what it said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from edgeprune_agent.board import read_numbers

POLL_S = 0.02
SAMPLES = 30
"""A window is made long enough for so many readings; fewer than 20 give no figure."""


class Meter(NamedTuple):
    """A source of readings: power in W, or energy in J since it was first read.

    `kind` says what sort of meter it is, `unit` is "W" or "J". A meter is `fresh` where each reading is a new one;
    else only readings that changed count. `step` is its resolution in the unit, 0 where that is unknown.
    """

    name: str
    kind: str
    unit: str
    read: Callable[[], float]
    poll_s: float = POLL_S
    fresh: bool = True
    step: float = 0.0
    least_s: float = 0.0

    @property
    def window_s(self) -> float:
        """How long a window must be for enough readings."""
        return max(self.least_s, SAMPLES * self.poll_s)

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: getattr(self, name) for name in ("name", "kind", "unit", "poll_s", "fresh", "step", "window_s")}


def read_number(root: str, path: str) -> int:
    """One whole number.

    Raises:
        OSError: it cannot be read, or not any more.
    """
    numbers = read_numbers(root, path)
    if not numbers:
        raise OSError(f"{path} cannot be read")
    return numbers[0]
