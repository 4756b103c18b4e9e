"""What is warned of, and what is not: a threshold on each side."""

from __future__ import annotations

from typing import Any

import pytest

from edgeprune.core.explaining.overpruning import (
    warn_of_classes,
    warn_of_corruptions,
    warn_of_plan,
    warn_of_training,
)
from edgeprune.core.metric import TOP1, Metric

RMSE = Metric("RMSE", better="lower", unit="K")


def group(name: str = "a", width: int = 32, size: int = 64, **changes: Any) -> dict[str, Any]:
    row = {"group": name, "kind": "channels", "width": width, "size": size, "gone_with": "", "bound_by": ["latency"]}
    return {**row, "at_narrowest": False, **changes}


def branch(width: int, name: str = "a:branch") -> dict[str, Any]:
    return group(name, width, 1, kind="branch")


@pytest.mark.parametrize(
    ("row", "is_warned"),
    [
        (group(width=17), False),
        (group(width=16), True),
        (group(width=32, at_narrowest=True), True),
        (group(width=64), False),
        (group(width=8, bound_by=["recipe"]), False),
        (group(width=0, gone_with="a:branch"), False),
        (group(width=2, size=2), False),
    ],
)
def test_few_channels_are_warned_of(row: dict[str, Any], is_warned: bool) -> None:
    warnings = warn_of_plan([row])
    assert [warning["where"] for warning in warnings] == ["a"] * is_warned
    assert all(warning["kind"] == "few_channels" for warning in warnings)


def test_half_of_the_branches_is_deep() -> None:
    (warning,) = warn_of_plan([branch(0), branch(1)])
    assert (warning["kind"], warning["value"]) == ("deep_cut", 0.5)
    assert warn_of_plan([branch(0), branch(1), branch(1)]) == []


@pytest.mark.parametrize(
    ("metric", "original", "cut", "is_warned"),
    [
        (TOP1, 90.0, 46.0, False),
        (TOP1, 90.0, 45.0, True),
        (TOP1, 90.0, None, True),
        (RMSE, 0.3, 0.59, False),
        (RMSE, 0.3, 0.6, True),
        (RMSE, 0.0, 5.0, False),
        (Metric("score", better="higher"), -3.0, -9.0, False),
    ],
)
def test_little_that_was_inherited_is_warned_of(
    metric: Metric, original: float, cut: float | None, is_warned: bool
) -> None:
    warnings = warn_of_training(metric, original, cut)
    assert bool(warnings) == is_warned
    if is_warned:
        assert metric.describe(original) in warnings[0]["text"]


def test_a_class_is_warned_of_if_it_lost_much_and_not_by_chance() -> None:
    rows = [
        {"label": "cat", "points": -5.0, "chance": 0.04},
        {"label": "dog", "points": -30.0, "chance": 0.06},
        {"label": "cow", "points": -4.9, "chance": 0.0},
    ]
    assert [row["where"] for row in warn_of_classes({"lost_most": rows})] == ["cat"]


def corrupted(name: str, severity: int, before: float, after: float, chance: float | None) -> dict[str, Any]:
    row = {"corruption": name, "severity": severity, "before": before, "after": after}
    return {**row, "drop": before - after, "chance": chance}


def test_a_corruption_is_warned_of_beyond_the_clean_loss_once() -> None:
    clean = corrupted("none", 0, 90.0, 89.0, 0.5)
    rows = [
        clean,
        corrupted("noise", 1, 88.0, 85.1, 0.001),  # 1.9 points beyond
        corrupted("noise", 3, 80.0, 77.0, 0.001),
        corrupted("noise", 5, 70.0, 40.0, 0.001),
        corrupted("blur", 1, 80.0, 60.0, 0.2),
        corrupted("contrast", 1, 80.0, 70.0, None),
    ]
    assert [row["where"] for row in warn_of_corruptions(TOP1, rows)] == [
        "noise of severity 3", "contrast of severity 1",
    ]  # fmt: skip


def test_a_net_that_is_better_under_corruption_too_is_not_warned_of() -> None:
    clean = corrupted("none", 0, 68.0, 89.0, 1.0)
    assert warn_of_corruptions(TOP1, [clean, corrupted("contrast", 1, 13.0, 18.0, 0.0)]) == []
    assert warn_of_corruptions(TOP1, [clean, corrupted("contrast", 1, 11.3, 10.7, 0.0)]) == []  # both are lost there
    assert len(warn_of_corruptions(TOP1, [clean, corrupted("contrast", 1, 40.0, 38.0, 0.0)])) == 1


def test_errors_are_judged_as_a_share() -> None:
    clean = {**corrupted("none", 0, 1.0, 1.0, 1.0), "drop": 0.0}
    rows = [clean, {**corrupted("noise", 1, 2.0, 2.19, 0.01), "drop": 0.19}]
    assert warn_of_corruptions(RMSE, rows) == []
    rows[1] |= {"after": 2.2, "drop": 0.2}
    assert len(warn_of_corruptions(RMSE, rows)) == 1
    rows[1] |= {"drop": None}  # no finite number tells nothing
    assert warn_of_corruptions(RMSE, rows) == []
