"""What each node of a model takes, as its runtime's own profiler sees it."""

from __future__ import annotations

from typing import Any

from edgeprune_agent.errors import AgentError
from edgeprune_agent.events import Events
from edgeprune_agent.files import find_place, read_checked
from edgeprune_agent.measure import keep_archive
from edgeprune_agent.occupancy import await_quiet
from edgeprune_agent.runtimes import find_runtime, import_runtime


def nodes(request: dict[str, Any], root: str, events: Events) -> None:
    """Profile one pushed model; the result has the nodes in the order in which they ran.

    Raises:
        AgentError: a runtime that does not tell its nodes apart, or one that is missing.
    """
    keep_archive(request)
    model = request["models"][0]
    runtime = find_runtime(model["runtime"])
    if not hasattr(runtime, "profile_nodes"):
        raise AgentError("request", f"{model['runtime']} runs a net as one node, and does not tell nodes apart")
    read_checked(model["file"])
    library = import_runtime(model["runtime"])
    await_quiet(request, root, events)
    rows, runs = runtime.profile_nodes(library, str(find_place(model["file"])), request, events)
    events.emit("result", nodes=rows, runs=runs)
