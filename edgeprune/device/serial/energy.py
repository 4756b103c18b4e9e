"""Energy of one inference over a serial line: the net in a loop between two rests, while this machine reads a meter."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeprune.core.measuring.energy import Energy, Meter, Window, find_energies, make_readings
from edgeprune.core.measuring.readings import find_problem
from edgeprune.core.target import PowerSource
from edgeprune.device.meters import open_external

MARGIN_S, MARGIN_POLLS = 0.3, 2
"""Before and after each window the board does the same as in it, as on boards with an agent."""


def measure_energy(source: PowerSource, name: str, infer_some: Callable[[], int], least_s: float) -> Energy:
    """Energy of one inference of a net by a meter beside the board; `infer_some` infers and tells how often.

    Between the commands of a loop the board rests, which adds nothing above idle.

    Raises:
        TargetError: the meter's address is missing.
        DeviceError: the meter's command cannot be started, or the line fails.
    """
    meter, enter = open_external(source)
    window_s = max(least_s, meter.window_s)
    with enter() as log:
        windows = (
            _take("", _rest, window_s / 2, meter),
            _take(name, infer_some, window_s, meter),
            _take("", _rest, window_s / 2, meter),
        )
    problem = find_problem(log.arrivals, meter.unit)
    return find_energies(make_readings(meter, log.readings, log.lost, problem), windows)[name]


def _rest() -> int:
    time.sleep(0.05)
    return 0


def _take(name: str, work: Callable[[], int], window_s: float, meter: Meter) -> Window:
    """One window of work; what is done in its margins is not counted."""
    margin_s = max(MARGIN_S, MARGIN_POLLS * meter.poll_s)
    _repeat(work, margin_s)
    begin_s = time.perf_counter()
    count = _repeat(work, window_s)
    end_s = time.perf_counter()
    _repeat(work, margin_s)
    return Window(name, begin_s, end_s, count)


def _repeat(work: Callable[[], int], seconds: float) -> int:
    """Work for so long, once at least; tells how often was inferred."""
    end_s, count = time.perf_counter() + seconds, work()
    while time.perf_counter() < end_s:
        count += work()
    return count
