"""A board that gives prepared answers, for tests of what is understood of them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_models import QUICK, ignore

from edgeprune.core.target import PowerSource, Target
from edgeprune.device.agent.client import Agent
from edgeprune.device.board import ModelFile
from edgeprune.device.connect import Device, _gather
from edgeprune.device.transports.transport import Completed
from edgeprune.errors import EdgepruneError

TARGET = Target("rpi4", "a board of the tests", power=PowerSource("rapl"), protocol=QUICK)
MODEL_BYTES = b"a model"
SHA256 = sha256(MODEL_BYTES).hexdigest()
PACKED = io.BytesIO()
np.save(PACKED, np.zeros((2, 3), np.float32))
OUTPUTS = sha256(PACKED.getvalue()).hexdigest() + ".npy"
CONDITIONS = {
    "threads": 1, "affinity": [0, 1], "governor": "ondemand", "frequency_mhz": [600.0, 1500.0],
    "temperature_c": [48.2], "throttled": [], "load_average": [0.1, 0.2], "clock_resolution_ns": 1, "overhead_us": 0.1,
    "too_warm_c": None, "cores": 4, "others_cores": 0.02, "stolen_cores": None, "stalled_share": 0.0,
    "arithmetic_us": [70.0, 71.0],
}  # fmt: skip
MEASURED = {
    "name": "model", "init_ms": 3.1, "first_ms": 1.2, "peak_memory_mib": 30.5, "providers": {}, "warmup_runs": 9,
    "samples_ns": [1000, 1010, 990, 1005] * 8, "conditions": CONDITIONS, "inputs": {"x": [1, 3, 8, 8]},
    "cold_starts_ms": [[3.1, 1.2], [3.0, 1.3]], "windows": [
        {"process": at // 4, "at_ns": at, "count": 4, "wall_ns": 4010, "cpu_ns": 4000, "waited_ns": 9, "switches": 0}
        for at in range(8)
    ],
}  # fmt: skip
WINDOW = {
    "at_s": 1.0, "count": 9, "latency_ns": [1, 2, 3, 4], "mhz": 1500.0, "temperature_c": 50.1, "throttled": [],
    "waited_share": 0.01,
}  # fmt: skip
METER = {"name": "rapl", "kind": "rapl", "unit": "J", "poll_s": 0.1, "fresh": True, "step": 1e-6, "window_s": 1.0}
WINDOWS = [
    {"name": name, "begin_s": 2.0 * at, "end_s": 2.0 * at + 1.9, "count": 100 * bool(name)}
    for at, name in enumerate(["", "model", ""])
]
LEASE = {"name": "work", "owner": "ada@desk", "reason": "x", "token": "f", "left_s": 60.0, "client": {"pid": 1}}
TAKEN = {"taken": True, "replaced": LEASE, "path": "/b/lease-work.json"}
RELEASES = [
    {"id": "0" * 16, "whole": True, "current": True, "previous": False, "bytes": 7, "signature": "none",
     "manifest": {"target": "rpi4", "measured": {"latency_p50_ms": 1.5}}},
]  # fmt: skip
FACTS = {
    "machine": "aarch64", "model": "Raspberry Pi 4", "cpu": "4x Cortex-A72", "cores": 4, "cpu_flags": ["asimd"],
    "memory_mib": 3793, "os": "Debian", "kernel": "6.1", "python": "3.11.2", "max_mhz": 1500,
    "runtimes": {"onnxruntime": "1.31.1"}, "power_meter": "rapl",
}  # fmt: skip
HAVE = {"have": [f"{SHA256}.onnx"]}


class Echo:
    """A board whose agent says prepared lines; what its shell says is prepared too."""

    name, host, host_key = "ssh", "board", "SHA256:x"

    def __init__(self, answers: dict[str, list[str]], output: str = "", content: bytes = b"") -> None:
        self.answers, self.output, self.content = answers, output, content

    def run(
        self, command: Sequence[str], *, stdin: bytes = b"", timeout_s: float, on_line: Callable[[str], None] = ignore
    ) -> Completed:
        if not command[-1].endswith(".pyz"):
            return Completed(0, self.output.encode(errors="replace"), "")
        for line in self.answers[json.loads(stdin)["command"]]:
            on_line(line)
        return Completed(0, b"", "")

    def put(self, local: Path, remote: str) -> None:
        pass

    def get(self, remote: str, local: Path) -> None:
        local.write_bytes(self.content)

    def close(self) -> None:
        pass


def lines(*rows: dict[str, Any]) -> list[str]:
    """A conversation as agents have it."""
    return [json.dumps({"event": event} | row) for event, row in (*(("result", row) for row in rows), ("end", {}))]


def open_board(command: str, answer: list[str]) -> Device:
    """A board that answers one command so, and the others as it should."""
    answers = {"have": lines(HAVE), "lease": lines({**TAKEN, "leases": []}), "facts": lines(FACTS)}
    agent = Agent(Echo({**answers, command: answer}, content=PACKED.getvalue()), "python3", "/b/agent-0.pyz")
    good = Agent(Echo(answers), "python3", "/b/agent-0.pyz")
    facts = _gather(good, TARGET).facts
    return Device(agent.transport, facts, "/b", "python3", agent, TARGET.name)


MODEL = ModelFile.of(Path(json.__file__), "onnxruntime", "model")
OTHER = ModelFile.of(Path(pytest.__file__), "onnxruntime")


def told_by(use: Callable[[], Any]) -> str:
    """What an error of ours says; any other is a failure."""
    try:
        use()
    except EdgepruneError as exc:
        return str(exc)
    return ""
