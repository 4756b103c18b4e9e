"""Spreads: bounds at any level, agreement with tables, and that none is narrower than a less certain one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, trim_mean
from scipy.stats import t as student
from scipy.stats.mstats import winsorize

from edgeprune.core.measuring.spread import (
    RATIO_ERROR,
    SHARES,
    StudentSpread,
    TableSpread,
    explain_quotient,
    ratio_over_processes,
    spread_over_processes,
)

shares = st.floats(1e-4, 0.4)


@given(st.floats(1e-3, 1e3), st.floats(1e-4, 0.5), st.floats(1, 50), shares, shares)
def test_a_surer_bound_is_never_nearer(
    center: float, error: float, freedom: float, first: float, second: float
) -> None:
    spread = StudentSpread(center, error, freedom)
    (low, high), (low_surer, high_surer) = spread.bound(max(first, second)), spread.bound(min(first, second))
    assert low_surer <= low < center < high <= high_surer


def test_students_interval_is_the_one_of_the_tables() -> None:
    """t with 4 degrees of freedom is 2.776 at 97.5 % (any table of Student's t)."""
    values = np.exp([0.1, 0.2, 0.3, 0.4, 0.5])
    center, low, high = spread_over_processes(values.tolist(), 0.0).interval()
    half = 2.776 * math.sqrt(0.025 / 5)
    assert (math.log(center), math.log(low), math.log(high)) == pytest.approx((0.3, 0.3 - half, 0.3 + half), rel=1e-3)


def test_what_sessions_add_widens_the_interval_and_is_all_of_it_where_processes_agree() -> None:
    spread = spread_over_processes([2.0, 2.0, 2.0], 0.01)
    assert (spread.center, spread.error, spread.freedom) == (pytest.approx(2.0), 0.01, math.inf)
    assert spread.bound(0.025)[1] == pytest.approx(2.0 * math.exp(0.01 * norm.ppf(0.975)))
    plain, wider = (spread_over_processes([2.0, 2.1, 2.05], error) for error in (0.0, 0.01))
    assert wider.error > plain.error
    assert wider.freedom > plain.freedom == 2


def test_fewer_than_two_processes_have_no_spread() -> None:
    with pytest.raises(ValueError, match="two processes or more, found 1"):
        spread_over_processes([1.0], 0.01)
    with pytest.raises(ValueError, match="two processes or more, found 0"):
        ratio_over_processes({1: 1.0}, {2: 1.0})


def test_a_ratio_is_over_the_processes_that_have_both() -> None:
    ratio = ratio_over_processes({0: 9.0, 1: 2.0, 2: 4.0, 3: 2.0}, {1: 1.0, 2: 1.0, 3: 1.0, 7: 5.0})
    logs = np.log([2.0, 4.0, 2.0])
    assert ratio.center == pytest.approx(math.exp(logs.mean()))
    assert ratio.error == pytest.approx(math.hypot(logs.std(ddof=1) / math.sqrt(3), RATIO_ERROR))


@pytest.mark.parametrize("process_ms", [(1.0,) * 12, (1.0,) * 11 + (1.01,), (1.0, 1.0), (1.0, 1.5)])
def test_figures_whose_quotient_a_ratio_holds_need_no_explanation(process_ms: tuple[float, ...]) -> None:
    ratio = ratio_over_processes(dict(enumerate(process_ms)), dict.fromkeys(range(len(process_ms)), 1.0))
    assert explain_quotient(math.exp(np.log(process_ms).mean()), ratio) == ""


@pytest.mark.parametrize("shift", [0.0, -1.0])
def test_a_ratio_that_leaves_out_what_the_figures_hold_says_so(shift: float) -> None:
    process_ms = [1.0, 1.001, 0.999, 1.002, 1.0, 0.998, 1.0, 3.5]
    ratio = replace(ratio_over_processes(dict(enumerate(process_ms)), dict.fromkeys(range(8), 1.0)), shift=shift)
    quotient = math.exp(np.log(process_ms).mean())
    assert explain_quotient(quotient + shift, ratio) == (
        "the ratio leaves out the 1 lowest and the 1 highest of 8 processes"
    )


def test_a_process_that_befell_one_file_only_moves_and_widens_a_ratio_hardly() -> None:
    logs = np.random.default_rng(0).normal(math.log(1.05), 0.004, 12)
    disturbed = logs + np.eye(12)[3] * 0.3 + np.eye(12)[8] * 0.2
    quiet, other = (
        ratio_over_processes(dict(enumerate(np.exp(values))), dict.fromkeys(range(12), 1.0))
        for values in (logs, disturbed)
    )
    assert math.log(other.center) == pytest.approx(trim_mean(disturbed, 0.2))
    own = other.error**2 - RATIO_ERROR**2
    assert own == pytest.approx(11 * winsorize(disturbed, limits=(0.2, 0.2)).var(ddof=1) / (8 * 7))
    assert other.freedom == pytest.approx(7 * (other.error**2 / own) ** 2)
    assert other.center == pytest.approx(quiet.center, rel=0.003)
    assert other.error < 2 * quiet.error


def test_a_change_is_a_ratio_less_one() -> None:
    ratio, change = StudentSpread(1.05, 0.01, 11), StudentSpread(1.05, 0.01, 11, shift=-1.0)
    assert change.bound(0.01) == pytest.approx([end - 1 for end in ratio.bound(0.01)])
    assert change.interval()[0] == pytest.approx(0.05)
    assert ratio.bound(0.01)[1] == pytest.approx(1.05 * math.exp(0.01 * student.ppf(0.99, 11)))


@given(shares)
def test_a_table_of_a_normal_figure_tells_its_bounds(share: float) -> None:
    places = norm.ppf(SHARES)
    table = TableSpread(tuple(5 + 2 * places), tuple(5 - 2 * places))
    expected = np.clip([norm.ppf(share), -norm.ppf(share)], places[0], -places[0])
    expected = np.sign(expected) * np.clip(abs(expected), -places[-1], None)
    assert table.bound(share) == pytest.approx(tuple(5 + 2 * expected))
    assert table.scale(0.5).bound(share) == pytest.approx(tuple(2.5 + expected))
