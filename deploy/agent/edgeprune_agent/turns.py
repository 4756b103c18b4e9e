"""Processes that take turns: each loads every model, and times windows of them in random order, round after round.

What varies between processes (where memory lies) and over seconds (clocks, heat, neighbours) is so seen in every model
alike; the caller fits the common speed of the board over all windows, and a figure for each model.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from random import Random
from threading import Timer
from typing import TYPE_CHECKING, Any

from edgeprune_agent.errors import AgentError
from edgeprune_agent.events import Events
from edgeprune_agent.files import find_place, read_archive
from edgeprune_agent.occupancy import describe_load, read_load
from edgeprune_agent.runtimes import Loaded, load_model
from edgeprune_agent.shapes import ONLY
from edgeprune_agent.timing import Window, do_arithmetic, quiet, settle, take_window, time_runs, warm_up

ARITHMETIC = ""
"""The name of the windows of a fixed piece of arithmetic; no model is called so."""
AGAIN = 0.5
"""Disturbed windows are taken again in so many more rounds at most, as a share of the rounds."""
PASSED_ON = ("runtime", "threads", "provider", "allow_fallback", "shapes", "several")
"""What of a request every process of its own is told too."""
ARITHMETIC_S = 0.002
LONGEST_S = 86400.0

if TYPE_CHECKING:
    Run = Callable[[], Any]
    Row = dict[str, Any]
    """A JSON object."""


def call_process(request: Row, parent_request: Row, limit_s: float = math.inf) -> Iterator[Row]:
    """The events of this agent in a fresh process, as they come; `parent_request` is the one that it belongs to.

    Raises:
        AgentError: what that process said, how it ended, or that it did not within `limit_s`.
    """
    passed = {name: parent_request[name] for name in PASSED_ON if name in parent_request}
    command, last = [sys.executable, "-I", "-B", *sys.argv], ""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = Timer(min(limit_s, LONGEST_S), process.kill)
        begun = time.monotonic()
        watchdog.start()
        try:
            process.stdin.write(json.dumps({**passed, **request}))
            process.stdin.close()
            for line in process.stdout:
                event = json.loads(line)
                last = event["event"]
                if last == "error":
                    raise AgentError(event["kind"], event["message"])
                yield event
        finally:
            watchdog.cancel()
            process.kill()
    if last != "end":
        slow = time.monotonic() - begun >= limit_s
        raise AgentError("model", f"not done within {limit_s:g} s" if slow else describe_end(process.returncode))


def describe_end(code: int) -> str:
    """How a process ended that did not finish."""
    return f"its process ended by {f'signal {-code}' if code < 0 else f'exit code {code}'} (out of memory?)"


def take_turns(
    request: Row, pace: Row, events: Events, between: Callable[[], None] = lambda: None
) -> tuple[list[Row], list[Row]]:
    """Time the models of a request in `pace["processes"]` processes; gives all windows, and what each process tells.

    `pace` has the `rounds` of each process, how many of them are begun also when its `budget_s` is over; of each window
    its `window_s`, `at_least` so many runs, at `most` so many samples kept; `warmup_s` of each model, 0 for one window.
    What is said of it begins with its `place`, where it has one.

    Raises:
        AgentError: a process could not load or run a model.
    """
    windows: list[Row] = []
    processes: list[Row] = []
    payload = {name: request[name] for name in ("models", "archive", "sizes")}
    for number in range(pace["processes"]):
        place = f"{pace.get('place', '')}process {number + 1} of {pace['processes']}"
        count = len(request["models"])
        events.progress(f"{place}: loading {count} model{'s' if count > 1 else ''}")
        for event in call_process({"command": "turns", "process": number, **payload, **pace}, request):
            if event["event"] == "window":
                windows.append({**event, "process": number})
            elif event["event"] == "result":
                processes.append(event)
            elif event["event"] == "progress":
                events.progress(f"{place}, {event['text']}")
            events.alive()
        between()
    return windows, processes


def turns(request: Row, root: str, events: Events) -> None:
    """In a fresh process: every window is an event; the result has warm-up runs, input shapes and the board's load."""
    loaded = load_all(request, events)
    runs: dict[str, Run] = {name: model.run for name, model in loaded.items()}
    with quiet():
        warmups = {name: warm(run, request, events) for name, run in runs.items()}
        before = read_load(root)
        run_rounds({**runs, ARITHMETIC: do_arithmetic}, request, events)
        load = describe_load(before, read_load(root))
    events.emit("result", warmups=warmups, shapes={name: model.shapes for name, model in loaded.items()}, load=load)


def load_all(request: Row, events: Events) -> dict[str, Loaded]:
    """Load every model of a request by name, from the archive that came with it, or from where it lies."""
    packed = dict(read_archive(request["archive"], request["sizes"])) if request["archive"] else {}
    loaded = {}
    for model in request["models"]:
        source = packed.get(model["file"], str(find_place(model["file"])))
        loaded[model["name"]] = load_model(model["runtime"], source, request)
        events.alive()
    inputs = {name for model in loaded.values() for name in model.shapes}
    unknown = [name for name in request.get("shapes") or {} if name not in (ONLY, *inputs)]
    if unknown:
        raise AgentError("request", f"shape: no input {unknown[0]!r}; the inputs are {', '.join(sorted(inputs))}")
    return loaded


def warm(run: Run, request: Row, events: Events) -> int:
    """Warm one model up; gives its number of runs."""
    events.alive()
    if request["warmup_s"]:
        return warm_up(run, request["warmup_s"])
    return len(time_runs(run, request["window_s"], request["at_least"]))


def run_rounds(runs: dict[str, Run], request: Row, events: Events) -> None:
    """A window of every model a round, in an order drawn anew each time; disturbed ones are taken again at the end.

    A round begins only while `budget_s` lasts, but `least_rounds` always do.
    """
    random, rounds, end = Random(request["process"]), request["rounds"], time.monotonic() + request["budget_s"]
    disturbed = dict.fromkeys(runs, 0)
    for turn in range(rounds):
        if turn >= request["least_rounds"] and time.monotonic() > end:
            break
        for name in random.sample(list(runs), len(runs)):
            disturbed[name] += time_model(name, runs[name], request, events).is_disturbed
        events.progress_slowly(f"round {turn + 1} of {rounds}")
    for _ in range(int(AGAIN * rounds)):
        again = [name for name, count in disturbed.items() if count > 0]
        for name in random.sample(again, len(again)):
            disturbed[name] -= not time_model(name, runs[name], request, events).is_disturbed


def time_model(name: str, run: Run, request: Row, events: Events) -> Window:
    """Take and tell one window of a model."""
    window_s = request["window_s"] if name else min(request["window_s"], ARITHMETIC_S)
    settle(run, request["threads"])
    window = take_window(run, window_s, request["at_least"], request["threads"])
    most = max(request["at_least"], request["most"])
    events.emit("window", model=name, **window._replace(samples_ns=thin(window.samples_ns, most))._asdict())
    return window


def thin(samples: list[int], most: int) -> list[int]:
    """Every n-th sample, so that at most so many are kept."""
    return samples[:: math.ceil(len(samples) / most)]
