"""Comparing two artifacts: intervals that hold the truth as often as they say, and equivalence that is not claimed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from edgeprune.core.comparison import LEAST_ROUNDS, compare_rounds, equivalence_p, mean_interval, render_comparison
from edgeprune.errors import UsageError

ROUNDS = 12


def draw(seed: int, ratio: float, spread: float, drift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Rounds of A and of B; both share how the board drifts."""
    random = np.random.default_rng(seed)
    board = np.exp(drift * np.linspace(-1, 1, ROUNDS))[:, None]
    first, second = (np.exp(random.normal(0, spread, (ROUNDS, 1))) * np.ones((1, 5)) for _ in range(2))
    return 2.0 * board * first, 2.0 * ratio * board * second


@pytest.mark.parametrize("count", [LEAST_ROUNDS, 12, 30])
def test_the_interval_holds_the_truth_as_often_as_it_says(count: int) -> None:
    """The plain percentile interval of 8 values holds it in 86 % only."""
    random, held = np.random.default_rng(1), 0
    for _ in range(300):
        low, high = mean_interval(random.normal(0.3, 1, count))
        held += low <= 0.3 <= high
    assert 0.92 <= held / 300 <= 0.985


def test_what_changes_over_time_changes_both_and_does_not_widen_the_interval() -> None:
    still, drifting = (compare_rounds(*draw(3, 0.9, 0.003, drift)) for drift in (0.0, 0.5))
    assert drifting.ratio == pytest.approx(still.ratio, rel=1e-9)
    assert (drifting.low, drifting.high) == pytest.approx((still.low, still.high), rel=1e-9)
    assert drifting.low < 0.9 < drifting.high < drifting.low * 1.02


@pytest.mark.parametrize(
    ("ratio", "spread", "verdict"),
    [(1.0, 0.005, "equivalent"), (0.8, 0.02, "faster"), (1.25, 0.02, "slower"), (1.01, 0.1, "inconclusive")],
)
def test_a_verdict_says_what_is_shown(ratio: float, spread: float, verdict: str) -> None:
    found = compare_rounds(*draw(7, ratio, spread))
    assert found.verdict == verdict
    assert found.low < found.ratio < found.high
    assert found.second_ms / found.first_ms == pytest.approx(found.ratio)
    said = {"equivalent": "B and A are equivalent within 2 %", "inconclusive": "inconclusive: neither"}
    assert said.get(verdict, f"B is {verdict} than A") in render_comparison(("A", "B"), found)


def test_a_small_difference_that_is_certain_is_still_equivalent() -> None:
    found = compare_rounds(*draw(5, 1.01, 0.001))
    assert (found.low > 1, found.verdict) == (True, "equivalent")


def test_equivalence_is_claimed_wrongly_no_oftener_than_it_says() -> None:
    """At the very margin the test errs in 5 % of all cases, beyond it in fewer."""
    random, margin = np.random.default_rng(2), math.log(1.02)
    at, beyond = (
        np.mean([equivalence_p(random.normal(true, 0.01, 10), margin) < 0.05 for _ in range(1000)])
        for true in (margin, 1.5 * margin)
    )
    assert 0.03 <= at <= 0.07
    assert beyond < 0.01


def test_the_p_value_is_that_of_two_one_sided_t_tests() -> None:
    first, second = (np.log(np.median(rounds, axis=1)) for rounds in draw(11, 1.005, 0.01))
    margin = math.log(1.02)
    above = ttest_rel(second + margin, first, alternative="greater").pvalue
    below = ttest_rel(second - margin, first, alternative="less").pvalue
    assert equivalence_p(second - first, margin) == pytest.approx(max(above, below))


def test_rounds_that_never_differ_are_decided_too() -> None:
    same = [[1.0]] * ROUNDS
    assert compare_rounds(same, same).verdict == "equivalent"
    assert compare_rounds(same, [[1.5]] * ROUNDS).verdict == "slower"


@pytest.mark.parametrize(("first", "second"), [(ROUNDS, ROUNDS - 1), (LEAST_ROUNDS - 1, LEAST_ROUNDS - 1), (0, 0)])
def test_too_few_rounds_are_refused(first: int, second: int) -> None:
    with pytest.raises(UsageError, match="a comparison needs 8 rounds of both at least"):
        compare_rounds([[1.0]] * first, [[1.0]] * second)


def test_an_empty_round_and_an_odd_margin_are_refused() -> None:
    with pytest.raises(UsageError, match="8 rounds"):
        compare_rounds([[1.0]] * 9 + [[]], [[1.0]] * 10)
    with pytest.raises(UsageError, match="margin: 0"):
        compare_rounds([[1.0]] * 9, [[1.0]] * 9, 0)
