"""ONNX Runtime, one operator after the other, inputs and outputs bound."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from edgeprune_agent.errors import AgentError
from edgeprune_agent.events import Events
from edgeprune_agent.providers import find_shares, make_session
from edgeprune_agent.runtimes import Loaded
from edgeprune_agent.shapes import settle_shapes
from edgeprune_agent.values import make_input, quantize, require_inputs

FORMAT = "onnx"
PACKAGES = {"onnxruntime": "onnxruntime"}
SUFFIX = "_kernel_time"
MOST_RUNS = 500
"""The profiler keeps a million events at most; a net has hundreds of nodes."""


def load(ort: Any, model: str | bytes, request: dict[str, Any]) -> Loaded:
    """A model, from its file or its content, with repeatable inputs in place."""
    session = make_session(ort, model, request)
    binding, feed = session.io_binding(), make_feed(session, request)
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for value in session.get_outputs():
        binding.bind_output(value.name)
    require_inputs(session.get_inputs())
    source, result = session.get_inputs()[0], session.get_outputs()[0].name
    detail = {"dtype": onnx_dtype(source.type), "quantization": (0.0, 0)}

    def predict(row: Any) -> Any:
        return session.run([result], {source.name: quantize(row, detail)})[0]

    shapes = {name: tuple(array.shape) for name, array in feed.items()}
    return Loaded(lambda: session.run_with_iobinding(binding), predict, shapes)


def make_feed(session: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Repeatable inputs of an ONNX Runtime session by name, of the shapes that a request gives where they are open.

    Raises:
        AgentError: an open size that nothing says, or a shape that does not fit.
    """
    inputs = session.get_inputs()
    declared = {value.name: value.shape for value in inputs}
    shapes = settle_shapes(declared, request.get("shapes") or {}, bool(request.get("several")))
    return {value.name: make_input(shapes[value.name], onnx_dtype(value.type)) for value in inputs}


def share_nodes(ort: Any, model: str, request: dict[str, Any]) -> dict[str, float]:
    """The share of the nodes that each execution provider ran; empty where the CPU alone was asked for.

    Raises:
        AgentError: the CPU ran some that it should not.
    """
    if request.get("provider", "cpu") == "cpu":
        return {}
    return find_shares(ort, model, request, make_feed(make_session(ort, model, request), request))


def onnx_dtype(kind: str) -> str:
    """The numpy name of ONNX Runtime's `tensor(float)`.

    Raises:
        AgentError: an input of it cannot be made up.
    """
    if not kind.startswith("tensor(") or kind == "tensor(string)":
        raise AgentError("model", f"it takes a {kind}, and only tensors of numbers can be made up to time it by")
    name = kind[len("tensor(") : -1]
    return {"float": "float32", "double": "float64"}.get(name, name)


def profile_nodes(ort: Any, model: str, request: dict[str, Any], events: Events) -> tuple[list[dict[str, Any]], int]:
    """Name, operator and microseconds of each node of a model, in the order in which they ran, and in how many runs."""
    with tempfile.TemporaryDirectory() as folder:
        session = make_session(ort, model, request, str(Path(folder) / "profile"))
        feed, end, runs = make_feed(session, request), time.monotonic() + request["seconds"], 0
        while runs < 3 or (time.monotonic() < end and runs < MOST_RUNS):
            session.run(None, feed)
            runs += 1
            events.alive()
        profile = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    return gather_nodes(profile), runs


def gather_nodes(profile: Any) -> list[dict[str, Any]]:
    """Name, operator and microseconds of each node: the mean of the faster half of its runs, as it tells whole ones."""
    durations: dict[tuple[str, str], list[float]] = {}
    for event in profile if isinstance(profile, list) else ():
        if isinstance(event, dict) and event.get("cat") == "Node" and str(event.get("name", "")).endswith(SUFFIX):
            name = str(event["name"])[: -len(SUFFIX)]
            operator = str((event.get("args") or {}).get("op_name", "?"))
            durations.setdefault((name, operator), []).append(float(event.get("dur", 0)))
    return [{"name": name, "op": op, "us": mean_of_faster(values)} for (name, op), values in durations.items()]


def mean_of_faster(values: list[float]) -> float:
    """The mean of the lower half."""
    half = sorted(values)[: max(1, len(values) // 2)]
    return sum(half) / len(half)
