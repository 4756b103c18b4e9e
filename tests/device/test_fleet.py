"""Many boards at once, as several SSH servers of this machine."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from device_models import QUICK, make_model
from places import SUPPORT
from recorded import record_run
from release_board import make_run
from ssh_server import SshServer, why_not

from edgeprune.cli.releases import fleet as fleet_command
from edgeprune.cli.releases import release as release_command
from edgeprune.core.artifact import Artifact
from edgeprune.core.latency.correction import Correction
from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.metric import TOP1
from edgeprune.core.planning.limits import Costs
from edgeprune.core.planning.plan import PruningPlan
from edgeprune.core.target import Target
from edgeprune.device import lease as leases
from edgeprune.device.agent.measure import measure_models
from edgeprune.device.board import ModelFile
from edgeprune.device.connect import open_agent, open_device
from edgeprune.device.fleet import ask_boards
from edgeprune.device.lease import reserve
from edgeprune.device.transports.lookup import resolve_boards
from edgeprune.errors import DeviceError, EdgepruneError, TargetError
from edgeprune.stages.results import Exported, Fitted, Measured, Profiled, Traced

NAMES = ("b1", "b2", "b3")
GATES = """
[[gates]]
metric = "file_bytes"
at_most = 100000

[[gates]]
metric = "accuracy_percent"
at_least = 1
"""
RECIPE = """
import torch
from torch import nn
def rows():
    return [(torch.randn(50, 24, generator=torch.Generator().manual_seed(1)), torch.arange(50) % 8)]
model = lambda: nn.Linear(24, 8)
train_data = eval_data = calibration_data = rows
"""


@pytest.fixture
def boards(no_devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, SshServer]]:
    """Three boards, which the first one's home knows as b1 to b3, group `lab`; and `gone`, which is none."""
    if why_not():
        pytest.skip(why_not())
    servers = {name: SshServer(tmp_path / name) for name in NAMES}
    home = servers["b1"].home
    monkeypatch.setenv("HOME", str(home))
    lines, known = [], []
    for name, server in servers.items():
        server.lend_runtimes()
        shutil.copy(home / ".ssh" / "key.pub", server.folder / "authorized_keys")
        known.append(server.known_hosts.read_text())
        lines.append(f'[devices.{name}]\nhost = "127.0.0.1:{server.port}"')
        server.start()
    servers["b1"].known_hosts.write_text("".join(known))
    servers["b1"].write_client_config(f"Host 127.0.0.1\nIdentityFile {home}/.ssh/key\nIdentitiesOnly yes\n")
    config = home / ".config" / "edgeprune"
    config.mkdir(parents=True)
    lines += ['[devices.gone]\nhost = "127.0.0.1:1"', '[groups]\nlab = ["b1", "b2", "b3"]\nmost = ["b1", "gone"]']
    (config / "devices.toml").write_text("\n".join(lines))
    yield servers
    for server in servers.values():
        server.stop()


def board_of(server: SshServer) -> Path:
    return server.board / ".cache" / "edgeprune" / "board"


# who


def test_groups_names_and_addresses_become_boards(boards: dict[str, SshServer]) -> None:
    assert resolve_boards("lab") == NAMES
    assert resolve_boards(" b3,lab , b3,pi@x:22,") == ("b3", "b1", "b2", "pi@x:22")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" , ", "names no board"),
        ("b1,a b", "'a b' is not an address"),
        ("b1,most", ""),
        ("b1,127.0.0.1:{b1}", "b1 and 127.0.0.1:{b1} are the same board"),
    ],
)
def test_what_names_no_boards_is_refused(boards: dict[str, SshServer], text: str, said: str) -> None:
    port = str(boards["b1"].port)
    text, said = text.replace("{b1}", port), said.replace("{b1}", port)
    if not said:
        assert resolve_boards(text) == ("b1", "gone")
        return
    with pytest.raises(TargetError, match=f"--hosts: .*{said}"):
        resolve_boards(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("groups = 3", "groups: expected a table"),
        ("[groups]\nlab = []", "groups.lab: expected names of devices"),
        ("[groups]\nlab = 'a'", "groups.lab: expected names of devices"),
        ("[groups]\nlab = [1]", "groups.lab: expected names of devices"),
        ("[groups]\na = ['a b']", "groups.a: 'a b' is not an address"),
        ("[groups]\na = ['b']\nb = ['c']", "groups.a: b is a group; expected devices"),
        ("[devices.a]\nhost = 'x'\n[groups]\na = ['b']", "groups.a: is a device's name too"),
        ("[group]\na = ['b']", "unknown key 'group'; did you mean 'groups'"),
    ],
)
def test_a_group_that_is_not_valid_says_where(no_devices: Path, text: str, said: str) -> None:
    config = no_devices / ".config" / "edgeprune"
    config.mkdir(parents=True)
    (config / "devices.toml").write_text(text)
    with pytest.raises(TargetError, match=r"devices\.toml: ") as caught:
        resolve_boards("a")
    assert said in str(caught.value)


# at once


def test_so_many_are_at_work_at_once_and_no_more() -> None:
    """Two meet at a barrier, which one alone could not pass; a third one would break it."""
    meet, inside, most = threading.Barrier(2, timeout=60), 0, 0
    guard = threading.Lock()

    def work(host: str) -> str:
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
        meet.wait()
        with guard:
            inside -= 1
        return host.upper()

    answers = list(ask_boards([f"b{i}" for i in range(6)], work, 2))
    assert sorted(str(one.value) for one in answers) == [f"B{i}" for i in range(6)]
    assert most == 2


def test_a_board_that_fails_is_an_answer_and_a_mistake_of_ours_is_not() -> None:
    def work(host: str) -> str:
        if host == "gone":
            raise DeviceError("gone: refused")
        return host

    answers = {one.host: one for one in ask_boards(["a", "gone"], work)}
    assert (answers["a"].value, answers["gone"].value) == ("a", None)
    assert str(answers["gone"].error) == "gone: refused"
    with pytest.raises(ZeroDivisionError):
        list(ask_boards(["a"], lambda host: str(1 // 0)))


# releases


def test_a_release_goes_to_every_board_that_answers(boards: dict[str, SshServer], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    words = ["push", "--run", str(run), "--target", "local", "--at-once", "2"]
    done = CliRunner().invoke(release_command, [*words, "--hosts", "lab,gone", "--activate"])
    assert done.exit_code == 1, done.output
    assert "edgeprune: 1 of 4 boards do not have it; run the same command again to resume" in done.output
    assert done.output.count("; active; there: ") == 3
    assert "failed: 127.0.0.1:1 (127.0.0.1, port 1): refused" in done.output
    active = {(board_of(server) / "releases" / "current").readlink() for server in boards.values()}
    assert len(active) == 1
    done = CliRunner().invoke(release_command, [*words, "--hosts", "lab"])
    assert done.exit_code == 0, done.output
    assert done.output.count(" 0 bytes sent, ") == 3


def test_a_board_is_named_once(boards: dict[str, SshServer], tmp_path: Path) -> None:
    words = ["push", "--run", str(make_run(tmp_path / "run")), "--target", "local", "--host", "b1", "--hosts", "lab"]
    assert "--host or --hosts, not both" in str(CliRunner().invoke(release_command, words).exception)


# measured


def measured_run(folder: Path) -> Path:
    """A run directory as the line leaves it once it has measured, of a wide layer and a narrow one."""
    (folder / "artifacts").mkdir(parents=True)
    models, artifacts = [], []
    for role, width in (("original", 96), ("pruned", 8)):
        made = make_model(folder / "artifacts", "onnxruntime", LayerShape("linear", 24, width))
        artifact = Artifact(
            f"artifacts/{made.path.name}", role, "onnx", "fp32", made.path.stat().st_size, made.sha256, (), ()
        )
        models.append(ModelFile(artifact.name, made.path, made.sha256, "onnxruntime"))
        artifacts.append(artifact)
    with open_device(Target("local", "this machine"), "local") as device:
        measured = measure_models(device, models, 1, QUICK, lambda text: None)
        facts = device.facts
    gates = folder / "gates.toml"
    gates.write_text(GATES)
    (folder / "recipe.py").write_text(RECIPE)
    request = {
        "target": str(SUPPORT / "targets" / "quick.toml"), "host": None, "latency_ms": 1e6, "speedup": None,
        "recipe": str(folder / "recipe.py"), "runtime": None, "precision": None, "threads": None,
        "gates": str(gates),
    }  # fmt: skip
    costs = Costs(1, 4, 1, 4)
    stages = {
        "trace": Traced(metric=TOP1.to_dict(), quality=90.0),
        "profile": Profiled(baseline_ms=1.0, baseline_predicted_ms=1.0, device=facts, correction=Correction()),
        "fit": Fitted(plan=PruningPlan((), predicted_ms=1.0)),
        "export": Exported(artifacts=tuple(artifacts), costs={one.name: costs for one in models}),
        "measure": Measured(quality={one.name: 90.0 for one in models}, samples=10),
    }
    (folder / "measurements.json").write_text(json.dumps({name: one.to_dict() for name, one in measured.items()}))
    made = {"measure": ["measurements.json"], "export": [artifact.path for artifact in artifacts]}
    return record_run(folder, request, stages, made)


def top1_percent(model: Path) -> float:
    """What the recipe's rows give in the runtime of this machine."""
    session, (inputs, targets) = onnxruntime.InferenceSession(model), make_rows()
    (source,) = session.get_inputs()
    found = [session.run(None, {source.name: row[None]})[0][0].argmax() for row in inputs]
    return 100 * float(np.mean(np.array(found) == targets))


def make_rows() -> tuple[np.ndarray, np.ndarray]:
    content: dict[str, Any] = {}
    exec(RECIPE, content)
    ((inputs, targets),) = content["rows"]()
    return inputs.numpy(), targets.numpy()


def test_a_gate_on_energy_needs_a_meter_on_every_board(boards: dict[str, SshServer], tmp_path: Path) -> None:
    run = measured_run(tmp_path / "run")
    (run / "gates.toml").write_text('[[gates]]\nmetric = "energy_mj"\nat_most = 1\n')
    done = CliRunner().invoke(fleet_command, ["--run", str(run), "--hosts", "b1,b2"])
    if done.exit_code != 1:
        pytest.skip("this machine has a power meter")
    assert "a gate on energy_mj, but 127.0.0.1:" in str(done.exception)
    assert not (run / "fleet.json").exists()


@pytest.mark.slow
def test_a_fleet_is_measured_and_judged_by_the_board_that_was_named(
    boards: dict[str, SshServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = measured_run(tmp_path / "run")
    with monkeypatch.context() as patch, open_agent("local", "b3", "") as agent:
        patch.setattr(leases, "describe_owner", lambda: "ben@elsewhere")
        reserve(agent, "soak test", 3600)

    def call(*words: str) -> tuple[dict[str, dict[str, object]], dict[str, object], str]:
        done = CliRunner().invoke(fleet_command, ["--run", str(run), "--hosts", "lab,gone", "--allow-busy", *words])
        assert done.exit_code in (0, 3, 4), done.output
        assert not isinstance(done.exception, EdgepruneError)
        document = json.loads((run / "fleet.json").read_text())
        return (
            {row["host"]: row for row in document["boards"]},
            {row["gate"]: row for row in document["gates"]},
            done.output,
        )

    rows, gates, printed = call("--percentile", "50")
    assert list(rows) == ["b1", "b2", "b3", "gone"]
    accuracy = top1_percent(run / "artifacts" / "onnxruntime-fp32-linear-8.onnx")
    assert all(rows[name]["latency"]["count"] >= 20 for name in ("b1", "b2"))  # type: ignore[index]
    assert "reserved by ben@elsewhere (soak test) for another" in str(rows["b3"]["error"])
    assert "refused" in str(rows["gone"]["error"])
    size = gates["file_bytes at_most 100000"]
    assert (size["host"], size["outcome"]) == ("b2", "pass")  # type: ignore[index]
    assert {name: rows[name]["quality"] for name in ("b1", "b2")} == dict.fromkeys(("b1", "b2"), accuracy)
    assert gates["accuracy_percent at_least 1"]["outcome"] == "pass"  # type: ignore[index]
    assert "pass         accuracy_percent at_least 1" in printed
    _, gates, printed = call()
    size = gates["file_bytes at_most 100000"]
    assert (size["host"], size["outcome"]) == ("gone", "inconclusive")  # type: ignore[index]
    assert "verdict: inconclusive" in printed
    samples = json.loads((run / "fleet.samples.json").read_text())
    assert {host: set(row) for host, row in samples.items()} == {name: {"baseline", "result"} for name in ("b1", "b2")}
    assert not list(tmp_path.glob("b?/board/.cache/edgeprune/board/lease-work.json"))
