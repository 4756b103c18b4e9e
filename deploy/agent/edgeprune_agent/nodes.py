"""What each node of a model takes, as ONNX Runtime's own profiler sees it."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from edgeprune_agent.errors import AgentError
from edgeprune_agent.events import Events
from edgeprune_agent.files import find_place, read_checked
from edgeprune_agent.measure import keep_archive
from edgeprune_agent.occupancy import await_quiet
from edgeprune_agent.providers import make_session
from edgeprune_agent.runtimes import import_runtime, make_feed

SUFFIX = "_kernel_time"
MOST_RUNS = 500
"""The profiler keeps a million events at most; a net has hundreds of nodes."""


def nodes(request: dict[str, Any], root: str, events: Events) -> None:
    """Profile one pushed model; the result has the nodes in the order in which they ran.

    Raises:
        AgentError: a runtime that does not tell its nodes apart, or one that is missing.
    """
    keep_archive(request)
    model = request["models"][0]
    if model["runtime"] != "onnxruntime":
        raise AgentError("request", f"{model['runtime']} runs a net as one node; only onnxruntime tells nodes apart")
    read_checked(model["file"])
    ort = import_runtime(model["runtime"])
    await_quiet(request, root, events)
    with tempfile.TemporaryDirectory() as folder:
        session = make_session(ort, str(find_place(model["file"])), request, str(Path(folder) / "profile"))
        feed, end, runs = make_feed(session, request), time.monotonic() + request["seconds"], 0
        while runs < 3 or (time.monotonic() < end and runs < MOST_RUNS):
            session.run(None, feed)
            runs += 1
            events.alive()
        profile = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    events.emit("result", nodes=gather_nodes(profile), runs=runs)


def gather_nodes(profile: Any) -> list[dict[str, Any]]:
    """Name, operator and microseconds of each node: the mean of the faster half of its runs, as it tells whole ones."""
    taken: dict[tuple[str, str], list[float]] = {}
    for event in profile if isinstance(profile, list) else ():
        if isinstance(event, dict) and event.get("cat") == "Node" and str(event.get("name", "")).endswith(SUFFIX):
            name = str(event["name"])[: -len(SUFFIX)]
            operator = str((event.get("args") or {}).get("op_name", "?"))
            taken.setdefault((name, operator), []).append(float(event.get("dur", 0)))
    return [{"name": name, "op": op, "us": mean_of_faster(values)} for (name, op), values in taken.items()]


def mean_of_faster(values: list[float]) -> float:
    """The mean of the lower half."""
    half = sorted(values)[: max(1, len(values) // 2)]
    return sum(half) / len(half)
