"""Comparing two artifacts: intervals that hold the truth as often as they say, and equivalence that is not claimed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm, ttest_rel
from scipy.stats import t as student

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


@pytest.mark.parametrize("count", [LEAST_ROUNDS, 12])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_ends_where_the_exact_distribution_of_resampled_means_does(count: int, confidence: float) -> None:
    """Means of resamples of whole numbers have a distribution that convolution gives exactly; the percentiles to look
    at are those of Student's t with the spread of the sample, not of the population (Hesterberg 2015, section 4.4).
    """
    values = np.random.default_rng(4).integers(0, 1000, count)
    chances = np.bincount(values, minlength=1000) / count
    total = chances
    for _ in range(count - 1):
        total = np.convolve(total, chances)
    tail = norm.cdf(-math.sqrt(count / (count - 1)) * student.ppf((1 + confidence) / 2, count - 1))
    exact = np.searchsorted(np.cumsum(total), [tail, 1 - tail]) / count
    step = values.std() / math.sqrt(count)
    assert mean_interval(values.astype(float), confidence) == pytest.approx(exact, abs=0.1 * step)


def test_a_comparison_is_of_95_per_cent() -> None:
    values = np.random.default_rng(6).normal(0, 1, 20)
    assert mean_interval(values) == mean_interval(values, 0.95)


def test_of_an_invalid_run_nothing_follows() -> None:
    compared = compare_rounds(*draw(7, 0.8, 0.02))
    said = render_comparison(("A", "B"), compared, ["B: throttled"]).splitlines()
    assert said[-2:] == ["not valid: B: throttled", "inconclusive: nothing follows from a run that is not valid"]
    assert not any("faster" in line for line in said)


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
    with pytest.raises(UsageError, match="8 rounds"):
        compare_rounds([[1.0]] * 10, [[1.0]] * 9 + [[]])
    for margin in (0, 1, -0.1):
        with pytest.raises(UsageError, match=f"margin: {margin}"):
            compare_rounds([[1.0]] * 9, [[1.0]] * 9, margin)
    assert compare_rounds([[1.0]] * LEAST_ROUNDS, [[1.0]] * LEAST_ROUNDS, 0.999).rounds == LEAST_ROUNDS


def test_a_round_counts_by_its_median_and_rounds_by_their_geometric_mean() -> None:
    first, second = [[1.0, 1.0, 50.0]] * 8, [[2.0, 2.0, 90.0]] * 4 + [[8.0, 8.0, 0.1]] * 4
    compared = compare_rounds(first, second)
    assert (compared.first_ms, compared.second_ms, compared.ratio) == pytest.approx((1.0, 4.0, 4.0))
    assert compared.to_dict()["verdict"] == compared.verdict == "slower"


def test_a_difference_of_exactly_the_margin_is_not_equivalent() -> None:
    same = [[1.0]] * ROUNDS
    assert compare_rounds(same, [[1.02]] * ROUNDS, 0.02).verdict == "slower"
    assert compare_rounds(same, [[1.0199]] * ROUNDS, 0.02).verdict == "equivalent"
    assert compare_rounds([[1.02]] * ROUNDS, same, 0.02).verdict == "faster"
