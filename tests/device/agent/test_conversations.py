"""Whatever a board answers is understood, or an error of ours that names the board: no traceback and no hang."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from conversations import (
    CONDITIONS,
    FACTS,
    HAVE,
    LEASE,
    MEASURED,
    METER,
    MODEL,
    MODEL_BYTES,
    OTHER,
    OUTPUTS,
    RELEASES,
    TAKEN,
    TARGET,
    WINDOW,
    WINDOWS,
    lines,
    open_board,
    told_by,
)
from device_models import QUICK, ignore
from fuzzing import JUNK, changed_often
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.cli.measure import _render_measurement
from edgeprune.core.measuring.measurement import add_energy
from edgeprune.core.measuring.sustained import render_sustained
from edgeprune.core.measuring.windows import fit_common_speed
from edgeprune.core.releasing.release import Release, find_release, render_releases
from edgeprune.device.agent.energy import check_meter, measure_energy
from edgeprune.device.agent.measure import evaluate_model, measure_models, measure_probes, push_models, sustain_model
from edgeprune.device.agent.nodes import profile_nodes
from edgeprune.device.board import ProbeSettings
from edgeprune.device.connect import Device, _gather
from edgeprune.device.lease import hold_lease, list_leases, reserve, unlock
from edgeprune.device.preparing.setup import Board, _verify
from edgeprune.device.preparing.site import Interpreter
from edgeprune.device.releasing.releases import activate_release, list_releases, prune_releases, push_release, roll_back
from edgeprune.device.releasing.signing import list_keys
from edgeprune.errors import DeviceError

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
