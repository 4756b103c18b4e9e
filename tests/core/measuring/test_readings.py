"""Whether a meter's readings are believed: its clock against ours, its figures against what boards draw."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.measuring.readings import (
    MOST_WATTS,
    Arrival,
    find_clock_problem,
    find_problem,
    find_value_problem,
    is_enough,
)


def play(rate: float, seconds: float = 2.0, step: float = 0.05, delay: float = 0.01, burst: int = 1) -> list[Arrival]:
    """A meter whose clock runs at a rate; lines come some time after their reading, and in bursts."""
    count = round(seconds / step)
    came = [(at - at % burst + burst - 1) * step + delay for at in range(count)]
    return [Arrival(came[at], 1000 + rate * at * step, 2.5) for at in range(count)]


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (1000, r"run 1000 times as fast as this machine's: are they milliseconds\? print seconds"),
        (1e6, "are they microseconds"),
        (1e9, "are they nanoseconds"),
        (1 / 60, "are they minutes"),
        (0, "stand still at 1000"),
        (1.3, r"run 1\.3 times as fast .*of a clock that runs at the right speed"),
        (0.5, r"run 0\.5 times as fast"),
        (-1, r"jump back, from 1000 to 999\.95"),
    ],
)
def test_a_clock_that_is_none_is_told(rate: float, said: str) -> None:
    assert re.search(said, find_clock_problem(play(rate))), find_clock_problem(play(rate))


def test_a_clock_that_jumps_back_once_is_told() -> None:
    good = play(1.0)
    late = [Arrival(one.came_s + 2, one.at_s - 500, one.value) for one in good]
    assert "jump back, from 1001.95 to 500" in find_clock_problem([*good, *late])


def test_a_run_that_drifts_by_more_than_a_twentieth_is_told() -> None:
    assert "1.07 times" in find_clock_problem(play(1.07, 60.0))
    assert find_clock_problem(play(1.03, 60.0)) == ""
    assert "0.93 times" in find_clock_problem(play(0.93, 60.0))


@given(
    st.floats(0.8, 20.0),
    st.floats(0.01, 0.2),
    st.lists(st.floats(0.0, 0.15), min_size=1, max_size=20),
    st.floats(-1e6, 1e6),
)
def test_a_right_clock_is_believed_however_late_its_lines_come(
    seconds: float, step: float, delays: list[float], offset: float
) -> None:
    came, arrivals = 0.0, []
    for at in range(int(seconds / step)):
        came = max(came, at * step + delays[at % len(delays)])
        arrivals.append(Arrival(came, offset + at * step, 2.0))
    assert find_clock_problem(arrivals) == ""


@pytest.mark.parametrize("burst", [4, 40])
def test_lines_that_come_in_bursts_are_believed(burst: int) -> None:
    assert find_clock_problem(play(1.0, 10.0, burst=burst)) == ""
    assert "milliseconds" in find_clock_problem(play(1000.0, 10.0, burst=burst))


def test_a_few_readings_are_no_reason_to_doubt() -> None:
    assert not is_enough(play(0, 0.5))
    assert is_enough(play(0, 1.0))
    assert find_problem([], "W") == find_problem(play(7.0, 0.4), "W") == ""


def test_powers_that_no_board_draws_are_told() -> None:
    assert "2003 W, more than any board draws: are these milliwatts? print watts" in find_value_problem(
        [2001, 2003, 2010]
    )
    assert find_value_problem([MOST_WATTS] * 3) == find_value_problem([0.0, 0.4, 999.0]) == find_value_problem([]) == ""
    assert "less than nothing: is its shunt the other way round?" in find_value_problem([-3.2, -3.0, 1.0])
    assert find_value_problem([-0.05, -0.05]) == ""


def test_a_count_of_energy_is_judged_by_its_power() -> None:
    def count(watts: float) -> list[Arrival]:
        return [Arrival(at / 10, at / 10, watts * at / 10) for at in range(20)]

    assert find_problem(count(12.0), "J") == ""
    assert "12000 W" in find_problem(count(12e3), "J").replace("1.2e+04", "12000")
    assert "less than nothing" in find_problem(count(-5.0), "J")
