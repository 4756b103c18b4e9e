"""The execution providers of ONNX Runtime: asked for by name, checked to be there, and which nodes each really ran."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from edgeprune_agent.errors import AgentError

CPU = "CPUExecutionProvider"
NAMES = {
    "cpu": CPU,
    "xnnpack": "XnnpackExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
BACKUPS = {"tensorrt": ("cuda",)}
"""What runs those nodes that a provider leaves, before the CPU does (the page of TensorRT at onnxruntime.ai)."""


def choose_providers(ort: Any, request: dict[str, Any]) -> list[Any]:
    """Providers for a session, the wanted one first, with their options.

    Raises:
        AgentError: this build of ONNX Runtime does not have it, and no other may run instead.
    """
    provider = request.get("provider", "cpu")
    if provider not in NAMES:
        raise AgentError("request", f"unknown provider {provider!r}; expected {', '.join(NAMES)}")
    available = ort.get_available_providers()
    if NAMES[provider] not in available and not request.get("allow_fallback"):
        raise AgentError(
            "runtime",
            f"onnxruntime {ort.__version__} has no {NAMES[provider]} (only {', '.join(available)}); install a build "
            'that has it, or set provider = "cpu", or allow_fallback = true',
        )
    names = [NAMES[key] for key in (provider, *BACKUPS.get(provider, ()), "cpu")]
    options = {NAMES["xnnpack"]: {"intra_op_num_threads": str(request["threads"])}}
    return [(name, options.get(name, {})) for name in dict.fromkeys(names) if name in available]


def make_session(ort: Any, model: str | bytes, request: dict[str, Any], profile: str = "") -> Any:
    """A session on the provider that is asked for, one operator after the other; `profile` begins its profile's name.

    Raises:
        AgentError: the provider is not there, or did not start.
    """
    options, provider = ort.SessionOptions(), request.get("provider", "cpu")
    options.intra_op_num_threads, options.inter_op_num_threads = request["threads"], 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    if provider == "xnnpack":  # it has threads of its own (ONNX Runtime's documents)
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    session = ort.InferenceSession(model, options, providers=choose_providers(ort, request))
    if NAMES[provider] not in session.get_providers() and not request.get("allow_fallback"):
        raise AgentError(
            "runtime",
            f"{NAMES[provider]} is in onnxruntime {ort.__version__}, but did not start (its libraries are missing or "
            f"of another version?); it would run on {', '.join(session.get_providers())}; allow_fallback = true allows "
            "it",
        )
    return session


def count_nodes(profile: Any) -> dict[str, dict[str, int]]:
    """How many nodes of each operator each provider ran, from a profile of one inference, read from its JSON.

    What a provider has fused counts as one node; copies between host and device, which no model has, do not count.
    """
    counts: dict[str, dict[str, int]] = {}
    for event in profile if isinstance(profile, list) else ():
        if not isinstance(event, dict) or event.get("cat") != "Node":
            continue
        details = event.get("args")
        if not str(event.get("name", "")).endswith("_kernel_time") or not isinstance(details, dict):
            continue
        name = str(details.get("op_name", "?"))
        if name.startswith("Memcpy"):
            continue
        operators = counts.setdefault(str(details.get("provider") or CPU), {})
        operators[name] = operators.get(name, 0) + 1
    return counts


def find_shares(ort: Any, model: str, request: dict[str, Any], feed: dict[str, Any]) -> dict[str, float]:
    """The share of the nodes that each provider ran, from an inference that is profiled.

    Raises:
        AgentError: the CPU ran some, which was not allowed.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = make_session(ort, model, request, str(Path(folder) / "profile"))
        session.run(None, feed)
        profile = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    counts = count_nodes(profile)
    check_fallback(counts, request)
    total = sum(sum(operators.values()) for operators in counts.values())
    return {name: sum(operators.values()) / total for name, operators in counts.items()}


def check_fallback(counts: dict[str, dict[str, int]], request: dict[str, Any]) -> None:
    """Require that the CPU ran no node that another provider was asked to run.

    Raises:
        AgentError: it did, and may not; with the operators.
    """
    provider, on_cpu = request.get("provider", "cpu"), counts.get(CPU, {})
    if provider == "cpu" or request.get("allow_fallback") or not on_cpu:
        return
    total = sum(sum(operators.values()) for operators in counts.values())
    names = ", ".join(f"{count} {name}" for name, count in sorted(on_cpu.items()))
    raise AgentError(
        "model",
        f"{sum(on_cpu.values())} of {total} nodes fell back to the CPU from {NAMES[provider]} ({names}); "
        "allow_fallback = true allows it, and their share is reported",
    )
