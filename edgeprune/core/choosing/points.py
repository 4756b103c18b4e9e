"""What a run comes to: one latency and one quality with their intervals, and the setting that they hold for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeprune.core.latency.table import ESTIMATED, MEASURED
from edgeprune.core.metric import HIGHER, Metric, parse_metric
from edgeprune.core.releasing.gate import FAIL

UNPRUNED = "unpruned"
"""The name of the point of the unpruned net, and in place of its verdict."""
FAILED = "failed its gates"
"""Why a run that was measured and judged is on no front."""
UNFINISHED = "not finished"
"""In place of the verdict of a run that was not judged."""


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; of a figure without one, `low` and `high` are the figure itself."""

    value: float
    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether a value lies within both, so that the two are not told apart."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Setting:
    """What latencies and qualities must share to be held against each other.

    `device` is the fingerprint of what decides latency, `runtime` a name with a version; `cpu` describes.
    """

    device: str
    runtime: str
    threads: int
    metric: Metric
    affinity: tuple[int, ...] = ()
    governor: str = ""
    cpu: str = field(default="", compare=False)

    def describe(self) -> str:
        """For people, in a line."""
        cores = ",".join(map(str, self.affinity))
        parts = [
            self.cpu or f"device {self.device}",
            self.runtime,
            f"{self.threads} thread{'s' if self.threads > 1 else ''}",
            f"cores {cores}" if cores else "",
            f"governor {self.governor}" if self.governor else "",
            self.metric.label,
        ]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Point:
    """A run as one point: what its shipped file takes and is worth, as far as that is known.

    Latencies in ms. `origin` is "measured" or "estimated". `setting` is None where nothing was measured. `accurate`:
    within the gates on quality, without one at most 1 % worse than the original; None where that is not told.
    """

    name: str
    verdict: str
    origin: str = MEASURED
    setting: Setting | None = None
    latency: Interval | None = None
    quality: Interval | None = None
    speedup: Interval | None = None
    original_quality: float | None = None
    problems: tuple[str, ...] = ()
    accurate: bool | None = None
    recipe: str = ""
    directory: str = ""
    result: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Figures of the shipped file, as docs/report.md has them."""

    @property
    def exclusion(self) -> str:
        """Why it is on no front, in words; empty where it may be."""
        if self.origin == ESTIMATED:
            return "estimated, not measured"
        if self.setting is None or self.latency is None:
            return "not measured"
        if self.problems:
            return "not valid"
        if self.verdict == FAIL:
            return FAILED
        return "no figure of quality" if self.quality is None else ""


def read_point(name: str, report: Mapping[str, Any], directory: str = "") -> Point:
    """The point of a finished run, by its `report.json`."""
    result, baseline = report["result"], report["baseline"]
    shipped: Mapping[str, Any] = next((row for row in report.get("artifacts", ()) if row.get("shipped")), {})
    low, high = report["speedup_interval"]
    return Point(
        name=name,
        verdict=str(report["verdict"]),
        origin=str(result.get("origin", MEASURED)),
        setting=read_setting(report),
        latency=read_latency(result["latency"]),
        quality=read_quality(result),
        speedup=Interval(report["speedup"], low, high),
        original_quality=baseline["quality"],
        problems=(*result["problems"], *(f"the unpruned file: {problem}" for problem in baseline["problems"])),
        accurate=shipped.get("accurate"),
        recipe=str(report["recipe"]),
        directory=directory,
        result=result,
    )


def read_setting(report: Mapping[str, Any]) -> Setting:
    """The setting that a report's shipped file was measured in."""
    conditions, device = report["conditions"], report["device"]
    return Setting(
        device=str(device["fingerprint"]),
        runtime=str(report["runtime"]),
        threads=int(conditions["threads"]),
        metric=parse_metric(report["metric"]),
        affinity=tuple(conditions.get("affinity") or ()),
        governor=str(conditions.get("governor") or ""),
        cpu=str(device.get("cpu", "")),
    )


def read_latency(latency: Mapping[str, Any]) -> Interval:
    """The median of a report's latency, in ms."""
    return Interval(latency["p50_ms"], latency["median_low_ms"], latency["median_high_ms"])


def read_quality(figures: Mapping[str, Any]) -> Interval | None:
    """The quality of a report's file, with its interval where the report has one."""
    value = figures["quality"]
    if value is None:
        return None
    low, high = figures.get("quality_low"), figures.get("quality_high")
    return Interval(value, value if low is None else low, value if high is None else high)


def sort_points(points: Sequence[Point]) -> list[Point]:
    """By latency, those without one last; equal ones by name."""
    return sorted(points, key=lambda point: (point.latency is None, point.latency and point.latency.value, point.name))


def goodness(quality: float, metric: Metric) -> float:
    """Higher for what is better by the metric."""
    return quality if metric.better == HIGHER else -quality
