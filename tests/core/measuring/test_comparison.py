"""Comparing two artifacts: intervals that hold the truth as often as they say, and equivalence that is not claimed."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest
from scipy.stats import ttest_rel

from edgeprune.core.measuring.comparison import (
    LEAST_PROCESSES,
    Comparison,
    compare_processes,
    equivalence_p,
    render_comparison,
)
from edgeprune.core.measuring.spread import StudentSpread, ratio_over_processes
from edgeprune.errors import UsageError

PROCESSES = 12


def number(values: Iterable[float]) -> dict[int, float]:
    """What each process took, by its number."""
    return dict(enumerate(values))


def spread_of(logs: np.ndarray) -> StudentSpread:
    """That of ratios, of which the logarithms are given."""
    return ratio_over_processes(number(np.exp(logs)), number(np.ones(len(logs))))


def draw(seed: int, ratio: float, spread: float, drift: float = 0.0) -> tuple[dict[int, float], dict[int, float]]:
    """What processes took of A and of B; both share how the board drifts."""
    random = np.random.default_rng(seed)
    board = np.exp(drift * np.linspace(-1, 1, PROCESSES))
    first, second = (np.exp(random.normal(0, spread, PROCESSES)) for _ in range(2))
    return number(2.0 * board * first), number(2.0 * ratio * board * second)


def test_of_an_invalid_run_nothing_follows() -> None:
    compared = compare_processes(*draw(7, 0.8, 0.02))
    said = render_comparison(("A", "B"), compared, ["B: throttled"]).splitlines()
    assert said[-2:] == ["not valid: B: throttled", "inconclusive: nothing follows from a run that is not valid"]
    assert not any("faster" in line for line in said)


def test_what_changes_over_time_changes_both_and_does_not_widen_the_interval() -> None:
    still, drifting = (compare_processes(*draw(3, 0.9, 0.003, drift)) for drift in (0.0, 0.5))
    assert drifting.ratio == pytest.approx(still.ratio, rel=1e-9)
    assert (drifting.low, drifting.high) == pytest.approx((still.low, still.high), rel=1e-9)
    assert drifting.low < 0.9 < drifting.high < drifting.low * 1.02


def test_figures_that_contradict_the_ratio_are_explained() -> None:
    quiet, slow = (dict.fromkeys(range(8), ms) for ms in (20.0, 20.1))
    assert compare_processes(quiet, slow).basis == ""
    lines = render_comparison(("A", "B"), compare_processes(quiet, slow | {3: 60.0})).splitlines()
    assert lines[1:4] == [
        "B B: 23.04 ms",
        "B / A: 1.0050 (+0.50 %), 95 % interval 1.0011 to 1.0089, 8 processes that took turns",
        "the two figures alone: +15.22 %; the ratio leaves out the 1 lowest and the 1 highest of 8 processes",
    ]


@pytest.mark.parametrize(
    ("ratio", "spread", "verdict"),
    [(1.0, 0.005, "equivalent"), (0.8, 0.02, "faster"), (1.25, 0.02, "slower"), (1.01, 0.1, "inconclusive")],
)
def test_a_verdict_says_what_is_shown(ratio: float, spread: float, verdict: str) -> None:
    found = compare_processes(*draw(7, ratio, spread))
    assert found.verdict == verdict
    assert found.low < found.ratio < found.high
    assert found.second_ms / found.first_ms == pytest.approx(found.ratio, rel=0.02)
    said = {"equivalent": "B and A are equivalent within 2 %", "inconclusive": "inconclusive: neither"}
    assert said.get(verdict, f"B is {verdict} than A") in render_comparison(("A", "B"), found)


def test_a_small_difference_that_is_certain_is_still_equivalent() -> None:
    found = compare_processes(*draw(5, 1.01, 0.001))
    assert (found.low > 1, found.verdict) == (True, "equivalent")


def test_equivalence_is_claimed_wrongly_no_oftener_than_it_says() -> None:
    """At the very margin the test errs in 5 % of all cases, beyond it in fewer."""
    random, margin = np.random.default_rng(2), math.log(1.02)
    at, beyond = (
        np.mean([equivalence_p(spread_of(random.normal(true, 0.01, 10)), 0.02) < 0.05 for _ in range(1000)])
        for true in (margin, 1.5 * margin)
    )
    assert 0.02 <= at <= 0.06
    assert beyond < 0.01


def test_the_p_value_is_that_of_two_one_sided_t_tests() -> None:
    first, second = (np.log(list(taken.values())) for taken in draw(11, 1.005, 0.01))
    margin = math.log(1.02)
    logs = second - first
    within = StudentSpread(math.exp(logs.mean()), logs.std(ddof=1) / len(logs) ** 0.5, len(logs) - 1)
    above = ttest_rel(second + margin, first, alternative="greater").pvalue
    below = ttest_rel(second - margin, first, alternative="less").pvalue
    assert equivalence_p(within, 0.02) == pytest.approx(max(above, below))


def test_processes_that_never_differ_are_decided_too() -> None:
    same = number([1.0] * PROCESSES)
    assert compare_processes(same, same).verdict == "equivalent"
    assert compare_processes(same, number([1.5] * PROCESSES)).verdict == "slower"


@pytest.mark.parametrize(("first", "second"), [(PROCESSES, 7), (7, PROCESSES), (0, 0)])
def test_too_few_processes_that_timed_both_are_refused(first: int, second: int) -> None:
    with pytest.raises(UsageError, match=f"needs 8 processes that timed both at least; found {min(first, second)}"):
        compare_processes(number([1.0] * first), number([1.0] * second))


def test_only_processes_that_timed_both_count() -> None:
    first = number([1.0] * 9) | {20: 50.0}
    second = number([2.0] * 9) | {30: 0.01}
    compared = compare_processes(first, second)
    assert (compared.processes, compared.first_ms, compared.second_ms) == pytest.approx((9, 1.0, 2.0))


def test_an_odd_margin_is_refused() -> None:
    least = number([1.0] * LEAST_PROCESSES)
    for margin in (0, 1, -0.1):
        with pytest.raises(UsageError, match=f"margin: {margin}"):
            compare_processes(least, least, margin)
    assert compare_processes(least, least, 0.999).processes == LEAST_PROCESSES


def test_processes_count_by_their_geometric_mean() -> None:
    compared = compare_processes(number([1.0] * 8), number([2.0] * 4 + [8.0] * 4))
    assert (compared.first_ms, compared.second_ms, compared.ratio) == pytest.approx((1.0, 4.0, 4.0))
    assert compared.to_dict()["verdict"] == compared.verdict == "slower"


def test_a_difference_of_exactly_the_margin_is_not_equivalent() -> None:
    same = number([1.0] * PROCESSES)
    assert compare_processes(same, number([1.02] * PROCESSES), 0.02).verdict == "slower"
    assert compare_processes(same, number([1.016] * PROCESSES), 0.02).verdict == "equivalent"
    assert compare_processes(number([1.02] * PROCESSES), same, 0.02).verdict == "faster"


@pytest.mark.parametrize(("p_equivalent", "verdict"), [(0.0499, "equivalent"), (0.05, "inconclusive")])
def test_equivalence_is_shown_below_five_per_cent(p_equivalent: float, verdict: str) -> None:
    assert Comparison(1.0, 1.0, 1.0, 0.99, 1.01, 0.02, p_equivalent, 12).verdict == verdict
