"""Measuring many tiny models: in batches, each in processes of its own, that share a few references."""

from __future__ import annotations

import statistics
import time
from typing import Any

from edgeprune_agent.events import Events
from edgeprune_agent.files import remove
from edgeprune_agent.occupancy import await_quiet, share_load
from edgeprune_agent.turns import ARITHMETIC, take_turns

BATCH = 64
"""Probes loaded at once; a small board cannot hold hundreds of sessions."""
LEAST_RUNS = 3
LEAST_ROUNDS = 2
MOST_SAMPLES = 1000


def probe(request: dict[str, Any], root: str, events: Events) -> None:
    """Measure the models of a pushed archive; one result with the windows of each.

    The references of a request are in every batch, so that the speed of one batch is known beside that of another.
    """
    deadline = time.monotonic() + request["budget_s"]
    await_quiet(request, root, events)
    references = [model for model in request["models"] if model["name"] in request["references"]]
    others = [model for model in request["models"] if model not in references]
    batches = [others[start : start + BATCH] for start in range(0, len(others), BATCH)] or [[]]
    windows: dict[str, list[list[float]]] = {model["name"]: [] for model in request["models"]}
    loads = []
    for number, batch in enumerate(batches):
        place = f"probes {number * BATCH + 1} to {number * BATCH + len(batch)} of {len(others)}, "
        share_s = (deadline - time.monotonic()) / (len(batches) - number)
        batch_windows, processes = take_turns(
            {**request, "models": [*references, *batch]}, {**set_pace(request, share_s), "place": place}, events
        )
        for window in batch_windows:
            if window["model"] != ARITHMETIC:
                windows[window["model"]].append(describe_window(window, number * request["processes"]))
        loads += [row["load"] for row in processes]
    remove(request["archive"])
    events.emit("result", windows=windows, **share_load(loads))


def describe_window(window: dict[str, Any], before: int) -> list[float]:
    """Which process (`before` there were others), when in s, the median run in ms, the share of it that was waited."""
    waited = (window["waited_ns"] or 0) / window["wall_ns"]
    return [before + window["process"], window["at_ns"] / 1e9, statistics.median(window["samples_ns"]) / 1e6, waited]


def set_pace(request: dict[str, Any], share_s: float) -> dict[str, Any]:
    """How the processes of a batch go about it."""
    processes = request["processes"]
    return {
        "processes": processes,
        "rounds": -(-request["rounds"] // processes),
        "least_rounds": LEAST_ROUNDS,
        "budget_s": share_s / processes,
        "window_s": request["window_s"],
        "at_least": LEAST_RUNS,
        "most": MOST_SAMPLES,
        "warmup_s": 0.0,
    }
