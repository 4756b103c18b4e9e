"""Whether a power meter's readings can be believed: its clock held against ours, its figures against what boards draw.

One check for every kind of meter, before a run on a few readings, and after it on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

LEAST_SPAN_S = 0.8
"""Readings must span so much before the run of a clock can be told."""
SLACK_S, SLACK_SHARE = 0.2, 0.05
"""By so much a clock may seem off: a line comes some time after its reading, and not always the same time."""
MOST_WATTS = 300.0
"""More than any board and most computers draw at rest; a board's milliwatts lie above."""
LEAST_WATTS = -0.1
UNITS = {1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds", 1 / 60: "minutes"}
NEAR = 0.1


@dataclass(frozen=True)
class Arrival:
    """A reading: when it came by our clock, its own time, both in s, and its value in the meter's unit."""

    came_s: float
    at_s: float
    value: float


def is_enough(arrivals: Sequence[Arrival]) -> bool:
    """Whether so many readings came that :func:`find_problem` can judge them."""
    return len(arrivals) > 1 and arrivals[-1].came_s - arrivals[0].came_s >= LEAST_SPAN_S


def find_problem(arrivals: Sequence[Arrival], unit: str) -> str:
    """What is wrong with readings in the order in which they came, with what to do; empty where nothing is.

    `unit` is "W", or "J" for a count of energy.
    """
    return find_clock_problem(arrivals) or find_value_problem(_powers(arrivals, unit))


def find_clock_problem(arrivals: Sequence[Arrival]) -> str:
    """What is wrong with a meter's own time."""
    for before, after in pairwise(arrivals):
        if after.at_s < before.at_s:
            return (
                f"its seconds jump back, from {before.at_s:g} to {after.at_s:g}: print a clock that only goes forward"
            )
    if not is_enough(arrivals):
        return ""
    first, last = _least_delayed(arrivals)
    own_s, ours_s = last.at_s - first.at_s, last.came_s - first.came_s
    if own_s == 0:
        return f"its seconds stand still at {last.at_s:g}: print the time of each reading"
    if abs(own_s - ours_s) <= SLACK_S + SLACK_SHARE * ours_s:
        return ""
    rate = own_s / ours_s
    name = next((name for factor, name in UNITS.items() if abs(rate / factor - 1) < NEAR), "")
    hint = f"are they {name}? print seconds" if name else "print seconds of a clock that runs at the right speed"
    return f"its seconds run {rate:.4g} times as fast as this machine's: {hint}"


def _least_delayed(arrivals: Sequence[Arrival]) -> tuple[Arrival, Arrival]:
    """Of each half of the time the reading that came with the least delay: lines may come in bursts."""
    middle_s = (arrivals[0].came_s + arrivals[-1].came_s) / 2
    halves = [[arrival for arrival in arrivals if (arrival.came_s > middle_s) == late] for late in (False, True)]
    first, last = (min(half, key=lambda arrival: arrival.came_s - arrival.at_s) for half in halves)
    return first, last


def _powers(arrivals: Sequence[Arrival], unit: str) -> list[float]:
    if unit == "W":
        return [arrival.value for arrival in arrivals]
    pairs = [(before, after) for before, after in pairwise(arrivals) if after.came_s > before.came_s]
    return [(after.value - before.value) / (after.came_s - before.came_s) for before, after in pairs]


def find_value_problem(watts: Sequence[float]) -> str:
    """What is wrong with powers in W."""
    usual = median(watts) if watts else 0.0
    if usual > MOST_WATTS:
        return f"it says {usual:.4g} W, more than any board draws: are these milliwatts? print watts"
    if usual < LEAST_WATTS:
        return f"it says {usual:.4g} W, less than nothing: is its shunt the other way round?"
    return ""
