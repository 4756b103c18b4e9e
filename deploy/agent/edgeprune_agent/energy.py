"""The energy run: each model in a loop between two rests, while a meter is read; what it means is worked out later."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ContextManager

from edgeprune_agent.errors import AgentError, first_line
from edgeprune_agent.events import Events
from edgeprune_agent.files import read_checked
from edgeprune_agent.measure import keep_archive
from edgeprune_agent.meter import Meter
from edgeprune_agent.occupancy import await_quiet, describe_load, read_load, share_load
from edgeprune_agent.power import Log, choose_meter, following, sampling
from edgeprune_agent.timing import quiet
from edgeprune_agent.turns import load_all

if TYPE_CHECKING:
    from edgeprune_agent.turns import Run

MARGIN_S = 0.3
"""Before and after each window the board does the same as in it: meters and clocks settle, no edge is averaged in."""
MARGIN_POLLS = 2
SLICE_S = 2.0
TRY_S, TRY_SPAN_S = 5.0, 1.0
COMMAND = "command"
ELSEWHERE = "elsewhere"


def meter(request: dict[str, Any], root: str, events: Events) -> None:
    """Find a meter and read it for a moment; the result says what it is and what it read, or why it cannot be read."""
    source, problem, log = None, "", Log()
    try:
        if request["meter"] == COMMAND:
            log = read_for(following(request["run"]))
            problem = "" if log.arrivals else log.lost or "the command says nothing; expected lines of seconds,watts"
        else:
            source = choose_meter(root, request["meter"], request["sensor"])
            if source is not None:
                source.read()
                log = read_for(sampling(source))
                problem = log.lost
    except (OSError, ValueError, AgentError) as exc:
        problem = first_line(exc)
    events.emit("result", meter=source.describe() if source else None, problem=problem, arrivals=log.arrivals)


def read_for(readings: ContextManager[Log]) -> Log:
    """What a meter says until that can be judged, or too long nothing comes."""
    with readings as log:
        deadline = time.monotonic() + TRY_S
        while time.monotonic() < deadline and not log.lost:
            if len(log.arrivals) > 1 and log.arrivals[-1][0] - log.arrivals[0][0] > TRY_SPAN_S:
                break
            time.sleep(0.05)
    return log


def energy(request: dict[str, Any], root: str, events: Events) -> None:
    """Loop every model of the request; one result with the windows, and the readings unless they are taken elsewhere.

    Each edge of a window is also an event "mark" with its time, for a meter that another clock reads.
    """
    keep_archive(request)
    await_quiet(request, root, events)
    for model in request["models"]:
        read_checked(model["file"])
    source = None
    if request["meter"] not in (COMMAND, ELSEWHERE):
        source = choose_meter(root, request["meter"], request["sensor"])
        if source is None:
            raise AgentError("meter", f"no power sensor ({request['meter']})")
    loaded = load_all({**request, "archive": None}, events)
    runs = {name: model.run for name, model in loaded.items()}
    pace = set_pace(request, source)
    readings = following(request["run"]) if request["meter"] == COMMAND else sampling(source)
    with quiet(), readings as log:
        windows = run_windows(runs, pace, events)
    events.emit(
        "result",
        meter=source.describe() if source else None,
        windows=windows,
        arrivals=log.arrivals,
        lost=log.lost,
    )


def set_pace(request: dict[str, Any], source: Meter | None) -> tuple[float, float]:
    """Length of a model's window, and the margin before and after it, in seconds."""
    poll_s, least_s = (source.poll_s, source.window_s) if source else (request["poll_s"], request["least_s"])
    return max(request["seconds"], least_s), max(MARGIN_S, MARGIN_POLLS * poll_s)


def run_windows(runs: dict[str, Run], pace: tuple[float, float], events: Events) -> list[dict[str, Any]]:
    """A rest, then each model and another rest; a rest is half as long as a model's window."""
    window_s, margin_s = pace
    windows = [take_window("", rest, (window_s / 2, margin_s), events)]
    for number, (name, run) in enumerate(runs.items(), 1):
        place = f" (model {number} of {len(runs)})" if len(runs) > 1 else ""
        events.progress(f"energy of {name}: {window_s:.3g} s{place}")
        windows.append(take_window(name, loop(run), (window_s, margin_s), events))
        windows.append(take_window("", rest, (window_s / 2, margin_s), events))
    return windows


def take_window(name: str, work: Callable[[float], int], pace: tuple[float, float], events: Events) -> dict[str, Any]:
    """One window of work; what is done in the margins is not counted."""
    window_s, margin_s = pace
    work(margin_s)
    begin_s, count, load = mark(events), 0, read_load("")
    while time.perf_counter() - begin_s < window_s:
        count += work(min(SLICE_S, max(0.0, window_s - (time.perf_counter() - begin_s))))
        events.alive()
    end_s, others = mark(events), share_load([describe_load(load, read_load(""))])["others_cores"]
    work(margin_s)
    window = {"name": name, "begin_s": begin_s, "end_s": end_s, "count": count}
    return {**window, "others_cores": others, "cores": os.cpu_count() or 0}


def mark(events: Events) -> float:
    """Tell the time."""
    now = time.perf_counter()
    events.emit("mark", at_s=now)
    return now


def rest(seconds: float) -> int:
    """Do nothing for so long."""
    time.sleep(seconds)
    return 0


def loop(run: Run) -> Callable[[float], int]:
    """Work that infers for so many seconds, at least once, and counts how often."""

    def work(seconds: float) -> int:
        end, count = time.perf_counter() + seconds, 0
        while not count or time.perf_counter() < end:
            run()
            count += 1
        return count

    return work
