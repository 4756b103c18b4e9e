"""How sure an accuracy and its drop are: on the same inputs, for rights and wrongs and for any other metric."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from edgeprune.core.measuring.paired_quality import compare_quality, find_quality_spread, parse_quality_spread
from edgeprune.core.metric import Metric


def accuracy(outputs: Any, targets: Any) -> float:
    return 100 * float(np.mean(np.argmax(outputs, 1) == targets))


def rmse(outputs: Any, targets: Any) -> float:
    return float(np.sqrt(np.mean((outputs[:, 0] - targets) ** 2)))


TOP1 = Metric("top-1 accuracy", accuracy, better="higher", unit="%")
RMSE = Metric("RMSE", rmse, better="lower", unit="K")


def answer(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs `[N, 2]` that are right where it is said, and their targets."""
    targets = np.arange(len(right)) % 2
    return np.eye(2)[np.where(right, targets, 1 - targets)], targets


def spread_of(before: np.ndarray, after: np.ndarray) -> Any:
    outputs, targets = answer(after)
    return find_quality_spread(TOP1, targets, outputs, find_quality_spread(TOP1, targets, answer(before)[0], None))


def test_an_accuracy_has_the_interval_of_wilson() -> None:
    """81 of 263: 0.2553 to 0.3662 (Newcombe, Statistics in Medicine 17, 1998, 857-872, table I, method 3)."""
    right = np.arange(263) < 81
    low, high = spread_of(right, right).quality.bound(0.025)
    assert (low, high) == pytest.approx((25.53, 36.62), abs=0.02)


def test_no_difference_on_450_inputs_is_not_none_at_all() -> None:
    right = np.arange(450) < 440
    spread = spread_of(right, right)
    low, high = spread.drop.bound(0.025)
    assert (spread.lost, spread.gained) == (0, 0)
    assert -0.6 < low < -0.3
    assert low == pytest.approx(-high)


def test_a_drop_is_known_better_where_the_same_inputs_stay_wrong() -> None:
    """7 of 450 lost: 1.56 points. 27 lost and 20 gained are as many points, and much less sure."""
    few = spread_of(np.arange(450) < 440, np.arange(450) < 433)
    before, after = np.arange(450) < 420, np.ones(450, bool)
    after[:27], after[440:] = False, False
    many = spread_of(before, after)
    assert (few.lost, few.gained, many.lost - many.gained) == (7, 0, 7)
    widths = [spread.drop.bound(0.025)[1] - spread.drop.bound(0.025)[0] for spread in (few, many)]
    assert widths[1] > 2 * widths[0]
    low, high = few.drop.bound(0.025)
    assert 0.2 < low < 1.56 < high < 3.0


@pytest.mark.parametrize("true_points", [0.0, 1.5])
def test_intervals_of_a_drop_hold_the_truth_as_often_as_they_say(true_points: float) -> None:
    random, held, trials = np.random.default_rng(4), 0, 400
    for _ in range(trials):
        draws = random.random(450)
        before, after = draws < 0.97, (draws < 0.95 - true_points / 100) | (draws > 0.98)
        low, high = spread_of(before, after).drop.bound(0.025)
        held += low <= true_points <= high
    assert 0.925 <= held / trials <= 0.985


def test_any_other_metric_is_resampled_over_the_same_inputs_for_both() -> None:
    """What both nets err in alike says nothing of how they differ."""
    random = np.random.default_rng(1)
    targets, shared = random.normal(size=400), random.normal(size=400)
    before = (targets + shared)[:, None]
    after = (targets + 1.1 * shared)[:, None]
    original = find_quality_spread(RMSE, targets, before, None)
    spread = find_quality_spread(RMSE, targets, after, original)
    assert spread is not None
    assert spread.drop is not None
    assert spread.lost is None
    (low, high), (low_drop, high_drop) = spread.quality.bound(0.025), spread.drop.bound(0.025)
    value = rmse(after, targets)
    assert low < value < high
    assert (high - low) / 2 == pytest.approx(1.96 * value / math.sqrt(2 * 400), rel=0.15)  # of a normal error's RMSE
    assert low_drop < rmse(after, targets) - rmse(before, targets) < high_drop
    assert high_drop - low_drop < (high - low) / 5


def test_a_metric_that_gives_no_numbers_has_no_spread() -> None:
    metric = Metric("odd", lambda outputs, targets: math.nan, better="higher")
    assert find_quality_spread(metric, np.zeros(20), np.zeros((20, 1)), None) is None


def test_a_metric_that_looks_at_the_order_of_inputs_has_no_spread() -> None:
    """Drawn anew they are in no order, and what it gives then says nothing of them."""

    def is_sorted(outputs: Any, targets: Any) -> float:
        return float(np.all(np.diff(outputs[:, 0]) > 0))

    outputs = np.arange(50.0)[:, None]
    assert find_quality_spread(Metric("order", is_sorted, better="higher"), np.zeros(50), outputs, None) is None


def test_a_metric_that_fails_on_some_draws_is_resampled_on_the_others() -> None:
    """A class of which few inputs are there is missing from some draws."""

    def recall_of_the_rare(outputs: Any, targets: Any) -> float:
        return float(np.sum((targets == 1) & (outputs[:, 0] > 0)) / np.sum(targets == 1))

    targets = (np.arange(60) < 3).astype(int)
    spread = find_quality_spread(Metric("recall", recall_of_the_rare, better="higher"), targets, np.ones((60, 1)), None)
    assert spread is not None
    assert spread.drop is None
    assert spread.quality.bound(0.025) == (1.0, 1.0)


def test_files_of_other_inputs_are_not_compared() -> None:
    spread = spread_of(np.ones(40, bool), np.ones(40, bool))
    assert compare_quality(TOP1, spread, spread) is not None
    assert compare_quality(TOP1, spread, replace(spread, inputs_sha256="b" * 64)) is None
    assert compare_quality(TOP1, spread, spread_of(np.ones(41, bool), np.ones(41, bool))) is None


@pytest.mark.parametrize("metric", [TOP1, RMSE])
def test_a_spread_is_read_back_as_it_was_written(metric: Metric) -> None:
    outputs, targets = answer(np.arange(300) % 7 > 0)
    original = find_quality_spread(metric, targets, outputs[:, :2], None)
    spread = find_quality_spread(metric, targets, outputs[:, :2], original)
    assert spread is not None
    assert parse_quality_spread(json.loads(json.dumps(asdict(spread)))) == spread
    assert parse_quality_spread(None) is None
