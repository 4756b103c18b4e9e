"""The sustained run: latency, clock and temperature over time, and whether the board keeps its speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import exp, inf
from typing import Any

import numpy as np

from edgeprune.core.answers import count, each, named, number, optional, positive, text
from edgeprune.core.measuring.measurement import Conditions, parse_conditions
from edgeprune.core.measuring.spread import spread_over_processes
from edgeprune.core.measuring.validity import DISTURBED_LIMIT, find_heat, find_neighbours
from edgeprune.core.measuring.windows import DISTURBED

MINUTE_S = 60.0
SHORTEST = 3
"""The first and the last minute are a third of the run each, where it is shorter than three minutes."""
LEAST_WINDOWS = 3
MOST_BLOCKS = 10
SLOWER = 1.03
"""A last minute slower than the first by more than this ratio is told."""
BARS = 16


@dataclass(frozen=True)
class Window:
    """What was seen until `at_s` after the beginning; the clock and the temperature are those at its end."""

    at_s: float
    count: int
    min_ms: float
    p50_ms: float
    p95_ms: float
    max_ms: float
    mhz: float | None
    temperature_c: float | None
    throttled: tuple[str, ...]
    waited_share: float | None = None


@dataclass(frozen=True)
class SustainedRun:
    """One model that ran without a pause for `duration_s`."""

    model: str
    duration_s: float
    windows: tuple[Window, ...]
    conditions: Conditions
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with what it shows."""
        return {**asdict(self), "change": asdict(compare_ends(self))}


@dataclass(frozen=True)
class Change:
    """The last minute against the first: medians of the windows' medians, and their mean ratio with a 95 % interval.

    `throttled` are the moments of the throttle events in s, by what was throttled.
    """

    minute_s: float
    first_ms: float
    last_ms: float
    ratio: float
    low: float
    high: float
    throttled: Mapping[str, tuple[float, ...]]


def parse_sustained(row: Mapping[str, Any], duration_s: float) -> SustainedRun:
    """Read what the agent says.

    Raises:
        KeyError, TypeError, ValueError: it is not whole.
    """
    windows = tuple(_parse_window(window) for window in row["windows"])
    if len(windows) < 2 * LEAST_WINDOWS:
        raise ValueError(f"{len(windows)} windows in {duration_s:g} s; a sustained run needs {2 * LEAST_WINDOWS}")
    inputs = named(each(count))(row["inputs"])
    return SustainedRun(text(row["name"]), duration_s, windows, parse_conditions(row["conditions"]), inputs)


def _parse_window(row: Mapping[str, Any]) -> Window:
    low, middle, high, most = (latency / 1e6 for latency in each(positive)(row["latency_ns"]))
    mhz, temperature_c = (optional(number)(row[name]) for name in ("mhz", "temperature_c"))
    at_s, runs, throttled = number(row["at_s"]), count(row["count"]), each(text)(row["throttled"])
    waited_share = optional(number)(row["waited_share"])
    return Window(at_s, runs, low, middle, high, most, mhz, temperature_c, throttled, waited_share)


def find_sustained_problems(run: SustainedRun) -> tuple[str, ...]:
    """Why a sustained run says nothing of its model: begun too warm, or not alone on the board."""
    waits = [window.waited_share for window in run.windows if window.waited_share is not None]
    disturbed = sum(share > DISTURBED for share in waits)
    problems = [*find_heat(run.conditions), *find_neighbours(run.conditions)]
    if disturbed > DISTURBED_LIMIT * len(run.windows):
        problems.append(f"the processor was not this run's own in {disturbed} of {len(run.windows)} windows")
    return tuple(problems)


def compare_ends(run: SustainedRun) -> Change:
    """How the last minute relates to the first; by blocks of windows, as those that follow each other are alike."""
    minute_s = min(MINUTE_S, run.duration_s / SHORTEST)
    end_s = run.windows[-1].at_s
    first = [window.p50_ms for window in run.windows if window.at_s <= minute_s] or [run.windows[0].p50_ms]
    last = [window.p50_ms for window in run.windows if window.at_s > end_s - minute_s]
    size = min(MOST_BLOCKS, len(first), len(last))
    before, after = (
        np.array([np.median(part) for part in np.array_split(np.log(ends), size)]) for ends in (first, last)
    )
    ratio = exp((after - before).mean())
    low, high = (0.0, inf)
    if size > 1:
        _, low, high = spread_over_processes(np.exp(after - before).tolist(), 0.0).interval()
    return Change(
        minute_s=minute_s,
        first_ms=float(np.median(first)),
        last_ms=float(np.median(last)),
        ratio=ratio,
        low=low,
        high=high,
        throttled=_find_throttling(run.windows),
    )


def _find_throttling(windows: Sequence[Window]) -> dict[str, tuple[float, ...]]:
    names = sorted({name for window in windows for name in window.throttled})
    return {name: tuple(round(window.at_s, 1) for window in windows if name in window.throttled) for name in names}


def render_sustained(run: SustainedRun) -> str:
    """The run as a table over time, and what it shows, for people."""
    change, slowest = compare_ends(run), max(window.p50_ms for window in run.windows)
    rows = [f"{'s':>6} {'p50 ms':>9} {'p95 ms':>9} {'MHz':>6} {'C':>6}"]
    for window in _thin(run.windows):
        clock = "-" if window.mhz is None else f"{window.mhz:.0f}"
        heat = "-" if window.temperature_c is None else f"{window.temperature_c:.1f}"
        bar = "#" * max(1, round(BARS * window.p50_ms / slowest))
        more = f" {bar:{BARS}} {', '.join(window.throttled)}".rstrip()
        rows.append(f"{window.at_s:6.0f} {window.p50_ms:9.4g} {window.p95_ms:9.4g} {clock:>6} {heat:>6} {more}")
    rows.append(
        f"last {change.minute_s:g} s against the first: {change.last_ms:.4g} / {change.first_ms:.4g} ms = "
        f"{change.ratio:.3f}, 95 % interval {change.low:.3f} to {change.high:.3f}"
    )
    rows += [f"{name}: {len(at)} times, first at {at[0]:.0f} s" for name, at in change.throttled.items()]
    if not change.throttled:
        rows.append("no throttling was told")
    if change.low > SLOWER:
        rows.append("the board does not keep its speed: judge it by the last minute, or cool it better")
    return "\n".join(rows)


def _thin(windows: Sequence[Window]) -> Sequence[Window]:
    """Windows for a table of some twenty rows; those with throttling stay."""
    step = max(1, len(windows) // 20)
    return [window for at, window in enumerate(windows) if at % step == 0 or window is windows[-1]]
