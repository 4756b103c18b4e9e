"""Measuring models: cold starts in processes of their own, steady state in several that take turns.

Energy is a run of its own.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from typing import Any

from edgeprune_agent.board import State, read_governor, read_peak_mib, read_state
from edgeprune_agent.errors import AgentError
from edgeprune_agent.events import Events
from edgeprune_agent.files import find_place, read_archive, read_checked, remove, write_whole
from edgeprune_agent.occupancy import await_quiet, share_load
from edgeprune_agent.parsers import describe_throttled
from edgeprune_agent.prepare import cool_down
from edgeprune_agent.runtimes import import_runtime, load_model, share_nodes
from edgeprune_agent.timing import measure_overhead_us
from edgeprune_agent.turns import ARITHMETIC, call_process, take_turns

COLD_STARTS = 3
COLD_TIMEOUT_S = 100
MAX_SAMPLES = 20000
"""More samples of a model than these, which only one far below 1 ms takes, are thinned evenly."""
WINDOW_FIELDS = ("process", "at_ns", "wall_ns", "cpu_ns", "waited_ns", "switches")


def measure(request: dict[str, Any], root: str, events: Events) -> None:
    """Measure every model of the request; one result each, with the conditions they share."""
    keep_archive(request)
    models = request["models"]
    request = {**request, "several": len(models) > 1}
    for model in models:
        read_checked(model["file"])
    await_quiet(request, root, events)
    cold_starts = {}
    for number, model in enumerate(models, 1):
        place = f"model {number} of {len(models)}"
        cold_starts[model["name"]] = start_cold(model, place, request, events)
    too_warm_c = cool_down(request, root, events)
    states = [read_state(root)]
    pace = set_pace(request)
    windows, processes = take_turns({**request, "archive": None}, pace, events, lambda: states.append(read_state(root)))
    conditions = {**describe_conditions(states, request["threads"], root), "too_warm_c": too_warm_c}
    conditions.update(describe_work(windows, processes))
    for model in models:
        name = model["name"]
        own_windows = [window for window in windows if window["model"] == name]
        events.emit(
            "result",
            name=name,
            **cold_starts[name],
            warmup_runs=sum(row["warmups"][name] for row in processes),
            inputs=processes[0]["shapes"][name],
            samples_ns=[sample for window in own_windows for sample in window["samples_ns"]],
            windows=[describe_window(window) for window in own_windows],
            conditions=conditions,
        )


def describe_window(window: dict[str, Any]) -> dict[str, Any]:
    """A window beside the samples of all: how many are its own, and what became of the processor meanwhile."""
    return {"count": len(window["samples_ns"]), **{field: window[field] for field in WINDOW_FIELDS}}


def describe_work(windows: list[dict[str, Any]], processes: list[dict[str, Any]]) -> dict[str, Any]:
    """What others did on the board while processes took turns; and the median time of a fixed loop in each."""
    loops: list[list[int]] = [[] for _ in processes]
    for window in windows:
        if window["model"] == ARITHMETIC:
            loops[window["process"]] += window["samples_ns"]
    shares = share_load([row["load"] for row in processes])
    return {**shares, "arithmetic_us": [statistics.median(samples) / 1e3 for samples in loops]}


def set_pace(request: dict[str, Any]) -> dict[str, Any]:
    """How the processes go about it, so that all together keep to the protocol."""
    processes = request["processes"]
    rounds = math.ceil(request["rounds"] / processes)
    windows = rounds * processes
    return {
        "processes": processes,
        "rounds": rounds,
        "least_rounds": rounds,
        "budget_s": 0.0,
        "window_s": request["min_duration_s"] / windows,
        "at_least": math.ceil(request["min_samples"] / windows),
        "most": MAX_SAMPLES // windows,
        "warmup_s": request["max_warmup_s"],
    }


def keep_archive(request: dict[str, Any]) -> None:
    """Put the models of a pushed archive in their place."""
    if request["archive"]:
        for name, content in read_archive(request["archive"], request["sizes"]):
            write_whole(name, content)
        remove(request["archive"])


def cold(request: dict[str, Any], root: str, events: Events) -> None:
    """Load one model and infer once, in this fresh process; then find out what ran its nodes."""
    import_runtime(request["runtime"])
    path = str(find_place(request["file"]))
    begun = time.perf_counter()
    loaded = load_model(request["runtime"], path, request)
    ready = time.perf_counter()
    loaded.run()
    first = time.perf_counter()
    peak = read_peak_mib()
    events.emit(
        "result",
        init_ms=(ready - begun) * 1e3,
        first_ms=(first - ready) * 1e3,
        peak_memory_mib=peak,
        providers=share_nodes(path, request),
    )


def start_cold(model: dict[str, Any], place: str, request: dict[str, Any], events: Events) -> dict[str, Any]:
    """Init, first inference and peak memory of a model in fresh processes: each of COLD_STARTS, and what to tell first.

    The middle one of the times is told beside all; of memory the most.

    Raises:
        AgentError: what such a process said, or how it ended.
    """
    starts = []
    for number in range(COLD_STARTS):
        events.progress_slowly(f"{place}, cold start {number + 1} of {COLD_STARTS}: {model['name']}")
        starts.append(run_cold(model, request))
    times = {name: [start[name] for start in starts] for name in ("init_ms", "first_ms")}
    peaks = [start["peak_memory_mib"] for start in starts if start["peak_memory_mib"] is not None]
    return {
        **{name: statistics.median(values) for name, values in times.items()},
        "cold_starts_ms": [list(pair) for pair in zip(times["init_ms"], times["first_ms"])],
        "peak_memory_mib": max(peaks, default=None),
        "providers": starts[0]["providers"],
    }


def run_cold(model: dict[str, Any], parent_request: dict[str, Any]) -> dict[str, Any]:
    """One cold start, in a fresh process.

    Raises:
        AgentError: what that process said, or how it ended.
    """
    request = {"command": "cold", "file": model["file"], "runtime": model["runtime"]}
    try:
        (answer,) = [
            event for event in call_process(request, parent_request, COLD_TIMEOUT_S) if event["event"] == "result"
        ]
    except AgentError as exc:
        raise AgentError(exc.kind, f"{model['name']}: {exc}") from exc
    return answer


def describe_conditions(states: list[State], threads: int, root: str) -> dict[str, Any]:
    """What a run was taken under: states at its start, between its rounds and at its end."""
    first, last = states[0], states[-1]
    throttled = describe_throttled(first.throttle_bits, last.throttle_bits)
    if last.throttle_events > first.throttle_events:
        throttled.append("thermal throttling")
    return {
        "threads": threads,
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
        "cores": os.cpu_count() or 0,
        "governor": read_governor(root),
        "frequency_mhz": [state.mhz for state in states if state.mhz is not None],
        "temperature_c": [state.temperature_c for state in states if state.temperature_c is not None],
        "throttled": throttled,
        "load_average": [state.load for state in (first, last) if state.load is not None],
        "clock_resolution_ns": max(1, round(time.get_clock_info("perf_counter").resolution * 1e9)),
        "overhead_us": measure_overhead_us(),
    }
