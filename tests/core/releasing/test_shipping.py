"""What ships: the fastest accurate file where the device decides, and what is said where it is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeprune.core.artifact import Artifact
from edgeprune.core.formats import AUTO, find_runtime
from edgeprune.core.measuring.measurement import Conditions, Measurement
from edgeprune.core.measuring.paired_quality import QualitySpread
from edgeprune.core.measuring.spread import SHARES, TableSpread
from edgeprune.core.metric import TOP1, Metric
from edgeprune.core.planning.limits import Costs
from edgeprune.core.releasing.document import Figures
from edgeprune.core.releasing.gate import FAIL, INCONCLUSIVE, PASS, Gate, decide, settle_gates
from edgeprune.core.releasing.shipping import (
    DEFAULT_LIMIT,
    Candidates,
    choose_planned,
    is_within,
    judge_figures,
    quality_limits,
)
from edgeprune.core.target import Target, parse_target
from edgeprune.errors import TargetError

DROP = Gate("accuracy_drop_points", at_most=1.5)
RMSE = Metric("RMSE", better="lower", unit="K")
F1 = Metric("F1", better="higher")


def figures(
    precision: str, p50_ms: float, quality: float | None, problems: tuple[str, ...] = (), file_format: str = "onnx"
) -> Figures:
    samples = tuple(p50_ms * np.linspace(0.98, 1.02, 201))
    artifact = Artifact(f"artifacts/pruned.{precision}.{file_format}", "pruned", file_format, precision, 1, "", (), ())
    runtime = find_runtime(file_format) or ""
    taken = Measurement("a", "", runtime, "1", "f", Conditions(threads=1), 1.0, 1.0, 10, samples, None)
    return Figures(artifact, replace(taken, problems=problems), quality, 300, Costs(1, 1, 1, 1))


def original(quality: float) -> Figures:
    found = figures("fp32", 0.13, quality)
    return replace(found, artifact=replace(found.artifact, role="original"))


BASELINE = original(92.0)


def candidates(
    *files: Figures, gates: tuple[Gate, ...] = (DROP,), metric: Metric = TOP1, baseline: Figures = BASELINE
) -> Candidates:
    """All of the files are open to the device."""
    files = tuple(replace(one, metric=metric) for one in files)
    settled, names = settle_gates(gates, metric, "gates"), {one.artifact.name for one in files}
    return Candidates(files, replace(baseline, metric=metric), settled, names)


def chosen(found: Candidates) -> str:
    return found.chosen.artifact.name.removeprefix("pruned-")


def test_the_fastest_accurate_file_ships_and_no_faster_one() -> None:
    fp32, int8 = figures("fp32", 0.062, 91.5), figures("int8", 0.088, 91.4)
    assert chosen(candidates(fp32, int8)) == "onnx-fp32"
    collapsed = candidates(fp32, figures("int8", 0.02, 70.0))
    assert [one.artifact.precision for one in collapsed.accurate] == ["fp32"]
    assert chosen(collapsed) == "onnx-fp32"
    assert chosen(candidates(fp32, figures("int8", 0.05, 90.5))) == "onnx-int8"


@pytest.mark.parametrize(
    ("gates", "accurate"),
    [
        ((Gate("accuracy_percent", at_least=91.45),), ["fp32"]),
        ((Gate("accuracy_percent", max_regression=0.01),), ["fp32", "int8"]),
        ((DROP, Gate("accuracy_percent", at_least=91.45)), ["fp32"]),
        ((Gate("quality_drop", at_most=0.6),), ["fp32"]),
        ((), ["fp32", "int8"]),
    ],
)
def test_every_gate_on_quality_counts(gates: tuple[Gate, ...], accurate: list[str]) -> None:
    found = candidates(figures("fp32", 0.06, 91.5), figures("int8", 0.09, 91.2), gates=gates)
    assert [one.artifact.precision for one in found.accurate] == accurate


@pytest.mark.parametrize("unknown", [None, float("nan")])
def test_a_file_without_a_figure_of_quality_is_not_accurate(unknown: float | None) -> None:
    found = candidates(figures("fp32", 0.06, 91.5), figures("int8", 0.01, unknown))
    assert chosen(found) == "onnx-fp32"
    assert chosen(candidates(figures("int8", 0.01, unknown), figures("fp32", 0.06, 10.0))) == "onnx-fp32"


def test_a_number_is_asked_for_even_where_no_gate_asks_for_quality() -> None:
    fast = Gate("speedup", at_least=1.5)
    found = candidates(figures("fp32", 0.06, float("nan")), gates=(fast,))
    assert decide(found.judge(found.files[0])) == FAIL
    asked = candidates(figures("fp32", 0.06, float("nan")), gates=(fast, DROP))
    assert [one.outcome for one in asked.judge(asked.files[0])] == [PASS, FAIL]
    assert decide(candidates(figures("fp32", 0.06, 10.0), gates=(fast,)).judge(figures("fp32", 0.06, 10.0))) == PASS


def test_a_quality_that_cannot_be_told_names_how_many_inputs_it_was_over() -> None:
    drop = TableSpread((0.0,) * len(SHARES), (2.0,) * len(SHARES))
    spread = QualitySpread(TableSpread((90.0,) * len(SHARES), (92.0,) * len(SHARES)), drop)
    (result,) = judge_figures(candidates().gates, replace(figures("fp32", 0.06, 91.0), spread=spread), BASELINE, 0.95)
    assert result.outcome == INCONCLUSIVE
    assert "evaluation inputs would, in place of 300" in result.reason


def test_where_none_is_accurate_the_best_ships() -> None:
    found = candidates(figures("int8", 0.02, 79.0), figures("fp32", 0.06, 80.0))
    assert chosen(found) == "onnx-fp32"
    assert found.explain(found.chosen) == (
        "no file is within accuracy_drop_points at_most 1.5; the best by top-1 accuracy is onnx fp32",
    )


def test_where_lower_is_better_the_lowest_is_the_best_and_a_rise_is_a_drop_of_quality() -> None:
    limit = Gate("quality_drop", at_most=0.05)
    good, bad = figures("fp32", 0.06, 0.35), figures("int8", 0.01, 2.90)
    found = candidates(good, bad, gates=(limit,), metric=RMSE, baseline=original(0.33))
    assert chosen(found) == "onnx-fp32"
    worse = candidates(figures("fp32", 0.06, 2.0), bad, gates=(limit,), metric=RMSE, baseline=original(0.33))
    assert chosen(worse) == "onnx-fp32"
    assert worse.explain(worse.chosen) == (
        "no file is within quality_drop at_most 0.05 K (RMSE); the best by RMSE is onnx fp32",
    )


def test_an_invalid_run_is_never_the_fastest_and_chosen_last() -> None:
    throttled = figures("int8", 0.03, 91.0, ("throttled",))
    both = candidates(throttled, figures("fp32", 0.06, 91.0))
    assert (chosen(both), both.fastest) == ("onnx-fp32", both.files[1])
    alone = candidates(throttled)
    assert (chosen(alone), alone.fastest) == ("onnx-int8", None)
    slower = candidates(throttled, figures("fp32", 0.06, 91.0, ("unstable",)))
    assert chosen(slower) == "onnx-int8"
    inaccurate = candidates(figures("int8", 0.03, 70.0, ("throttled",)), figures("fp32", 0.06, 60.0))
    assert chosen(inaccurate) == "onnx-fp32"


def test_of_accurate_files_one_that_passes_all_gates_ships_before_a_faster_one() -> None:
    large, small = figures("fp32", 0.06, 91.0), figures("int8", 0.08, 91.0)
    large = replace(large, artifact=replace(large.artifact, bytes=90_000))
    found = candidates(large, small, gates=(Gate("file_bytes", at_most=50_000), DROP))
    assert (chosen(found), found.fastest) == ("onnx-int8", found.files[0])
    assert found.explain(found.chosen) == (
        "onnx int8 is slower than onnx fp32 here: 0.08 against 0.06 ms; it does not pass file_bytes at_most 50000",
    )
    unknown = candidates(
        *(replace(one, quality=91.5) for one in (large, small)),
        gates=(Gate("peak_memory_mib", at_most=5), Gate("file_bytes", at_most=50_000)),
    )
    assert [decide(unknown.judge(one)) for one in unknown.files] == [FAIL, INCONCLUSIVE]
    assert chosen(unknown) == "onnx-int8"


def test_what_ships_by_order_is_said_to_be_slower_or_too_inaccurate() -> None:
    fp32, int8, worse = figures("fp32", 0.062, 91.5), figures("int8", 0.088, 91.4), figures("int8", 0.03, 80.0)
    asked = replace(candidates(fp32, int8), open={int8.artifact.name})
    assert asked.chosen == int8
    assert asked.explain(int8) == (
        "onnx int8 is slower than onnx fp32 here: 0.088 against 0.062 ms; a run with --precision fp32 ships it, one "
        "with --precision auto the fastest",
    )
    assert candidates(fp32, int8).explain(fp32) == ()
    assert candidates(fp32, worse).explain(worse) == (
        "onnx int8 is not within accuracy_drop_points at_most 1.5; the fastest that is: onnx fp32",
    )
    same = figures("fp16", 0.06201, 91.5)
    assert candidates(fp32, same).explain(same) == ()  # within the noise of the medians


def test_a_faster_file_of_another_runtime_is_told() -> None:
    onnx, tflite = figures("fp32", 0.0258, 91.5), figures("fp32", 0.0106, 91.5, file_format="tflite")
    found = replace(candidates(onnx, tflite), open={onnx.artifact.name})
    assert (found.chosen, found.fastest) == (onnx, tflite)
    assert found.explain(onnx) == (
        "onnx fp32 is slower than tflite fp32 here: 0.0258 against 0.0106 ms; a run with --runtime litert ships it, "
        "one with --runtime auto the fastest",
    )
    assert chosen(candidates(onnx, tflite)) == "tflite-fp32"
    throttled = replace(tflite, measurement=replace(tflite.measurement, problems=("throttled",)))
    assert candidates(onnx, throttled).explain(onnx) == ()


@pytest.mark.parametrize(("p50_ms", "is_told"), [(0.0560, True), (0.0616, False)])
def test_a_ratio_whose_interval_holds_1_is_no_difference(p50_ms: float, is_told: bool) -> None:
    """Of single processes, which may lie 3 % apart each."""
    slow, fast = figures("int8", 0.062, 91.5), figures("fp32", p50_ms, 91.5)
    assert bool(candidates(slow, fast).explain(slow)) == is_told


def test_the_limit_is_the_targets_own_where_it_has_one() -> None:
    speed, own = Gate("speedup", at_least=2), settle_gates([DROP], TOP1, "gates")
    assert quality_limits((speed, *own), TOP1) == own
    assert quality_limits((speed,), RMSE) == (replace(DEFAULT_LIMIT, of=RMSE),)


@pytest.mark.parametrize(
    ("metric", "quality", "at", "within"),
    [
        (TOP1, 91.09, 92.0, True),  # MLPerf's 99 %
        (TOP1, 91.07, 92.0, False),
        (F1, 0.10, 0.77, False),
        (RMSE, 2.90, 0.33, False),
        (RMSE, 0.333, 0.33, True),
        (RMSE, 0.10, 0.33, True),
        (F1, float("nan"), 0.77, False),
        (F1, 0.77, float("nan"), False),
        (F1, None, 0.77, False),
    ],
)
def test_without_a_gate_one_per_cent_of_the_quality_may_be_lost(
    metric: Metric, quality: float | None, at: float, within: bool
) -> None:
    assert is_within(quality_limits((), metric), quality, at) == within


@pytest.mark.parametrize(
    ("precision", "fitted", "layers"),
    [
        (AUTO, "fp32", "fp32"),
        ("fp32", "fp32", "fp32"),
        ("int8", "int8", "int8"),
        ("fp16", "fp16", "fp32"),
        ("dynamic-int8", "dynamic-int8", "fp32"),
    ],
)
def test_a_plan_is_made_in_one_precision(precision: str, fitted: str, layers: str) -> None:
    target = parse_target({"description": "board", "precision": precision}, "board", "board.toml")
    assert (target.precision, target.fitted_precision, target.layer_precision) == (precision, fitted, layers)


def test_a_precision_that_the_runtime_lacks_is_refused() -> None:
    assert Target("board", "", runtime="litert", precision="int16x8").format == "tflite"
    for runtime in ("onnxruntime", AUTO):
        with pytest.raises(TargetError, match=f"target board: precision: 'int16x8' is not known for {runtime}"):
            Target("board", "", runtime, precision="int16x8")
    with pytest.raises(TargetError, match=r"board\.toml: precision: 'autom' is not known; did you mean 'auto'"):
        parse_target({"description": "board", "precision": "autom"}, "board", "board.toml")


def test_an_open_runtime_is_every_runtime() -> None:
    assert parse_target({"description": "board", "runtime": AUTO}, "b", "b.toml").runtimes == ("onnxruntime", "litert")
    assert Target("board", "", "litert").runtimes == ("litert",)
    with pytest.raises(TargetError, match=r"b\.toml: runtime: 'aut' is not known; did you mean 'auto'"):
        parse_target({"description": "board", "runtime": "aut"}, "b", "b.toml")


ORT = "onnxruntime"


@pytest.mark.parametrize(
    ("latency_ms", "precisions", "planned"),
    [
        ({(ORT, "fp32"): 1.0, (ORT, "int8"): 0.5}, ("fp32", "int8"), (ORT, "int8")),
        ({(ORT, "fp32"): 1.0, (ORT, "int8"): 0.97}, ("fp32", "int8"), (ORT, "int8")),
        ({(ORT, "fp32"): 2.0, (ORT, "int8"): 1.95}, ("fp32", "int8"), (ORT, "int8")),
        ({(ORT, "fp32"): 2.0, (ORT, "int8"): 1.97}, ("fp32", "int8"), (ORT, "fp32")),
        ({(ORT, "fp32"): 1.0, (ORT, "int8"): 0.98}, ("fp32", "int8"), (ORT, "fp32")),
        ({(ORT, "fp32"): 1.0}, ("fp32", "int8"), (ORT, "fp32")),
        ({(ORT, "fp32"): 1.0, (ORT, "int8"): 1.5}, ("fp32", "int8"), (ORT, "fp32")),
        ({(ORT, "fp32"): 1.0, ("litert", "fp32"): 0.9}, ("fp32",), ("litert", "fp32")),
        ({(ORT, "fp32"): 1.0, ("litert", "fp32"): 0.9, (ORT, "int8"): 0.8}, ("int8",), (ORT, "int8")),
        # int8 in the one runtime is held against fp32 in the other
        (
            {(ORT, "fp32"): 1.0, ("litert", "fp32"): 2.0, (ORT, "int8"): 1.9, ("litert", "int8"): 0.99},
            ("fp32", "int8"),
            (ORT, "fp32"),
        ),
        ({(ORT, "fp32"): 1.0, ("litert", "fp32"): 2.0, ("litert", "int8"): 0.5}, ("fp32", "int8"), ("litert", "int8")),
    ],
)
def test_what_the_board_runs_fastest_is_planned_for_int8_only_where_it_is_clearly_faster(
    latency_ms: dict[tuple[str, str], float], precisions: tuple[str, ...], planned: tuple[str, str]
) -> None:
    assert choose_planned(latency_ms, precisions) == planned
