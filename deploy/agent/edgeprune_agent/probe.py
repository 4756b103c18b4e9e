"""Measuring many tiny models: short interleaved windows, in batches that share a canary."""

from __future__ import annotations

import statistics
import time
from typing import Any

from edgeprune_agent.events import Events
from edgeprune_agent.files import read_archive, remove
from edgeprune_agent.runtimes import load_model
from edgeprune_agent.timing import quiet, settle, time_runs

BATCH = 64
"""Probes loaded at once; a small board cannot hold hundreds of sessions."""
CANARY_LIMIT = 0.05
"""A batch whose canary is off by more than this fraction of the usual is measured again."""
LEAST_RUNS = 3
LEAST_ROUNDS = 3

Windows = dict[str, list[float]]
"""Median of every window in ms, by model."""


def probe(request: dict[str, Any], root: str, events: Events) -> None:
    """Measure the models of a pushed archive; one result with the windows of each, and of the canary by batch."""
    deadline = time.monotonic() + request["budget_s"]
    contents = dict(read_archive(request["archive"], request["sizes"]))
    remove(request["archive"])
    models = request["models"]
    batches = [models[start : start + BATCH] for start in range(0, len(models), BATCH)]
    taken: list[Windows] = []
    for number, batch in enumerate(batches):
        share_s = (deadline - time.monotonic()) / (len(batches) - number)
        events.progress(f"probes {number * BATCH + 1} to {number * BATCH + len(batch)} of {len(models)}")
        taken.append(measure_batch([models[0], *batch], contents, {**request, "budget_s": share_s}, events))
    canary = models[0]["name"]
    again = [at for at in find_outliers([batch[canary] for batch in taken]) if time.monotonic() < deadline]
    for at in again:
        events.progress(f"the canary moved: probes from {at * BATCH + 1} again")
        share_s = (deadline - time.monotonic()) / len(again)
        taken[at] = measure_batch([models[0], *batches[at]], contents, {**request, "budget_s": share_s}, events)
    windows = {name: values for batch in taken for name, values in batch.items()}
    events.emit("result", windows_ms=windows, canary_ms=[batch[canary] for batch in taken])


def find_outliers(canaries: list[list[float]]) -> list[int]:
    """Batches whose canary's fastest window lies off the median batch's."""
    fastest = [min(windows) for windows in canaries]
    usual = statistics.median(fastest)
    return [at for at, value in enumerate(fastest) if abs(value / usual - 1) > CANARY_LIMIT]


def measure_batch(
    models: list[dict[str, Any]], contents: dict[str, bytes], request: dict[str, Any], events: Events
) -> Windows:
    """A window of each model per round; a round begins only while the batch's share of time lasts."""
    end = time.monotonic() + request["budget_s"]
    runs = {}
    for model in models:
        loaded = load_model(model["runtime"], contents[model["file"]], request)
        runs[model["name"]] = loaded.run
        time_runs(loaded.run, request["window_s"], LEAST_RUNS)
    windows: Windows = {name: [] for name in runs}
    with quiet():
        for turn in range(request["rounds"]):
            if turn >= LEAST_ROUNDS and time.monotonic() > end:
                break
            for name, run in runs.items():
                settle(run, request["threads"])
                samples = time_runs(run, request["window_s"], LEAST_RUNS)
                windows[name].append(statistics.median(samples) / 1e6)
                events.alive()
    return windows
