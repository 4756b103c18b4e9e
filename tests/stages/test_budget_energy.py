"""A budget of energy: in milliseconds for the planner, in mJ for the gate."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeprune.core.measuring.energy import Energy
from edgeprune.core.planning.budget import Budget
from edgeprune.core.releasing.document import budget_gates
from edgeprune.core.releasing.gate import Gate
from edgeprune.core.target import parse_target
from edgeprune.errors import DeviceError, TargetError
from edgeprune.stages import power
from edgeprune.stages.job import Job, check_request
from edgeprune.stages.power import learn_power

FILES = {f"variant{number}": Path(f"{number}.onnx") for number in range(5)}


LATENCY_MS = {name: 4.0 - number / 2 for number, name in enumerate(FILES)}


def energy(energy_mj: float | None, reason: str = "") -> Energy:
    return Energy("meter", "shunt", "board", energy_mj, None, None, 2.0, 1.0, 100, 50, 50.0, reason)


def job(budget: Budget, **more: Any) -> Any:
    board = SimpleNamespace(facts=SimpleNamespace(host="board"), lacks={}, energy=more.pop("energy", None))
    target = SimpleNamespace(
        budget=budget, gates=(), runtime="onnxruntime", runtimes=("onnxruntime",), name="board", format="onnx"
    )
    run = SimpleNamespace(finished=lambda stage: False, request={})
    return SimpleNamespace(
        target=target, planned=target, board=board, detail=lambda text: None, run=run, is_counted=False, **more
    )


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> dict[str, Energy]:
    """What a meter says of each net."""
    found: dict[str, Energy] = {}
    monkeypatch.setattr(
        power.ModelFile, "of", classmethod(lambda cls, path, runtime, name: SimpleNamespace(name=name, path=path))
    )
    return found


def ask(found: dict[str, Energy]) -> Any:
    """A board's way to tell the energies of some nets."""
    return lambda models, target, say: {one.name: found[one.name] for one in models}


@pytest.mark.parametrize(
    ("budget", "limit_ms"),
    [
        (Budget(latency_ms=3.0), 3.0),
        (Budget(speedup=2.0), 5.0),
        (Budget(energy_mj=8.0), 4.0),
        (Budget(speedup=2.0, energy_mj=8.0), 4.0),
        (Budget(latency_ms=3.0, energy_mj=8.0), 3.0),
    ],
)
def test_the_tighter_of_latency_and_energy_is_planned_for(budget: Budget, limit_ms: float) -> None:
    assert budget.limit_ms(10.0, 2.0) == limit_ms


def test_the_highest_power_of_slow_and_fast_nets_counts(meter: dict[str, Energy]) -> None:
    meter |= {"variant0": energy(12.0), "variant2": energy(10.5), "variant4": energy(4.0)}
    assert learn_power(job(Budget(energy_mj=8.0), energy=ask(meter)), FILES, LATENCY_MS) == pytest.approx(10.5 / 3)
    assert learn_power(job(Budget(speedup=2.0), energy=ask(meter)), FILES, LATENCY_MS) is None


def test_a_meter_that_sees_nothing_ends_the_run(meter: dict[str, Energy]) -> None:
    meter |= {"variant0": energy(5.0), "variant2": energy(5.5)}
    meter["variant4"] = energy(None, "not measurable: 3 new readings")
    with pytest.raises(DeviceError, match="budget of energy_mj, but no energy: not measurable: 3 new"):
        learn_power(job(Budget(energy_mj=8.0), energy=ask(meter)), FILES, LATENCY_MS)


def test_the_budget_is_read_gated_and_refused_without_a_board() -> None:
    budget = parse_target({"description": "x", "budget": {"energy_mj": 4}}, "x", "x.toml").budget
    assert budget_gates(budget, ()) == (Gate("energy_mj", at_most=4.0),)
    with pytest.raises(TargetError, match="needs a board with a power meter"):
        check_request(job(budget, estimated=True, formats=("onnx",)))
    check_request(job(budget, estimated=False, formats=("onnx",), recipe=Job, asked_gates=()))
