"""The document of a baseline, the kind of a device, and what no run may be held against."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured_run import ENERGY, F1, FACTS, make_measurement, make_windows

from edgeprune.core.artifact import Artifact, Signature
from edgeprune.core.measuring.measurement import DeviceFacts
from edgeprune.core.measuring.paired_quality import QualitySpread
from edgeprune.core.measuring.spread import SHARES, TableSpread
from edgeprune.core.metric import Metric
from edgeprune.core.planning.limits import Costs
from edgeprune.core.releasing.baseline import (
    Baseline,
    Newcomer,
    check_baseline,
    check_comparable,
    collect_figures,
    device_kind,
    device_unit,
    find_parity,
    match_figures,
    parse_baseline,
    parse_slowdown,
    strip_address,
)
from edgeprune.core.releasing.document import Figures
from edgeprune.core.releasing.gate import Figure, GateResult
from edgeprune.errors import BaselineError

ARTIFACT = Artifact(
    "a.onnx", "pruned", "onnx", "fp32", 1000, "a" * 64, (Signature("x", (1, 3, 8, 8), "float32"),), (), "a scheme"
)
MEASUREMENT = replace(make_measurement("pruned-onnx-fp32", "a" * 64, 0.4), **make_windows(0.4, 2))
SHIPPED = Figures(ARTIFACT, MEASUREMENT, 0.8, 10, Costs(100, 10, 10, 10), metric=F1)
BASELINE = Baseline(
    name="main", created="2026-11-28T10:00:00+00:00", edgeprune="0.1.0", target="board", recipe="mine", verdict="pass",
    gates=(GateResult("speedup at_least 2", "pass", 2.5, "2.5 >= 2"),), device=strip_address(FACTS), unit="",
    figures=SHIPPED, reference=replace(MEASUREMENT, samples_ms=()), more={"parity_sqnr_db": Figure(35.0)},
)  # fmt: skip
RUN = Newcomer("board", "mine", FACTS, replace(SHIPPED, measurement=make_measurement("new", "b" * 64, 0.41)))


def reread(baseline: Baseline) -> Baseline:
    return parse_baseline(json.loads(json.dumps(baseline.to_dict())), "main.json")


def test_a_baseline_comes_back_as_it_was() -> None:
    assert reread(BASELINE) == BASELINE
    without = replace(BASELINE, reference=None, more={}, unit="ab", figures=replace(SHIPPED, quality=None))
    assert reread(without) == without


@given(st.data())
def test_any_change_of_the_file_is_noticed(data: st.DataObject) -> None:
    document = json.loads(json.dumps(BASELINE.to_dict()))
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.just({}))
    if document[key] != BASELINE.to_dict()[key]:
        with pytest.raises(BaselineError, match=r"main\.json: "):
            parse_baseline(document, "main.json")


@pytest.mark.parametrize("document", [None, [], 3, "main", {}, {"version": 1}, {"version": 1, "measurement": {}}])
def test_something_else_is_no_baseline(document: Any) -> None:
    with pytest.raises(
        BaselineError, match=r"main\.json: is no baseline; expected a file that `edgeprune baseline set`"
    ):
        parse_baseline(document, "main.json")


def test_a_newer_version_is_told() -> None:
    with pytest.raises(BaselineError, match="version 2; this edgeprune reads 1; install the newer edgeprune"):
        parse_baseline({**BASELINE.to_dict(), "version": 2}, "main.json")


def test_what_is_committed_leads_to_no_board() -> None:
    facts = replace(FACTS, host="pi@192.0.2.7", host_key="SHA256:abc")
    document = json.dumps(replace(BASELINE, device=strip_address(facts), unit=device_unit(facts)).to_dict())
    assert "192.0.2.7" not in document
    assert "SHA256:abc" not in document
    assert device_unit(facts) in document


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "pi@192.0.2.7", "host_key": "SHA256:abc"},
        {"runtimes": {"onnxruntime": "2"}},
        {"kernel": "6.9", "os": "Debian 13", "python": "3.13"},
        {"cpu_flags": ("something_new",)},
        {"power_meter": "a meter"},
    ],
)
def test_boards_of_a_kind_may_differ_in_what_is_installed(changes: dict[str, Any]) -> None:
    assert device_kind(replace(FACTS, **changes)) == device_kind(FACTS)


@pytest.mark.parametrize(
    "changes",
    [
        {"machine": "x86_64"},
        {"model": "another board"},
        {"cpu": "another CPU"},
        {"cores": 8},
        {"max_mhz": 1500},
        {"cpu_flags": ("ASIMDDP",)},
    ],
)
def test_another_processor_is_another_kind(changes: dict[str, Any]) -> None:
    other = replace(FACTS, **changes)
    assert device_kind(other) != device_kind(FACTS)
    with pytest.raises(
        BaselineError, match=r"was measured on another kind of device, .*; set a baseline from a run on"
    ):
        check_comparable(BASELINE, replace(RUN, device=other), "main", True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"origin": "estimated"}, "is estimated, not measured; set it from a run that a board has measured"),
        ({"verdict": "fail"}, "its verdict is 'fail'; only a run that passed its gates is a baseline"),
        ({"verdict": "inconclusive"}, "its verdict is 'inconclusive'"),
        (
            {"figures": replace(SHIPPED, measurement=replace(MEASUREMENT, problems=("throttled",)))},
            "its run is not valid: throttled; measure it again",
        ),
    ],
)
def test_no_run_is_held_against_what_did_not_pass(changes: dict[str, Any], message: str) -> None:
    check_baseline(BASELINE, "main")
    with pytest.raises(BaselineError, match=f"main: {message}"):
        check_baseline(replace(BASELINE, **changes), "main")


def with_measurement(**changes: Any) -> Newcomer:
    figures = RUN.figures
    return replace(RUN, figures=replace(figures, measurement=replace(figures.measurement, **changes)))


def with_artifact(**changes: Any) -> Newcomer:
    return replace(RUN, figures=replace(RUN.figures, artifact=replace(ARTIFACT, **changes)))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (with_measurement(conditions=replace(MEASUREMENT.conditions, threads=4)), "threads: 2 in the baseline, 4 in"),
        (with_artifact(precision="int8"), "precision: fp32 in the baseline, int8 in this run; set a baseline from"),
        (
            with_measurement(inputs={"x": (1, 3, 16, 16)}),
            r"input sizes: \[\[1, 3, 8, 8\]\] in the baseline, \[\[1, 3, 16",
        ),
        (
            replace(RUN, figures=replace(RUN.figures, metric=Metric("RMSE", better="lower", unit="K"))),
            "the recipe's metric: F1 , higher is better in the baseline, RMSE K, lower is better in this run",
        ),
        (replace(RUN, figures=SHIPPED), "is this run itself, so that nothing can differ; name an earlier one"),
    ],
)
@pytest.mark.parametrize("is_interleaved", [False, True])
def test_another_use_is_refused(run: Newcomer, message: str, is_interleaved: bool) -> None:
    with pytest.raises(BaselineError, match=f"main: {message}"):
        check_comparable(BASELINE, run, "main", is_interleaved)


def test_the_same_file_is_told_with_what_takes_the_session_off() -> None:
    note = "the shipped file is the baseline's, byte for byte"
    advice = ": what differs is the session; --interleave measures both in one"
    assert check_comparable(BASELINE, RUN, "main", False) == (note + advice,)
    assert check_comparable(BASELINE, RUN, "main", True) == (note,)


def test_a_quality_over_the_same_inputs_knows_how_many_there_were() -> None:
    spreads = [
        QualitySpread(TableSpread((80.0,) * len(SHARES), (90.0,) * len(SHARES)), count=8, right=right)
        for right in ("ff", "fe")
    ]
    old, new = (replace(side, figures=replace(side.figures, spread=spread)) for side, spread in
                zip((BASELINE, RUN), spreads, strict=True))  # fmt: skip
    assert match_figures(old, new)[0]["quality"].inputs == RUN.figures.samples > 0


@pytest.mark.parametrize("changes", [{"runtime": "litert"}, {"runtime_version": "2.0"}])
def test_another_runtime_is_refused_unless_both_are_measured_now(changes: dict[str, str]) -> None:
    run = with_measurement(**changes)
    with pytest.raises(BaselineError, match=r"onnxruntime 1.0, this run with .*; measure both now with --interleave"):
        check_comparable(BASELINE, run, "main", False)
    assert "the baseline was measured with onnxruntime 1.0" in check_comparable(BASELINE, run, "main", True)[0]


def test_what_may_explain_a_difference_is_told() -> None:
    facts = replace(FACTS, host_key="SHA256:b", kernel="6.9")
    run = replace(with_artifact(sha256="c" * 64), device=facts, recipe="yours", target="other")
    assert check_comparable(replace(BASELINE, unit="another"), run, "main", False) == (
        "the baseline is of another board of the same kind",
        "recipe: mine in the baseline, yours in this run",
        "target: board in the baseline, other in this run",
        "kernel of the board: 6.1 in the baseline, 6.9 in this run",
    )


def test_figures_that_were_taken_otherwise_do_not_compare() -> None:
    energy = replace(ENERGY, meter="another meter")
    run = replace(with_measurement(energy=energy), figures=replace(with_measurement(energy=energy).figures, samples=20))
    new, old = match_figures(BASELINE, run)
    assert old["quality"] == Figure(None, problem="judged on 10 inputs, this run on 20")
    assert old["energy_mj"].problem == old["power_w"].problem == "another power meter: a meter, now another meter"
    assert new["energy_mj"].value == 4.0
    assert old["latency_p50_ms"].value == pytest.approx(MEASUREMENT.latency.p50_ms)


def test_the_gain_of_one_meter_is_in_both_energies_and_cancels() -> None:
    energy = replace(ENERGY, kind="plug")  # a gain that may be off by 3 %
    baseline = replace(BASELINE, figures=replace(SHIPPED, measurement=replace(MEASUREMENT, energy=energy)))
    for is_one_meter, error_mj in ((False, 0.5), (True, (0.5**2 - 0.12**2) ** 0.5)):
        for figures in match_figures(baseline, with_measurement(energy=energy), is_one_meter=is_one_meter):
            assert figures["energy_mj"].high == pytest.approx(4.0 + error_mj)
    tiny = replace(energy, uncertainty_mj=0.1)
    assert tiny.without_gain().uncertainty_mj == 0.0


def test_power_is_above_idle_and_as_uncertain_as_the_energy() -> None:
    power = collect_figures(BASELINE)["power_w"]
    assert (power.value, power.low, power.high) == (2.0, pytest.approx(1.75), pytest.approx(2.25))
    none = collect_figures(with_measurement(energy=None))
    assert none["energy_mj"] == none["power_w"] == Figure(None, problem="no power sensor")


def test_parity_is_that_of_the_weakest_link_of_the_file() -> None:
    int8 = replace(ARTIFACT, precision="int8")
    rows = [
        {"link": "pruned: torch -> onnx fp32", "sqnr_db": 131.0},
        {"link": "pruned: onnx fp32 -> onnx int8", "sqnr_db": 44.0},
        {"link": "pruned: onnx int8 reference kernels -> optimised kernels", "sqnr_db": 42.0},
        {"link": "pruned: tflite fp32 -> tflite int8", "sqnr_db": 12.0},
        {"link": "original: onnx fp32 -> onnx int8", "sqnr_db": 11.0},
        {"link": "pruned-onnx-int8: here -> on the device", "sqnr_db": 43.0},
    ]
    assert find_parity(rows, int8) == Figure(42.0)
    assert find_parity(rows, ARTIFACT) == Figure(131.0)
    assert find_parity(rows[3:5], int8) is None


def test_a_sustained_run_counts_for_its_own_file_only() -> None:
    change = {"ratio": 1.05, "low": 1.02, "high": 1.08}
    document = {"sha256": "a", "change": change}
    figure = parse_slowdown(document, "a")
    assert figure is not None
    assert (figure.value, figure.low, figure.high) == (
        pytest.approx(0.05), pytest.approx(0.02), pytest.approx(0.08),
    )  # fmt: skip
    assert parse_slowdown(document, "b") is None
    doubtful = parse_slowdown({**document, "problems": ["not cooled down"]}, "a")
    assert doubtful == replace(figure, problem="not cooled down")
    assert parse_slowdown({"sha256": "a", "change": {"ratio": "?"}}, "a") is None
    assert parse_slowdown([document], "a") is None


def test_facts_of_a_board_without_flags_have_a_kind() -> None:
    assert device_kind(DeviceFacts("", "", "", "", 0, (), 0, "", "", "", {}))
