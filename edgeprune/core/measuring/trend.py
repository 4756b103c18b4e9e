"""A figure over time: the same file of the same recipe on the same device, measured again and again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np

from edgeprune.core.measuring.change_points import find_change_points


@dataclass(frozen=True)
class Point:
    """A figure with its interval, if it has one, at a time in UTC; of an invalid run `valid` is False."""

    at: datetime
    value: float
    low: float | None = None
    high: float | None = None
    valid: bool = True


@dataclass(frozen=True)
class Change:
    """A change of level: the first measurement after it, and the median figures before and after, in their unit."""

    at: datetime
    before: float
    after: float

    def describe(self) -> str:
        """For people: how far the level went, by the level before."""
        if not self.before:
            return f"{self.before:.4g} to {self.after:.4g}"
        return f"{self.before:.4g} to {self.after:.4g} ({self.after / self.before - 1:+.1%})"


@dataclass(frozen=True)
class Trend:
    """The figures of one series in order of time; `title` says what they are of."""

    title: str
    points: tuple[Point, ...]

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """Where the level changed, by the valid figures alone."""
        valid = [point for point in self.points if point.valid]
        values = [point.value for point in valid]
        cuts = find_change_points(values)
        bounds = (0, *cuts, len(values))
        return tuple(
            Change(valid[cut].at, float(np.median(values[begin:cut])), float(np.median(values[cut:end])))
            for begin, cut, end in zip(bounds, cuts, bounds[2:], strict=False)
        )
