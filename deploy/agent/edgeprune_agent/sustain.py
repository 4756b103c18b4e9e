"""The sustained run: one model without a pause, its latency, clocks and temperature over time."""

from __future__ import annotations

import time
from typing import Any

from edgeprune_agent.board import State, read_state
from edgeprune_agent.events import Events
from edgeprune_agent.files import find_place, read_checked
from edgeprune_agent.measure import describe_conditions, keep_archive
from edgeprune_agent.occupancy import await_quiet, describe_load, read_load, share_load
from edgeprune_agent.parsers import describe_throttled
from edgeprune_agent.prepare import cool_down
from edgeprune_agent.runtimes import load_model
from edgeprune_agent.timing import Window, quiet, take_window

MOST_WINDOWS = 600
LEAST_WINDOW_S = 0.5
PERCENTILES = (0, 50, 95, 100)
SAY_S = 5.0


def sustain(request: dict[str, Any], root: str, events: Events) -> None:
    """Run the one model for `duration_s`; the result has a row for each window."""
    keep_archive(request)
    (model,) = request["models"]
    read_checked(model["file"])
    loaded = load_model(model["runtime"], str(find_place(model["file"])), request)
    run = loaded.run
    await_quiet(request, root, events)
    too_warm_c = cool_down(request, root, events)
    window_s = max(LEAST_WINDOW_S, request["duration_s"] / MOST_WINDOWS)
    states, rows, load = [read_state(root)], [], read_load(root)
    with quiet():
        begun = last_progress_s = time.monotonic()
        while time.monotonic() - begun < request["duration_s"]:
            window = take_window(run, window_s, 1, request["threads"])
            states.append(read_state(root))
            rows.append(describe_window(time.monotonic() - begun, window, states[-2], states[-1]))
            if time.monotonic() - last_progress_s > SAY_S:
                last_progress_s = time.monotonic()
                events.progress(describe_row(model["name"], rows[-1], request["duration_s"]))
    conditions = {**describe_conditions(states, request["threads"], root), "too_warm_c": too_warm_c}
    conditions.update(share_load([describe_load(load, read_load(root))]))
    events.emit("result", name=model["name"], inputs=loaded.shapes, windows=rows, conditions=conditions)


def describe_window(at_s: float, window: Window, before: State, after: State) -> dict[str, Any]:
    """One window that ended `at_s` after the beginning: latencies in ns and the board at its end."""
    ordered = sorted(window.samples_ns)
    throttled = describe_throttled(before.throttle_bits, after.throttle_bits)
    if after.throttle_events > before.throttle_events:
        throttled.append("thermal throttling")
    return {
        "at_s": at_s,
        "count": len(ordered),
        "waited_share": None if window.waited_ns is None else window.waited_ns / window.wall_ns,
        "latency_ns": [ordered[percent * (len(ordered) - 1) // 100] for percent in PERCENTILES],
        "mhz": after.mhz,
        "temperature_c": after.temperature_c,
        "throttled": throttled,
    }


def describe_row(name: str, row: dict[str, Any], duration_s: float) -> str:
    """A window, for people."""
    more = [f"{row['mhz']:.0f} MHz"] if row["mhz"] else []
    more += [f"{row['temperature_c']:.1f} C"] if row["temperature_c"] is not None else []
    latency_ms = row["latency_ns"][1] / 1e6
    return ", ".join(
        [f"{name}: {row['at_s']:.0f} of {duration_s:.0f} s: {latency_ms:.4g} ms", *more, *row["throttled"]]
    )
