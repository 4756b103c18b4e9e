"""The figures that gates look at, and the budget as gates."""

from __future__ import annotations

from dataclasses import fields, replace
from math import isnan
from typing import Any

import numpy as np
import pytest

from edgeprune.core.artifact import Artifact
from edgeprune.core.measuring.energy import Energy
from edgeprune.core.measuring.measurement import Conditions, Measurement
from edgeprune.core.measuring.windows import Window
from edgeprune.core.metric import TOP1, Metric
from edgeprune.core.planning.budget import Budget
from edgeprune.core.planning.limits import Costs
from edgeprune.core.releasing.document import Figures, budget_gates, gate_figures
from edgeprune.core.releasing.gate import INCONCLUSIVE, METRICS, PASS, TAILS, Gate, judge
from edgeprune.core.releasing.shipping import judge_figures

RMSE = Metric("RMSE", better="lower", unit="K")
COUNTED = {"file_bytes", "flash_bytes", "parameters", "macs", "activation_bytes", "sram_bytes"}
INSTRUCTION_METRICS = {"instructions", "instruction_ratio"}
ENERGY = Energy("meter", "shunt", "board", 4.0, 0.5, None, 2.0, 1.0, 100, 50, 50.0, "")


def figures(p50_ms: float, problems: tuple[str, ...] = (), **changes: Any) -> Figures:
    samples = tuple(p50_ms * np.linspace(0.9, 1.1, 101))
    artifact = Artifact("artifacts/pruned.fp32.onnx", "pruned", "onnx", "fp32", 5000, "", (), ())
    artifact = replace(artifact, sram_bytes=3000, sram_counted="counted by TFLM (32-bit)")
    taken = Measurement("a", "", "onnxruntime", "1", "f", Conditions(threads=1), 20.0, 3.0, 10, samples, 60.0)
    taken = replace(taken, energy=ENERGY, problems=problems)
    return replace(Figures(artifact, taken, 90.0, 300, Costs(1000, 4000, 70_000, 2048)), **changes)


def test_every_metric_of_a_gate_has_a_figure() -> None:
    looked_at = gate_figures(figures(1.0), figures(2.0, quality=92.0))
    assert set(looked_at) == set(METRICS) - INSTRUCTION_METRICS
    values = {name: figure.value for name, figure in looked_at.items()}
    assert values["latency_p50_ms"] == pytest.approx(1.0)
    assert values["latency_p90_ms"] == pytest.approx(1.08)
    assert values["latency_p95_ms"] == pytest.approx(1.09)
    assert values["latency_p99_ms"] == pytest.approx(1.098)
    assert values["speedup"] == pytest.approx(2.0)
    assert {name: values[name] for name in ("init_ms", "first_ms", "peak_memory_mib", "energy_mj")} == {
        "init_ms": 20.0, "first_ms": 3.0, "peak_memory_mib": 60.0, "energy_mj": 4.0,
    }  # fmt: skip
    assert {name: values[name] for name in COUNTED} == {
        "file_bytes": 5000, "flash_bytes": 5000, "parameters": 1000, "macs": 70_000, "activation_bytes": 2048,
        "sram_bytes": 3000,
    }  # fmt: skip
    assert {name: values[name] for name in METRICS if "quality" in name or "accuracy" in name} == {
        "accuracy_percent": 90.0, "quality": 90.0, "accuracy_drop_points": 2.0, "quality_drop": 2.0,
    }  # fmt: skip


def test_means_of_many_runs_have_a_median_and_no_percentile() -> None:
    means = figures(1.0)
    means = replace(means, measurement=replace(means.measurement, runs_per_sample=74))
    looked_at = gate_figures(means, figures(2.0))
    assert looked_at["latency_p50_ms"].value == pytest.approx(1.0)
    assert looked_at["speedup"].value == pytest.approx(2.0)
    for name in TAILS:
        assert looked_at[name].value is None
        assert judge(Gate(name, at_most=1e9), looked_at, {}).outcome == INCONCLUSIVE
        assert looked_at[name].problem == "a sample is the mean of 74 runs: no percentile exists"
    row = means.to_dict()
    assert row["runs_per_sample"] == 74
    assert [name for name, value in row["latency"].items() if value is None] == ["p90_ms", "p95_ms", "p99_ms"]
    assert list(row["latency_intervals_ms"]) == ["p50"]


@pytest.mark.parametrize(("percent", "least"), [(90, 10), (95, 20), (99, 100)])
@pytest.mark.parametrize("processes", [1, 3])
def test_a_percentile_needs_a_sample_beyond_it_in_every_process(percent: int, least: int, processes: int) -> None:
    for fewest, problem in (
        (least, ""),
        (least - 1, f"p{percent} needs {least} samples of each process and there are"),
    ):
        counts = [200] * (processes - 1) + [fewest]
        windows = tuple(Window(number, float(number), 1.0, count) for number, count in enumerate(counts))
        few = figures(1.0)
        few = replace(few, measurement=replace(few.measurement, windows=windows, samples_ms=(1.0,) * sum(counts)))
        figure = gate_figures(few)[f"latency_p{percent}_ms"]
        assert figure.problem.startswith(problem)
        assert (figure.value is None) == bool(figure.problem) == bool(problem)
        assert (few.latency.to_dict()[f"p{percent}_ms"] is None) == bool(problem)
        assert (f"p{percent}" in few.to_dict()["latency_intervals_ms"]) != bool(problem)


def test_no_figure_of_an_invalid_run_is_without_its_problem() -> None:
    looked_at = gate_figures(figures(1.0, ("throttled: under-voltage", "unstable")), figures(2.0))
    timed = (
        set(METRICS) - COUNTED - INSTRUCTION_METRICS - {one for one in METRICS if "quality" in one or "accuracy" in one}
    )
    assert {name for name, figure in looked_at.items() if figure.problem} == timed
    assert {looked_at[name].problem for name in timed} == {"throttled: under-voltage; unstable"}
    for name in timed:
        limits: dict[str, Any] = {"at_least" if name == "speedup" else "at_most": 0.0 if name == "speedup" else 1e9}
        assert judge(Gate(name, **limits), looked_at, {}).outcome == INCONCLUSIVE


def test_a_speed_up_over_an_invalid_baseline_says_so() -> None:
    figure = gate_figures(figures(1.0), figures(2.0, ("throttled",)))["speedup"]
    assert figure.problem == "baseline: throttled"
    both = gate_figures(figures(1.0, ("unstable",)), figures(2.0, ("throttled",)))["speedup"]
    assert both.problem == "unstable; baseline: throttled"


def test_energy_has_its_uncertainty_and_its_reason() -> None:
    energy = gate_figures(figures(1.0))["energy_mj"]
    assert (energy.value, energy.low, energy.high) == (4.0, 3.5, 4.5)
    mute = figures(1.0)
    none = replace(ENERGY, energy_mj=None, reason="not measurable: 3 new readings")
    mute = replace(mute, measurement=replace(mute.measurement, energy=none))
    assert gate_figures(mute)["energy_mj"].problem == "not measurable: 3 new readings"


@pytest.mark.parametrize(
    ("confidence", "outcome"),
    [(Budget().gate_confidence, PASS), (Budget(confidence=0.995).gate_confidence, INCONCLUSIVE)],
)
def test_a_speed_up_is_as_certain_as_the_budget_asks(confidence: float, outcome: str) -> None:
    result, baseline = figures(1.0), figures(2.0)
    (judged,) = judge_figures([Gate("speedup", at_least=1.75)], result, baseline, confidence)
    assert judged.outcome == outcome


def test_budgets_ask_for_95_per_cent_at_least() -> None:
    asked = {budget: budget.gate_confidence for budget in (Budget(), Budget(confidence=0.9), Budget(confidence=0.995))}
    assert list(asked.values()) == pytest.approx([0.95, 0.95, 0.99])


def test_a_report_holds_no_number_that_is_none() -> None:
    row = figures(1.0, quality=float("nan"), metric=RMSE).to_dict()
    assert row["quality"] is None
    assert isnan(gate_figures(figures(1.0, quality=float("nan")))["quality"].value or 0.0)
    assert "quality" not in gate_figures(figures(1.0, quality=None))
    assert (row["parameters"], row["macs"], row["activation_bytes"], row["file_bytes"]) == (1000, 70_000, 2048, 5000)


def test_every_limit_of_a_budget_is_a_gate() -> None:
    limits = {one.name: 2 for one in fields(Budget) if one.name != "confidence"}
    budget = Budget(**{**limits, "speedup": None, "confidence": 0.9})  # type: ignore[arg-type]
    gates = budget_gates(budget, ())
    names = {"latency_ms": "latency_p50_ms"}
    assert {gate.metric for gate in gates} == {names.get(name, name) for name in limits if name != "speedup"}
    assert {gate.limit for gate in gates} == {("at_most", 2)}
    assert budget_gates(Budget(speedup=2.0), ()) == (Gate("speedup", at_least=2.0),)


def test_a_gate_that_the_budget_is_already_is_judged_once() -> None:
    own, other = Gate("file_bytes", at_most=2000), Gate("file_bytes", at_most=1000)
    assert budget_gates(Budget(file_bytes=2000), (own, other)) == (own, other)


def test_a_budget_is_gated_by_what_was_counted() -> None:
    counted = gate_figures(figures(1.0, metric=TOP1))
    for name, value in (
        ("file_bytes", 5000), ("parameters", 1000), ("macs", 70_000), ("activation_bytes", 2048),
        ("sram_bytes", 3000), ("flash_bytes", 5000),
    ):  # fmt: skip
        for limit, outcome in ((value, "pass"), (value - 1, "fail")):
            (gate,) = budget_gates(Budget(**{name: limit}), ())
            assert judge(gate, counted, {}).outcome == outcome


def test_memory_that_the_interpreter_did_not_count_decides_nothing() -> None:
    whole = figures(1.0)
    planned = replace(whole.artifact, sram_counted="planned by edgeprune (activations only)")
    (gate,) = budget_gates(Budget(sram_bytes=9000), ())
    judged = judge(gate, gate_figures(replace(whole, artifact=planned)), {})
    assert (judged.outcome, judged.value) == (INCONCLUSIVE, 3000)
    assert judged.reason == "planned by edgeprune (activations only), not measured"
    unknown = gate_figures(replace(whole, artifact=replace(whole.artifact, sram_bytes=None)))
    assert judge(gate, unknown, {}).reason == "sram_bytes was not measured"
