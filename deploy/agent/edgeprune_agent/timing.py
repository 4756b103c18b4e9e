"""Taking times: warm-up, and windows of runs."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from edgeprune_agent.occupancy import read_counters

WINDOW_S = 0.05
STABLE = 0.03
"""Warm-up ends when the medians of three windows in a row lie within this fraction."""
HANDOVER_S = 0.02
DISTURBED = 0.05
"""A window whose threads waited for a core for more than this share of it was not the process's own."""
ARITHMETIC_STEPS = 1000


class Window(NamedTuple):
    """Runs of one model without a break: ns of each, and what became of the processor meanwhile.

    `waited_ns` is how long its threads stood ready without a core, None where nothing tells.
    """

    at_ns: int
    samples_ns: list[int]
    wall_ns: int
    cpu_ns: int
    waited_ns: int | None
    switches: int

    @property
    def is_disturbed(self) -> bool:
        """Whether others had its cores for a part of it that may be seen in its figures."""
        return (self.waited_ns or 0) > DISTURBED * self.wall_ns


def take_window(run: Callable[[], Any], duration_s: float, at_least: int, threads: int) -> Window:
    """One window of runs, until they sum to the duration and are at least so many.

    Where the kernel does not tell how long a thread waited, it is the time that a single one did not run.
    """
    before = read_counters(threads)
    samples = time_runs(run, duration_s, at_least)
    after = read_counters(threads)
    wall_ns, cpu_ns = after.wall_ns - before.wall_ns, after.cpu_ns - before.cpu_ns
    if before.waited_ns is None or after.waited_ns is None:
        waited_ns = max(0, wall_ns - cpu_ns) if threads == 1 else None
    else:
        waited_ns = max(0, after.waited_ns - before.waited_ns)
    return Window(before.wall_ns, samples, wall_ns, cpu_ns, waited_ns, after.switches - before.switches)


def do_arithmetic() -> int:
    """A fixed piece of work, some 0.1 ms: how its time varies is how the speed of the board varies."""
    total = 0
    for step in range(ARITHMETIC_STEPS):
        total += step * step
    return total


def time_runs(run: Callable[[], Any], duration_s: float, at_least: int) -> list[int]:
    """Nanoseconds of each run, until they sum to the duration and are at least so many."""
    clock, limit, total = time.perf_counter_ns, int(duration_s * 1e9), 0
    samples: list[int] = []
    while total < limit or len(samples) < at_least:
        begun = clock()
        run()
        elapsed_ns = max(1, clock() - begun)
        samples.append(elapsed_ns)
        total += elapsed_ns
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
