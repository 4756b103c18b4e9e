"""The front of runs that no other run beats in both latency and quality: one for each setting; and what to choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.core.choosing.points import Point, Setting, goodness, sort_points
from edgeprune.core.releasing.gate import PASS


@dataclass(frozen=True)
class Front:
    """The points of one setting, by latency, and which of them no other beats (Pareto 1906).

    `dominators` names, for each point that is beaten, the fastest of those on the front that are at least as fast and
    as good, and better in one. Points that may not be on a front are in `points` alone.
    """

    setting: Setting
    points: tuple[Point, ...]
    dominators: dict[str, str]

    @property
    def best(self) -> tuple[Point, ...]:
        """Those on the front, by latency."""
        return tuple(point for point in self.points if not point.exclusion and point.name not in self.dominators)


def find_fronts(points: Sequence[Point]) -> tuple[Front, ...]:
    """A front for each setting that points were measured in, in the order of their fastest point."""
    by_setting: dict[Setting, list[Point]] = {}
    for point in sort_points(points):
        if point.setting is not None:
            by_setting.setdefault(point.setting, []).append(point)
    return tuple(
        Front(setting, tuple(own), _find_dominators([point for point in own if not point.exclusion]))
        for setting, own in by_setting.items()
    )


def _find_dominators(points: Sequence[Point]) -> dict[str, str]:
    beaten = {point.name: [other for other in points if _dominates(other, point)] for point in points}
    return {
        name: sort_points([other for other in others if not beaten[other.name]])[0].name
        for name, others in beaten.items()
        if others
    }


def _dominates(first: Point, second: Point) -> bool:
    """Whether the first is at least as fast and as good, and better in one, by the figures themselves."""
    (first_ms, first_good), (second_ms, second_good) = _place(first), _place(second)
    return first_ms <= second_ms and first_good >= second_good and (first_ms, first_good) != (second_ms, second_good)


def _place(point: Point) -> tuple[float, float]:
    """Latency in ms and goodness of a point that may be on a front."""
    if point.latency is None or point.quality is None or point.setting is None:
        raise ValueError(f"{point.name}: {point.exclusion}")
    return point.latency.value, goodness(point.quality.value, point.setting.metric)


def find_equal(point: Point, points: Sequence[Point], figure: str) -> tuple[str, ...]:
    """Names of the points of the same setting whose interval of a figure, "latency" or "quality", overlaps this one's:
    they are not told apart by it. A point that is not valid is equal to none.
    """
    own = getattr(point, figure)
    return tuple(
        other.name
        for other in points
        if other.name != point.name
        and not (point.exclusion or other.exclusion)
        and other.setting == point.setting
        and own.overlaps(getattr(other, figure))
    )


@dataclass(frozen=True)
class Choice:
    """The run to choose, and why, in a sentence; `name` is None where none can be named."""

    name: str | None
    reason: str


def choose_run(fronts: Sequence[Front]) -> Choice:
    """The fastest run that passed its gates and keeps its quality; of those not told from it by latency, the best.

    Runs of several settings are not held against each other.
    """
    runs = [point for front in fronts for point in front.points if point.verdict == PASS and not point.exclusion]
    accurate = [point for point in runs if point.accurate is not False]
    if not accurate:
        return Choice(None, "no run passed its gates with valid figures and keeps its quality")
    if len({point.setting for point in accurate}) > 1:
        return Choice(None, "the runs that passed were measured in several settings: choose the setting first")
    fastest, equal = accurate[0], find_equal(accurate[0], accurate, "latency")
    near = [fastest, *(point for point in accurate if point.name in equal)]
    chosen = max(near, key=lambda point: _place(point)[1])
    reason = f"the fastest run that passed its gates{'' if chosen.accurate is None else ' and keeps its quality'}"
    if chosen.name != fastest.name:
        reason = f"as fast as {fastest.name}, the fastest that passed, as far as the intervals tell, and better"
    return Choice(chosen.name, reason)
