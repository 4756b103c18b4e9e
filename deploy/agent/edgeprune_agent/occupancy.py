"""Whose the processor was: what threads waited for a core, and what of the board's time others took."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from edgeprune_agent.board import find_paths, read_text
from edgeprune_agent.errors import AgentError
from edgeprune_agent.events import Events
from edgeprune_agent.parsers import parse_busy_ticks, parse_process_ticks, parse_stall_us

LEAST_CORES, CORES_SHARE = 0.2, 0.03
"""A board is busy where others take more than so many cores, or, of a large one, this share of all."""
LOOK_S = 0.5
QUIET_LOOKS = 2
"""So many looks in a row must find the board quiet."""


class Counters(NamedTuple):
    """Clocks of this process at one moment; `waited_ns` is None where the kernel does not tell."""

    wall_ns: int
    cpu_ns: int
    waited_ns: int | None
    switches: int


def read_counters(threads: int) -> Counters:
    """The clocks of the calling thread, and how long it, or all threads where there are several, stood ready to run.

    The second figure of schedstat is the time spent waiting on a run queue (kernel.org, scheduler/sched-stats).
    """
    switches = 0
    if hasattr(os, "sched_getaffinity"):
        import resource

        switches = resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nivcsw
    return Counters(time.perf_counter_ns(), time.thread_time_ns(), read_waited_ns(threads), switches)


def read_waited_ns(threads: int) -> int | None:
    """How long the calling thread, or every thread of this process, has stood ready without a core."""
    places = ["/proc/thread-self"] if threads == 1 else find_paths("", "/proc/self/task/[0-9]*")
    figures = [read_text("", f"{place}/schedstat").split() for place in places]
    waits_ns = [int(words[1]) for words in figures if len(words) == 3]
    return sum(waits_ns) if waits_ns else None


class Load(NamedTuple):
    """What the whole board did until one moment, in s, and what this process did of it; None where it does not tell."""

    wall_s: float
    own_s: float
    busy_s: float | None
    stolen_s: float | None
    stalled_s: float | None


def read_load(root: str) -> Load:
    """Time that all cores were busy, that a hypervisor took, and that some task waited for a core (PSI)."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    busy, stolen = parse_busy_ticks(read_text(root, "/proc/stat"))
    stalled_us = parse_stall_us(read_text(root, "/proc/pressure/cpu"))
    return Load(
        wall_s=time.perf_counter(),
        own_s=time.process_time(),
        busy_s=None if busy is None else busy * tick_s,
        stolen_s=None if stolen is None else stolen * tick_s,
        stalled_s=None if stalled_us is None else stalled_us / 1e6,
    )


def describe_load(before: Load, after: Load) -> dict[str, float | None]:
    """Seconds between two moments: of the wall clock, and what others, a hypervisor and waiting took of them."""
    own_s = after.own_s - before.own_s
    busy_s, stolen_s, stalled_s = (
        None if first is None or last is None else last - first for first, last in zip(before[2:], after[2:])
    )
    wall_s = after.wall_s - before.wall_s
    most_s = wall_s * (os.cpu_count() or 1)  # ticks are counted in hundredths of a second, late
    return {
        "wall_s": wall_s,
        "others_s": None if busy_s is None else min(max(0.0, busy_s - own_s), most_s),
        "stolen_s": stolen_s,
        "stalled_s": stalled_s,
    }


def share_load(loads: list[dict[str, float | None]]) -> dict[str, float | None]:
    """What others did over several spans of time, in cores; None where the board does not tell."""
    wall_s = sum(load["wall_s"] or 0.0 for load in loads)
    shares = {}
    for name, part in {"others_cores": "others_s", "stolen_cores": "stolen_s", "stalled_share": "stalled_s"}.items():
        seconds = [load[part] for load in loads]
        shares[name] = None if None in seconds or not wall_s else sum(map(float, seconds)) / wall_s  # type: ignore[arg-type]
    return shares


def await_quiet(request: dict[str, Any], root: str, events: Events, sleep: Callable[[float], Any] = time.sleep) -> None:
    """Wait until nothing else works on the board, for `quiet_wait_s` at most; without it, do not wait.

    Raises:
        AgentError: it is still busy then; says with what.
    """
    wait_s = request.get("quiet_wait_s") or 0.0
    end, quiet, say = time.monotonic() + wait_s, 0, events.progress
    while wait_s and quiet < QUIET_LOOKS:
        others = look_for_others(root, sleep)
        quiet = 0 if others else quiet + 1
        if not others:
            continue
        if time.monotonic() >= end:
            raise AgentError(
                "busy", f"{others}; stop them, or add --allow-busy: then no figure of latency passes a gate"
            )
        say(f"waiting for a quiet board, for {wait_s:.0f} s at most: {others}; stop them, or add --allow-busy")
        say = events.progress_slowly


def busy(request: dict[str, Any], root: str, events: Events, sleep: Callable[[float], Any] = time.sleep) -> None:
    """Tell what others do on the board, in words; nothing where one of so many looks finds it quiet."""
    looks = [look_for_others(root, sleep) for _ in range(QUIET_LOOKS)]
    events.emit("result", others=looks[-1] if all(looks) else "")


def look_for_others(root: str, sleep: Callable[[float], Any]) -> str:
    """What others take of the board during one look, in words; empty where that is too little to be seen."""
    before, ticks = read_load(root), read_process_ticks(root)
    sleep(LOOK_S)
    work, cores = describe_load(before, read_load(root)), os.cpu_count() or 1
    if not is_busy(work, cores):
        return ""
    seconds = work["wall_s"] or LOOK_S
    workers = name_workers(ticks, read_process_ticks(root), seconds)
    return f"others take {(work['others_s'] or 0.0) / seconds:.2f} of {cores} cores" + f" ({workers})" * bool(workers)


def is_busy(work: dict[str, float | None], cores: int) -> bool:
    """Whether others, or a hypervisor, took enough of the board to be seen in what is timed."""
    lost_s = max(work["others_s"] or 0.0, work["stolen_s"] or 0.0)
    return lost_s > max(LEAST_CORES, CORES_SHARE * cores) * (work["wall_s"] or 0.0)


def read_process_ticks(root: str) -> dict[tuple[int, str], int]:
    """Ticks of processor time by process, but this one, as (pid, name)."""
    ticks_by_process = {}
    for folder in Path(f"{root}/proc").glob("[0-9]*"):
        row = parse_process_ticks(read_text(root, f"/proc/{folder.name}/stat"))
        if row is not None and row[0] != os.getpid():
            ticks_by_process[row[0], row[1]] = row[2]
    return ticks_by_process


def name_workers(before: dict[tuple[int, str], int], after: dict[tuple[int, str], int], seconds: float) -> str:
    """The three processes that worked most between two looks, with the cores that each took."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    cores = {key: (ticks - before.get(key, ticks)) * tick_s / seconds for key, ticks in after.items()}
    most = sorted(cores, key=lambda key: -cores[key])[:3]
    return ", ".join(f"{name} (pid {pid}) {cores[pid, name]:.2f}" for pid, name in most if cores[pid, name] >= 0.05)
