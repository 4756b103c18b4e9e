"""Energy of one inference from readings: integrals, idle, uncertainty, and when there is no figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.core.measuring.energy import (
    METER_CLASSES,
    Energy,
    Meter,
    Readings,
    Window,
    find_energies,
    make_readings,
    parse_windows,
)

SHUNT = Meter("INA3221 VDD_IN", "shunt", "W", 0.02, True, 0.0, 0.6)
RAPL = Meter("RAPL package-0", "rapl", "J", 0.02, False, 0.0, 0.6)
WINDOWS = (Window("", 1, 2, 0), Window("net", 3, 5, 200), Window("", 6, 7, 0))
untimed = settings(deadline=None)


def power(at_s: float, idle_w: float = 2.0, busy_w: float = 5.0) -> float:
    return busy_w if 2.5 <= at_s <= 5.5 else idle_w


def read_power(meter: Meter, of: Callable[[float], float], poll_s: float = 0.02) -> Readings:
    """Readings of a power from 0 to 8 s; a counter's are of its integral."""
    times = np.arange(0.003, 8.0, poll_s)
    if meter.unit == "W":
        return make_readings(meter, [(at, of(at)) for at in times])
    fine = np.arange(0, 8, 1e-3)
    joules = np.cumsum([of(at) for at in fine]) * 1e-3
    return make_readings(meter, [(at, np.interp(at, fine, joules)) for at in times])


def find(readings: Readings, windows: tuple[Window, ...] = WINDOWS) -> Energy:
    return find_energies(readings, windows)["net"]


@pytest.mark.parametrize(("at", "where"), [(0, "at rest"), (1, "while the model ran"), (2, "at rest")])
def test_energy_of_a_board_that_others_work_on_is_no_figure(at: int, where: str) -> None:
    quiet = tuple(replace(one, others_cores=0.2, cores=2) for one in WINDOWS)
    found = find(read_power(SHUNT, power), (*quiet[:at], replace(quiet[at], others_cores=1.03), *quiet[at + 1 :]))
    assert found.energy_mj is None
    assert found.reason == f"not measurable: the board was not this run's own: others took 1.03 of 2 cores {where}"
    assert find(read_power(SHUNT, power), quiet).energy_mj == pytest.approx(30.0, rel=1e-3)


@pytest.mark.parametrize("meter", [SHUNT, RAPL], ids=lambda meter: meter.unit)
def test_energy_is_power_above_idle_times_the_time_of_one_inference(meter: Meter) -> None:
    found = find(read_power(meter, power))
    assert found.energy_mj == pytest.approx(30.0, rel=1e-3)
    assert (found.idle_w, found.power_w) == (pytest.approx(2, rel=1e-3), pytest.approx(5, rel=1e-3))
    assert (found.inferences, found.duration_s, found.reason) == (200, 2, "")
    assert 95 <= found.samples <= 101
    assert found.rate_hz == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize("meter", [SHUNT, RAPL], ids=lambda meter: meter.unit)
def test_a_power_that_moves_is_integrated(meter: Meter) -> None:
    def sawtooth(at_s: float) -> float:
        return power(at_s) + (at_s * 4 % 1 if 2.5 <= at_s <= 5.5 else 0)

    assert find(read_power(meter, sawtooth)).energy_mj == pytest.approx(35.0, rel=0.01)


def test_uneven_readings_weigh_by_their_time() -> None:
    """A rise from 5 to 9 W over the window, seen often at its begin and seldom at its end: 7 W on average."""
    often, seldom = np.arange(2.5, 3.5, 0.01), np.arange(3.5, 5.6, 0.1)
    rows = [(at, 2.0) for at in np.arange(0, 2.5, 0.02)] + [(at, 2.0) for at in np.arange(5.7, 8, 0.02)]
    rows += [(at, 5 + 2 * (at - 3)) for at in (*often, *seldom)]
    assert find(make_readings(SHUNT, rows)).power_w == pytest.approx(7.0, rel=1e-3)


def test_the_idle_power_lies_between_that_before_and_after() -> None:
    found = find(read_power(SHUNT, lambda at: power(at) + (0.4 if at > 5.5 else 0)))
    assert found.idle_w == pytest.approx(2.2, rel=1e-3)
    assert found.energy_mj == pytest.approx(28.0, rel=1e-3)
    assert found.uncertainty_mj is not None
    assert found.uncertainty_mj >= 0.2 * 2 / 200 * 1e3


@pytest.mark.parametrize(("step", "least"), [(0.0, 0.02 * 30), (0.5, 2 * 0.5 / math.sqrt(12) * 10)])
def test_the_uncertainty_holds_the_meters_gain_and_its_resolution(step: float, least: float) -> None:
    found = find(read_power(replace(SHUNT, step=step), power))
    assert found.uncertainty_mj is not None
    assert least * 0.999 <= found.uncertainty_mj <= 3 * least


def test_the_uncertainty_of_a_meter_of_coarse_steps_is_that_of_a_value_rounded_to_them() -> None:
    """A value rounded to steps lies off by step / sqrt(12) (GUM, JCGM 100:2008, F.2.2.1), at 95 % by twice as much."""
    found = find(read_power(replace(SHUNT, step=0.5), power))
    one_w, gain_w = 2 * 0.5 / math.sqrt(12), 0.02 * 3
    in_all_w = math.hypot(gain_w, one_w, math.hypot(one_w, one_w) / 2)
    assert found.uncertainty_mj == pytest.approx(in_all_w * 2 / 200 * 1e3, rel=0.01)


def test_noise_widens_the_uncertainty() -> None:
    random = np.random.default_rng(1)
    quiet = find(read_power(SHUNT, power))
    noisy = find(read_power(SHUNT, lambda at: power(at) + float(random.normal(0, 1))))
    assert quiet.uncertainty_mj is not None
    assert noisy.uncertainty_mj is not None
    assert noisy.uncertainty_mj > 1.5 * quiet.uncertainty_mj
    assert noisy.energy_mj == pytest.approx(30, abs=1.5 * noisy.uncertainty_mj)


@pytest.mark.parametrize("poll_s", [0.11, 0.5, 3.0, 100.0])
def test_too_few_readings_are_no_figure(poll_s: float) -> None:
    found = find(read_power(SHUNT, power, poll_s))
    assert found.energy_mj is None
    assert found.reason.startswith("not measurable: ")
    assert "at least 20 are needed" in found.reason


def test_too_few_readings_say_how_long_would_do() -> None:
    found = find(read_power(SHUNT, power, 0.11))
    assert found.reason == (
        "not measurable: 18 new readings of INA3221 VDD_IN in 2 s while the model ran, at least 20 are needed; "
        "[protocol] min_duration_s = 4 may do"
    )


def test_a_counter_that_ticked_too_seldom_is_no_figure_however_often_it_was_read() -> None:
    found = find(read_power(RAPL, power), WINDOWS)
    slow = read_power(RAPL, power)
    ticks = replace(slow, values=slow.values[(np.arange(slow.values.size) // 10) * 10])
    assert found.reason == ""
    assert "10 new readings" in find(ticks).reason or "9 new readings" in find(ticks).reason


def test_a_gauge_that_stands_still_is_no_figure() -> None:
    gauge = Meter("battery", "battery", "W", 0.1, False, 0.0, 30)
    assert "0 new readings of battery in 2 s while the model ran" in find(read_power(gauge, power)).reason


def test_a_meter_that_was_lost_is_no_figure_and_says_why() -> None:
    whole = read_power(SHUNT, power)
    cut = Readings(
        SHUNT, whole.times_s[:200], whole.values[:200], "the battery is charging, not discharging; unplug it"
    )
    assert "charging" in find(cut).reason
    assert find(cut).energy_mj is None


def test_a_meter_that_was_silent_for_long_is_no_figure() -> None:
    whole = read_power(SHUNT, power)
    there = (whole.times_s < 3.5) | (whole.times_s > 4.3)
    assert "was silent for 0.8" in find(Readings(SHUNT, whole.times_s[there], whole.values[there])).reason


def test_a_model_that_draws_no_more_than_idle_is_no_figure() -> None:
    found = find(read_power(replace(SHUNT, step=0.04), lambda at: power(at, 2.0, 2.01)))
    assert "0.01 W above idle is within the uncertainty of INA3221 VDD_IN" in found.reason
    assert (found.energy_mj, found.uncertainty_mj) == (None, None)
    assert find(read_power(SHUNT, lambda at: power(at, 5.0, 2.0))).energy_mj is None


levels = st.floats(0.1, 50)


@untimed
@given(levels, levels, st.sampled_from([0.01, 0.02, 0.05]), st.sampled_from(sorted(METER_CLASSES)))
def test_any_two_powers_give_their_difference_or_none(idle_w: float, above_w: float, poll_s: float, kind: str) -> None:
    meter = Meter("meter", kind, "W", poll_s, True, 0.0, 1.0)
    found = find(read_power(meter, lambda at: power(at, idle_w, idle_w + above_w), poll_s))
    assert found.energy_mj == pytest.approx(above_w * 10, rel=1e-6)
    assert found.uncertainty_mj == pytest.approx(above_w * 10 * METER_CLASSES[kind].gain_error, rel=1e-3, abs=1e-6)


rows = st.dictionaries(
    st.sampled_from(["name", "begin_s", "end_s", "count"]),
    st.none() | st.text(max_size=3) | st.floats() | st.integers(),
)


@untimed
@given(st.lists(rows | st.none() | st.integers(), max_size=5) | st.none() | st.text(max_size=5))
def test_no_windows_upset_the_parser(given_rows: Any) -> None:
    try:
        windows = parse_windows(given_rows)
    except ValueError:
        return
    assert len(windows) % 2 == 1
    assert all(math.isfinite(window.seconds) and window.seconds > 0 for window in windows)


@untimed
@given(st.lists(st.lists(st.floats(), min_size=2, max_size=2) | st.lists(st.floats(), max_size=3), max_size=5))
def test_no_readings_upset_the_figures(given_rows: list[list[float]]) -> None:
    try:
        readings = make_readings(SHUNT, given_rows)
    except ValueError:
        return
    assert find(readings).reason.startswith("not measurable")
    assert np.all(np.diff(readings.times_s) > 0)


@pytest.mark.parametrize("meter", [replace(SHUNT, kind="magic"), replace(SHUNT, unit="V")])
def test_a_meter_of_an_unknown_kind_is_refused(meter: Meter) -> None:
    with pytest.raises(ValueError, match="is unknown"):
        make_readings(meter, [])
