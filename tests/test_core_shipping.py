"""What ships: the fastest accurate file where the device decides, and what is said where it is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeprune.core.artifact import Artifact
from edgeprune.core.document import Figures
from edgeprune.core.gate import Gate
from edgeprune.core.measurement import Conditions, Measurement
from edgeprune.core.shipping import DEFAULT_LIMIT, Candidates, accuracy_limits, choose_planned
from edgeprune.core.target import AUTO, Target, parse_target
from edgeprune.errors import TargetError

DROP = Gate("accuracy_drop_points", at_most=1.5)


def figures(
    precision: str, p50_ms: float, accuracy: float | None, role: str = "pruned", problems: tuple[str, ...] = ()
) -> Figures:
    samples = tuple(p50_ms * np.linspace(0.98, 1.02, 201))
    artifact = Artifact(f"artifacts/{role}.{precision}.onnx", role, "onnx", precision, 1, "", (), ())
    taken = Measurement("a", "", "onnxruntime", "1", "f", Conditions(threads=1), 1.0, 1.0, 10, samples, None)
    return Figures(artifact, replace(taken, problems=problems), accuracy, 300, 1, 1)


BASELINE = figures("fp32", 0.13, 92.0, "original")


def candidates(*files: Figures, limits: tuple[Gate, ...] = (DROP,)) -> Candidates:
    return Candidates(files, BASELINE, limits)


def test_the_fastest_accurate_file_ships_and_no_faster_one() -> None:
    fp32, int8 = figures("fp32", 0.062, 91.5), figures("int8", 0.088, 91.4)
    assert candidates(fp32, int8).fastest == fp32
    collapsed = figures("int8", 0.02, 70.0)
    found = candidates(fp32, collapsed)
    assert found.accurate == (fp32,)
    assert found.fastest == fp32
    assert candidates(fp32, figures("int8", 0.05, 90.5)).fastest.artifact.precision == "int8"


@pytest.mark.parametrize(
    ("limits", "accurate"),
    [
        ((Gate("accuracy_percent", at_least=91.45),), ["fp32"]),
        ((Gate("accuracy_percent", max_regression=0.01),), ["fp32", "int8"]),
        ((DROP, Gate("accuracy_percent", at_least=91.45)), ["fp32"]),
        ((), ["fp32", "int8"]),
    ],
)
def test_every_accuracy_gate_counts(limits: tuple[Gate, ...], accurate: list[str]) -> None:
    found = candidates(figures("fp32", 0.06, 91.5), figures("int8", 0.09, 91.2), limits=limits)
    assert [one.artifact.precision for one in found.accurate] == accurate


def test_a_file_whose_accuracy_is_unknown_is_not_accurate() -> None:
    fp32, unknown = figures("fp32", 0.06, 91.5), figures("int8", 0.01, None)
    assert candidates(fp32, unknown).fastest == fp32


def test_where_none_is_accurate_the_most_accurate_ships() -> None:
    fp32, int8 = figures("fp32", 0.06, 80.0), figures("int8", 0.02, 79.0)
    found = candidates(int8, fp32)
    assert found.fastest == fp32
    assert found.explain(fp32) == (
        "no onnx file is within accuracy_drop_points at_most 1.5; the most accurate is fp32",
    )


def test_an_invalid_run_is_chosen_last() -> None:
    throttled = figures("int8", 0.03, 91.0, problems=("throttled",))
    assert candidates(throttled, figures("fp32", 0.06, 91.0)).fastest.artifact.precision == "fp32"
    assert candidates(throttled).fastest == throttled


def test_what_ships_by_order_is_said_to_be_slower_or_too_inaccurate() -> None:
    fp32, int8, worse = figures("fp32", 0.062, 91.5), figures("int8", 0.088, 91.4), figures("int8", 0.03, 80.0)
    assert candidates(fp32, int8).explain(int8) == ("int8 is slower than fp32 here: 0.088 against 0.062 ms",)
    assert candidates(fp32, int8).explain(fp32) == ()
    assert candidates(fp32, worse).explain(worse) == (
        "int8 is not within accuracy_drop_points at_most 1.5; the fastest that is: fp32",
    )
    same = figures("fp16", 0.06201, 91.5)
    assert candidates(fp32, same).explain(same) == ()  # within the noise of the medians


def test_the_limit_is_the_targets_own_where_it_has_one() -> None:
    speed = Gate("speedup", at_least=2)
    assert accuracy_limits((speed, DROP)) == (DROP,)
    assert accuracy_limits((speed,)) == (DEFAULT_LIMIT,)


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
    with pytest.raises(TargetError, match=r"target board: precision: 'int16x8' is not known for onnxruntime"):
        Target("board", "", precision="int16x8")
    with pytest.raises(TargetError, match=r"board\.toml: precision: 'autom' is not known; did you mean 'auto'"):
        parse_target({"description": "board", "precision": "autom"}, "board", "board.toml")


@pytest.mark.parametrize(("int8_ms", "chosen"), [(0.5, "int8"), (0.97, "int8"), (0.99, "fp32"), (1.5, "fp32")])
def test_int8_is_planned_for_only_where_the_board_runs_it_faster(int8_ms: float, chosen: str) -> None:
    assert choose_planned({"fp32": 1.0, "int8": int8_ms}) == chosen
