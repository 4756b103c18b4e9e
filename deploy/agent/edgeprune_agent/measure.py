"""Measuring models: cold start in a process of its own, steady state interleaved. Energy is a run of its own."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from edgeprune_agent.board import State, read_governor, read_peak_mib, read_state
from edgeprune_agent.errors import AgentError
from edgeprune_agent.events import Events
from edgeprune_agent.files import find_place, read_archive, read_checked, remove, write_whole
from edgeprune_agent.parsers import describe_throttled
from edgeprune_agent.prepare import cool_down
from edgeprune_agent.runtimes import import_runtime, load_model, share_nodes
from edgeprune_agent.timing import measure_overhead_us, quiet, settle, time_runs, warm_up

COLD_TIMEOUT_S = 100
COLD_FIELDS = ("init_ms", "first_ms", "peak_memory_mib", "providers")
MAX_SAMPLES = 20000
"""More samples of a model than these, which only one far below 1 ms takes, are thinned evenly."""

Run = Callable[[], Any]


def measure(request: dict[str, Any], root: str, events: Events) -> None:
    """Measure every model of the request; one result each, with the conditions they share."""
    keep_archive(request)
    models, threads = request["models"], request["threads"]
    for model in models:
        read_checked(model["file"])
    cold = {}
    for model in models:
        events.progress(f"cold start of {model['name']}")
        cold[model["name"]] = run_cold(model, request)
    runs = load_all(models, request, events)
    too_warm_c = cool_down(request, root, events)
    states = [read_state(root)]
    with quiet():
        warm = warm_all(runs, request["max_warmup_s"], events)
        samples = run_rounds(runs, request, events, lambda: states.append(read_state(root)))
    conditions = {**describe_conditions(states, threads, root), "too_warm_c": too_warm_c}
    for name, taken in samples.items():
        events.emit(
            "result",
            name=name,
            **cold[name],
            warmup_runs=warm[name],
            samples_ns=[one for window in taken for one in window],
            rounds=[len(window) for window in taken],
            conditions=conditions,
        )


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


def run_cold(model: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Init, first inference and peak memory of a model, from a fresh process.

    Raises:
        AgentError: what that process said, or how it ended.
    """
    wanted: dict[str, Any] = {name: asked[name] for name in ("threads", "provider", "allow_fallback") if name in asked}
    request = {"command": "cold", "file": model["file"], "runtime": model["runtime"], **wanted}
    command = [sys.executable, "-I", "-B", sys.argv[0]]
    try:
        done = subprocess.run(
            command, input=json.dumps(request), capture_output=True, text=True, timeout=COLD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise AgentError("model", f"{model['name']}: no first inference within {COLD_TIMEOUT_S} s") from exc
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for answer in answers:
        if answer["event"] == "error":
            raise AgentError(answer["kind"], f"{model['name']}: {answer['message']}")
    if done.returncode != 0 or not answers:
        cause = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise AgentError("model", f"{model['name']}: its process ended by {cause} (out of memory?)")
    return {key: answers[0][key] for key in COLD_FIELDS}


def load_all(models: list[dict[str, Any]], request: dict[str, Any], events: Events) -> dict[str, Run]:
    """Load every model; gives its inference by name."""
    runs = {}
    for model in models:
        runs[model["name"]] = load_model(model["runtime"], str(find_place(model["file"])), request).run
        events.alive()
    return runs


def warm_all(runs: dict[str, Run], limit_s: float, events: Events) -> dict[str, int]:
    """Warm every model up; gives its number of runs by name."""
    counts = {}
    for name, run in runs.items():
        counts[name] = warm_up(run, limit_s)
        events.alive()
    return counts


def run_rounds(
    runs: dict[str, Run], request: dict[str, Any], events: Events, between: Callable[[], None]
) -> dict[str, list[list[int]]]:
    """Samples in ns by round: in each a window of every model, so that what changes over time changes all alike.

    Every other round goes backwards, so that none is always the one that follows the other.
    """
    rounds = request["rounds"]
    window_s, least = request["min_duration_s"] / rounds, math.ceil(request["min_samples"] / rounds)
    samples: dict[str, list[list[int]]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name, run in list(runs.items())[:: -1 if turn % 2 else 1]:
            settle(run, request["threads"])
            samples[name].append(thin(time_runs(run, window_s, least), max(least, MAX_SAMPLES // rounds)))
            events.alive()
        between()
        events.progress(f"round {turn + 1} of {rounds}")
    return samples


def thin(samples: list[int], most: int) -> list[int]:
    """Every n-th sample, so that at most so many are kept."""
    return samples[:: math.ceil(len(samples) / most)]


def describe_conditions(states: list[State], threads: int, root: str) -> dict[str, Any]:
    """What a run was taken under: states at its start, between its rounds and at its end."""
    first, last = states[0], states[-1]
    throttled = describe_throttled(first.throttle_bits, last.throttle_bits)
    if last.throttle_events > first.throttle_events:
        throttled.append("thermal throttling")
    return {
        "threads": threads,
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
        "governor": read_governor(root),
        "frequency_mhz": [state.mhz for state in states if state.mhz is not None],
        "temperature_c": [state.temperature_c for state in states if state.temperature_c is not None],
        "throttled": throttled,
        "load_average": [state.load for state in (first, last) if state.load is not None],
        "clock_resolution_ns": max(1, round(time.get_clock_info("perf_counter").resolution * 1e9)),
        "overhead_us": measure_overhead_us(),
    }
