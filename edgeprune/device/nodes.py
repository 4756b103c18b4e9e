"""Ask a board's agent what each node of a model takes."""

from __future__ import annotations

from edgeprune.core.breakdown import NodeTime
from edgeprune.device.agent import call_agent
from edgeprune.device.connect import Device
from edgeprune.device.measure import ModelFile, Progress, push_models
from edgeprune.errors import RemoteError

SECONDS = 3.0


def profile_nodes(device: Device, model: ModelFile, threads: int, progress: Progress) -> tuple[NodeTime, ...]:
    """The nodes of a model in the order in which they run, as ONNX Runtime's profiler sees them.

    Raises:
        RuntimeMissing: the board lacks the runtime.
        DeviceError: a runtime that does not tell nodes apart, or anything else that goes wrong there.
    """
    request = {"command": "nodes", **push_models(device, [model]), "threads": threads, "seconds": SECONDS}
    (row,) = call_agent(device.agent, request, progress)
    try:
        return tuple(NodeTime(str(one["name"]), str(one["op"]), float(one["us"])) for one in row["nodes"])
    except (KeyError, TypeError, ValueError) as exc:
        raise RemoteError(f"{device.facts.host}: the profile of {model.name} is not whole: {exc!r}") from exc
