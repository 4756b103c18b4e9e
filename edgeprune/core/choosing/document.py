"""The comparison of runs as one document, which the table, the page and `--json` show; docs/sweep.md describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgeprune.core.choosing.fronts import Choice, Front, choose_run, find_equal, find_fronts
from edgeprune.core.choosing.points import UNPRUNED, Interval, Point, sort_points
from edgeprune.core.measuring.tails import note_tails

COMPARISON_VERSION = 1
NOT_IN_TURNS = (
    "these runs were measured one after the other: what two of them differ by holds the board's change between them; "
    "`edgeprune compare A B --target` lets two take turns"
)
FIGURES = ("file_bytes", "peak_memory_mib", "energy_mj", "power", "parameters", "macs", "init_ms", "first_ms")
"""What of the shipped file's figures a row holds as the report has it."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side. `without_run` says of budgets that have none why, by their names.

    `interleaved`: all were measured in turns, in one session.
    """

    points: tuple[Point, ...]
    title: str
    interleaved: bool = False
    without_run: Mapping[str, str] = field(default_factory=dict)
    conditions: str = ""

    @property
    def fronts(self) -> tuple[Front, ...]:
        """One for each setting."""
        return find_fronts(self.points)

    @property
    def choice(self) -> Choice:
        """The run to choose."""
        return choose_run(self.fronts)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        fronts = self.fronts
        return {
            "version": COMPARISON_VERSION,
            "title": self.title,
            "interleaved": self.interleaved,
            "conditions": self.conditions,
            "choice": asdict(self.choice),
            "rows": [_describe_row(point, fronts) for point in sort_points(self.points)],
            "fronts": [_describe_front(front) for front in fronts],
            "without_run": dict(self.without_run),
            "notes": _write_notes(self, fronts),
        }


def _describe_row(point: Point, fronts: Sequence[Front]) -> dict[str, Any]:
    front = next((front for front in fronts if front.setting == point.setting), None)
    points = front.points if front else ()
    result = point.result
    return {
        "name": point.name,
        "directory": point.directory,
        "recipe": point.recipe,
        "verdict": point.verdict,
        "origin": point.origin,
        "front": fronts.index(front) if front else None,
        "on_front": bool(front and point in front.best),
        "exclusion": point.exclusion or None,
        "beaten_by": front.dominators.get(point.name) if front else None,
        "equal_latency": list(find_equal(point, points, "latency")) if not point.exclusion else [],
        "equal_quality": list(find_equal(point, points, "quality")) if not point.exclusion else [],
        **_spread("latency_p50", point.latency, "_ms"),
        "latency_p95_ms": (result.get("latency") or {}).get("p95_ms"),
        **_spread("speedup", point.speedup),
        **_spread("quality", point.quality),
        "original_quality": point.original_quality,
        **{name: result.get(name) for name in FIGURES},
        "artifact": result.get("artifact"),
        "problems": list(point.problems),
    }


def _spread(name: str, interval: Interval | None, unit: str = "") -> dict[str, float | None]:
    ends = (None, None, None) if interval is None else (interval.value, interval.low, interval.high)
    return dict(zip((f"{name}{unit}", f"{name}_low{unit}", f"{name}_high{unit}"), ends, strict=True))


def _describe_front(front: Front) -> dict[str, Any]:
    setting = front.setting
    return {
        "device": setting.device,
        "cpu": setting.cpu,
        "runtime": setting.runtime,
        "threads": setting.threads,
        "affinity": list(setting.affinity),
        "governor": setting.governor,
        "metric": setting.metric.to_dict(),
        "setting": setting.describe(),
        "names": [point.name for point in front.best],
    }


def _write_notes(comparison: Comparison, fronts: Sequence[Front]) -> list[str]:
    notes = [f"{name} has no run: {reason}" for name, reason in comparison.without_run.items()]
    if len(fronts) > 1:
        what = ", ".join(_differing(fronts))
        notes.append(
            f"these runs differ in {what}: they are not held against each other, each setting has its own front"
        )
    runs = [point for point in comparison.points if point.setting and point.verdict != UNPRUNED]
    if len(runs) > 1 and not comparison.interleaved:
        notes.append(NOT_IN_TURNS)
    if len({point.recipe for point in runs}) > 1:
        names = ", ".join(dict.fromkeys(point.recipe for point in runs))
        notes.append(
            f"these runs are of different recipes ({names}): quality compares only if it is of the same inputs"
        )
    notes += note_tails(point.result for point in comparison.points)
    return notes + _describe_problems(sort_points(comparison.points))


def _describe_problems(points: Sequence[Point]) -> list[str]:
    """Why runs are not valid, each reason once with those that it holds for."""
    names: dict[str, list[str]] = {}
    for point in points:
        for problem in dict.fromkeys(point.problems):
            names.setdefault(problem, []).append(point.name)
    return [f"not valid: {', '.join(own)}: {problem}" for problem, own in names.items()]


def _differing(fronts: Sequence[Front]) -> list[str]:
    """What settings differ in, in words."""
    words = {
        "device": "device",
        "runtime": "runtime",
        "threads": "threads",
        "affinity": "cores",
        "governor": "governor",
        "metric": "metric",
    }
    settings = [front.setting for front in fronts]
    return [word for name, word in words.items() if len({getattr(setting, name) for setting in settings}) > 1]
