"""Taking times: warm-up, and windows of runs."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WINDOW_S = 0.05
STABLE = 0.03
"""Warm-up ends when the medians of three windows in a row lie within this fraction."""
HANDOVER_S = 0.02


def time_runs(run: Callable[[], Any], duration_s: float, at_least: int) -> list[int]:
    """Nanoseconds of each run, until they sum to the duration and are at least so many."""
    clock, limit, total = time.perf_counter_ns, int(duration_s * 1e9), 0
    samples: list[int] = []
    while total < limit or len(samples) < at_least:
        begun = clock()
        run()
        taken = max(1, clock() - begun)
        samples.append(taken)
        total += taken
    return samples


def warm_up(run: Callable[[], Any], limit_s: float) -> int:
    """Run until stable, or until the time is up; gives the number of runs."""
    deadline, runs = time.perf_counter() + limit_s, 0
    medians: list[float] = []
    while time.perf_counter() < deadline:
        window = time_runs(run, min(WINDOW_S, limit_s / 4), 3)
        runs += len(window)
        medians = [*medians[-2:], statistics.median(window)]
        if len(medians) == 3 and max(medians) <= (1 + STABLE) * min(medians):
            break
    return runs


def settle(run: Callable[[], Any], threads: int) -> None:
    """Hand cores and caches over to a model: the threads of the last one stop spinning, then two runs."""
    if threads > 1:
        time.sleep(HANDOVER_S)
    run()
    run()


def measure_overhead_us() -> float:
    """What one empty turn of the timing loop costs."""
    return statistics.median(time_runs(lambda: None, 0, 1000)) / 1e3


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection while times are taken."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
