"""Outputs before and after held against each other, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from edgeprune.core.explaining.outputs import (
    compare_classes,
    compare_errors,
    find_chance,
    find_errors,
    find_excess_chance,
    is_by_class,
)


def answer(*classes: int, count: int = 3) -> np.ndarray:
    return np.eye(count)[list(classes)]


def test_classes_are_counted_before_and_after() -> None:
    targets = np.array([0, 0, 0, 0, 1, 1, 2])
    before, after = answer(0, 0, 0, 1, 1, 1, 2), answer(0, 2, 2, 0, 1, 1, 2)
    compared = compare_classes(before, after, targets, ["cat", "dog", "cow"])
    assert compared["confusion_before"] == [[3, 1, 0], [0, 2, 0], [0, 0, 1]]
    assert compared["confusion_after"] == [[2, 0, 2], [0, 2, 0], [0, 0, 1]]
    assert (compared["correct_before"], compared["correct_after"]) == ([3, 2, 1], [2, 2, 1])
    (lost,) = compared["lost_most"]
    assert (lost["label"], lost["points"]) == ("cat", -25.0)
    assert lost["chance"] == 1.0  # 2 worse, 1 better, of three classes
    assert compared["confused_more"] == [{"target": "cat", "answer": "cow", "before": 0, "after": 2}]


def test_the_class_that_lost_the_largest_share_comes_first() -> None:
    targets = np.array([0] * 10 + [1] * 2 + [2])
    before = answer(*targets)
    after = answer(*([1, 1] + [0] * 8), 0, 1, 2)
    assert [row["label"] for row in compare_classes(before, after, targets, [])["lost_most"]] == ["1", "0"]


def test_answers_that_became_right_are_no_confusion() -> None:
    targets = np.array([0, 0, 1])
    compared = compare_classes(answer(1, 1, 1), answer(0, 0, 1), targets, [])
    assert compared["confused_more"] == compared["lost_most"] == []


def test_many_classes_have_no_matrix() -> None:
    targets = np.arange(60)
    compared = compare_classes(answer(*targets, count=60), answer(*targets, count=60), targets, ["only one"])
    assert compared["confusion_before"] is None
    assert compared["labels"][59] == "59"
    assert compared["lost_most"] == compared["confused_more"] == []


def test_a_chance_is_that_of_the_exact_sign_test() -> None:
    before, after = np.array([0, 0, 0, 0, 0, 1, 0.0]), np.array([1, 1, 1, 1, 1, 0, 0.0])
    assert find_chance(before, after) == pytest.approx(binomtest(5, 6, alternative="greater").pvalue)
    assert find_chance(before, before) == 1.0
    assert find_chance(after, before) > 0.9


def test_an_excess_is_what_comes_on_top_of_the_clean_loss() -> None:
    none, lost = np.zeros(20), np.ones(20)
    assert find_excess_chance((none, lost), (none, lost)) == 1.0
    assert find_excess_chance((none, none), (none, lost)) < 1e-5


def test_errors_of_single_inputs_fit_the_task() -> None:
    classes = find_errors(answer(0, 1), np.array([0, 2]))
    assert classes is not None
    assert classes.tolist() == [0, 1]
    regression = find_errors(np.array([[3.0, 4.0], [0, 0]]), np.zeros((2, 2)))
    assert regression is not None
    assert regression == pytest.approx([12.5**0.5, 0])
    column = find_errors(np.array([[1.0], [2.0]]), np.array([1.0, 0.0]))
    assert column is not None
    assert column.tolist() == [0, 2]
    places = find_errors(np.moveaxis(answer(0, 1, 2, 2).reshape(1, 2, 2, 3), -1, 1), np.array([[[0, 1], [2, 0]]]))
    assert places is not None
    assert places.tolist() == [0.25]
    assert find_errors(np.zeros((2, 1)), np.array([0, 1])) is None  # a logit of two classes is no regression
    assert find_errors(np.zeros((2, 3)), np.zeros((2, 4))) is None
    assert find_errors(np.array([[np.nan], [0.0]]), np.zeros((2, 1))) is None


@pytest.mark.parametrize(
    ("outputs", "targets", "expected"),
    [
        (np.zeros((2, 3)), np.array([0, 2]), True),
        (np.zeros((2, 3)), np.array([0, 3]), False),
        (np.zeros((2, 3)), np.array([-1, 0]), False),
        (np.zeros((2, 1)), np.array([0, 0]), False),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), False),
        (np.zeros((2, 3, 4)), np.zeros((2, 4), np.int64), False),
    ],
)
def test_classes_are_known_by_outputs_and_targets(outputs: np.ndarray, targets: np.ndarray, expected: bool) -> None:
    assert is_by_class(outputs, targets) == expected


def test_quantiles_of_errors_and_the_inputs_that_lost_most() -> None:
    before, after = np.zeros(101), np.arange(101.0)
    compared = compare_errors(before, after, "K")
    assert {row["share"]: row["after"] for row in compared["quantiles"]} == {
        0.5: 50,
        0.9: 90,
        0.95: 95,
        0.99: 99,
        1: 100,
    }
    assert [row["input"] for row in compared["lost_most"]] == [100, 99, 98, 97, 96]
    assert compare_errors(after, before, "")["lost_most"] == []
