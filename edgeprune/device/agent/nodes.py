"""Ask a board's agent what each node of a model takes."""

from __future__ import annotations

from edgeprune.core.answers import number, text
from edgeprune.core.latency.breakdown import NodeTime
from edgeprune.device.agent.client import ask_agent, understood
from edgeprune.device.agent.measure import push_models
from edgeprune.device.board import ModelFile, Progress
from edgeprune.device.connect import Device

SECONDS = 3.0


def profile_nodes(device: Device, model: ModelFile, threads: int, progress: Progress) -> tuple[NodeTime, ...]:
    """The nodes of a model in the order in which they run, as ONNX Runtime's profiler sees them.

    Raises:
        RuntimeMissing: the board lacks the runtime.
        DeviceError: a runtime that does not tell nodes apart, or anything else that goes wrong there.
    """
    request = {"command": "nodes", **push_models(device, [model]), "threads": threads, "seconds": SECONDS}
    row = ask_agent(device.agent, request, progress)
    with understood(device.facts.host, f"the profile of {model.name}"):
        return tuple(NodeTime(text(node["name"]), text(node["op"]), number(node["us"])) for node in row["nodes"])
