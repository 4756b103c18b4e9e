"""Whatever a board answers is understood, or an error of ours that names the board: no traceback and no hang."""

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
from fuzzing import JUNK, changed_often
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.cli_measure import _render_measurement
from edgeprune.core.measurement import add_energy
from edgeprune.core.release import Release, find_release, render_releases
from edgeprune.core.sustained import render_sustained
from edgeprune.core.target import PowerSource, Target
from edgeprune.core.windows import fit_common_speed
from edgeprune.device.agent import Agent
from edgeprune.device.board import ModelFile, ProbeSettings
from edgeprune.device.connect import Device, _gather
from edgeprune.device.energy import check_meter, measure_energy
from edgeprune.device.lease import hold_lease, list_leases, reserve, unlock
from edgeprune.device.measure import evaluate_model, measure_models, measure_probes, push_models, sustain_model
from edgeprune.device.nodes import profile_nodes
from edgeprune.device.releases import activate_release, list_releases, prune_releases, push_release, roll_back
from edgeprune.device.setup import Board, _verify
from edgeprune.device.signing import list_keys
from edgeprune.device.site import Interpreter
from edgeprune.device.transport import Completed
from edgeprune.errors import DeviceError, EdgepruneError

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

    def __init__(self, answers: dict[str, list[str]], said: str = "", content: bytes = b"") -> None:
        self.answers, self.said, self.content = answers, said, content

    def run(
        self, command: Sequence[str], *, stdin: bytes = b"", timeout_s: float, on_line: Callable[[str], None] = ignore
    ) -> Completed:
        if not command[-1].endswith(".pyz"):
            return Completed(0, self.said.encode(errors="replace"), "")
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
QUICK_PROBES = ProbeSettings()


def use_facts(device: Device) -> None:
    facts = _gather(device.agent, TARGET).facts
    json.dumps(facts.to_dict(), allow_nan=False)
    assert facts.cores >= 0
    assert len(facts.fingerprint) == 16


def use_measurement(device: Device) -> None:
    one = measure_models(device, [MODEL], 1, QUICK, ignore)["model"]
    assert _render_measurement(one)
    assert len(one.problems) < 9
    json.dumps(one.to_dict(), allow_nan=False)
    assert one.describe_processor()
    fit_common_speed({"model": one.windows})


def use_sustained(device: Device) -> None:
    run = sustain_model(device, MODEL, TARGET, 6.0, ignore)
    assert render_sustained(run)
    run.to_dict()
    run.conditions.describe()


def use_probes(device: Device) -> None:
    found = measure_probes(device, [MODEL], 1, QUICK_PROBES, ignore)
    assert fit_common_speed(found)["model"].latency_ms > 0


def use_energy(device: Device) -> None:
    energies = measure_energy(device, [MODEL], TARGET, ignore)
    measured = open_board("measure", lines(MEASURED))
    found = add_energy(measure_models(measured, [MODEL], 1, QUICK, ignore), energies)["model"]
    json.dumps(found.to_dict(), allow_nan=False)
    assert found.power


def use_lease(device: Device) -> None:
    with hold_lease(device.agent, "the tests", ignore):
        pass


def use_leases(device: Device) -> None:
    assert all(one.describe() for one in list_leases(device.agent))


def use_releases(device: Device) -> None:
    releases = list_releases(device.agent)
    assert render_releases(releases)
    find_release("0000", releases, "board")


CASES: dict[str, tuple[str, dict[str, Any], Callable[[Device], Any]]] = {
    "facts": ("facts", FACTS, use_facts),
    "facts after setup": (
        "facts",
        FACTS,
        lambda device: _verify(
            Board(device.transport, "/b", "python3", Interpreter((3, 11), "aarch64", "2.36"), ignore), "onnxruntime"
        ),
    ),
    "have": ("have", HAVE, lambda device: push_models(device, [MODEL, OTHER])),
    "measure": ("measure", MEASURED, use_measurement),
    "sustain": (
        "sustain",
        {"name": "model", "inputs": {"x": [1, 4]}, "windows": [WINDOW] * 7, "conditions": CONDITIONS},
        use_sustained,
    ),
    "probe": (
        "probe",
        {"windows": {"model": [[0, 1.0, 0.1, 0.0], [1, 2.0, 0.2, 0.1]]}, "others_cores": 0.1},
        use_probes,
    ),
    "evaluate": (
        "evaluate",
        {"outputs": OUTPUTS, "rows": 2},
        lambda device: evaluate_model(device, MODEL, np.zeros((2, 3), np.float32), ignore),
    ),
    "meter": (
        "meter",
        {"meter": METER, "problem": "", "arrivals": [[0.0, 0.0, 0.0], [1.0, 1.0, 2.5]]},
        lambda device: check_meter(device, TARGET),
    ),
    "energy": (
        "energy",
        {
            "meter": METER,
            "windows": WINDOWS,
            "arrivals": [[at / 20, at / 20, at / 20 + 2.0 * max(0, at - 40)] for at in range(120)],
            "lost": "",
        },
        use_energy,
    ),
    "nodes": (
        "nodes",
        {"nodes": [{"name": "a", "op": "Conv", "us": 3.5}]},
        lambda device: profile_nodes(device, MODEL, 1, ignore),
    ),
    "lease taken": ("lease", TAKEN, use_lease),
    "lease refused": ("lease", {"taken": False, "holder": LEASE}, use_lease),
    "leases": ("lease", {"leases": [LEASE]}, use_leases),
    "reserved": ("lease", TAKEN, lambda device: reserve(device.agent, "x", 60.0)),
    "unlock": ("lease", {"ended": [LEASE], "leases": [LEASE]}, lambda device: unlock(device.agent, "ada@desk")),
    "releases": ("release", {"releases": RELEASES}, use_releases),
    "push": (
        "release",
        {"there": False, "needed": 10, "free": 1000, "had": 3, "sha256": sha256(b"a m").hexdigest(), "part": "/b/p"},
        lambda device: push_release(device.agent, Release("{}", ""), MODEL_BYTES),
    ),
    "activate": ("release", {"folder": "/b/releases"}, lambda device: activate_release(device.agent, "0" * 16)),
    "rollback": ("release", {"folder": "/b", "releases": RELEASES}, lambda device: roll_back(device.agent)),
    "prune": ("release", {"removed": ["0" * 16]}, lambda device: prune_releases(device.agent, 1, ignore)),
    "keys": (
        "trust",
        {"file": "/etc/x", "keys": [{"key": "A", "name": "ada", "fingerprint": "SHA256:x"}]},
        lambda device: list_keys(device.agent),
    ),
}


@st.composite
def conversations(draw: st.DrawFn, row: dict[str, Any]) -> list[str]:
    """What an agent might say that is broken, of another version, or hostile."""
    made = draw(changed_often(row))
    said = lines(*([made if isinstance(made, dict) else {"x": made}] * draw(st.sampled_from([1, 1, 1, 1, 0, 2]))))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(said)))
        noise = st.text(max_size=20) | JUNK.map(json.dumps) | st.just('{"event": "mark", "at_s": 1e999}')
        said[at : at + draw(st.integers(0, 1))] = draw(st.lists(noise, max_size=2))
    return said


def told_by(use: Callable[[], Any]) -> str:
    """What an error of ours says; any other is a failure."""
    try:
        use()
    except EdgepruneError as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_no_answer_of_an_agent_is_a_traceback(name: str, data: st.DataObject) -> None:
    command, row, use = CASES[name]
    device = open_board(command, data.draw(conversations(row)))
    said = told_by(lambda: use(device))
    assert "board" in said or said == ""
    assert " ".join(said.split()).isprintable()


@pytest.mark.parametrize("name", CASES)
def test_what_an_agent_says_is_understood(name: str) -> None:
    """The answers that the fuzzing starts from are good ones."""
    command, row, use = CASES[name]
    if name == "lease refused":
        with pytest.raises(DeviceError, match="in use by ada@desk"):
            use(open_board(command, lines(row)))
    else:
        use(open_board(command, lines(row)))
