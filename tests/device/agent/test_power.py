"""Power meters of boards: what they say, on trees as boards have them, and energies over time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from device_trees import write_tree
from edgeprune_agent import power, power_parsers
from edgeprune_agent.errors import AgentError
from hypothesis import given, settings
from hypothesis import strategies as st
from places import RECORDS

from edgeprune.core.measuring.energy import METER_CLASSES, Energy, Meter, Window, find_energies, make_readings
from edgeprune.core.target import BOARD_METERS

PARSED = json.loads((RECORDS / "power.json").read_text())
METERS = json.loads((RECORDS / "meters.json").read_text())
OVER_TIME = json.loads((RECORDS / "energy.json").read_text())
RATE = 100
"""Inferences a second in the records over time."""
MARGIN_S = 0.5
VCGENCMD = '#!/bin/sh\ncat "$(dirname "$0")/pmic.txt"\n'
BATTERY = "/sys/class/power_supply/battery/"
untimed = settings(deadline=None)


def board_name(record: Mapping[str, Any]) -> str:
    return str(record["board"])


@pytest.mark.parametrize("record", PARSED, ids=lambda record: f"{record['parser']}: {record['board']}")
def test_a_parser_gives_the_recorded_fact(record: dict[str, Any]) -> None:
    found = getattr(power_parsers, record["parser"])(*record["output"])
    expected = record["fact"]
    assert found == (pytest.approx(expected) if isinstance(expected, (int, float)) else tuple_like(found, expected))


def tuple_like(found: Any, expected: Any) -> Any:
    return tuple(expected) if isinstance(found, tuple) else expected


@untimed
@given(st.text(st.characters(codec="utf-8")) | st.text("\t\n:=0123456789.-,eE ()[]VACHTSMcurrentvol_", max_size=300))
def test_no_text_upsets_a_parser(text: str) -> None:
    watts = power_parsers.parse_pmic(text)
    assert watts is None or (math.isfinite(watts) and watts >= 0)
    assert all(value >= 0 for value in power_parsers.parse_odpm(text).values())
    reading = power_parsers.parse_reading(text)
    assert reading is None or all(map(math.isfinite, reading))


@untimed
@given(st.floats(-1e9, 1e9), st.floats(-1e3, 1e3), st.sampled_from(["", ",x", " , 1"]))
def test_a_reading_is_read_back(seconds: float, watts: float, rest: str) -> None:
    assert power_parsers.parse_reading(f" {seconds!r}, {watts!r}{rest}\n") == (seconds, watts)


amperes = st.floats(0.001, 9.9)


@untimed
@given(st.dictionaries(st.from_regex(r"[A-Z0-9]{1,6}_[A-Z0-9]{1,6}", fullmatch=True), st.tuples(amperes, amperes)))
def test_both_formats_of_a_pi_5_say_the_same(rails: dict[str, tuple[float, float]]) -> None:
    numbered = [f"  {rail}_A current({at})={a:.8f}A" for at, (rail, (a, _)) in enumerate(rails.items())]
    numbered += [f"  {rail}_V volt({at})={v:.8f}V" for at, (rail, (_, v)) in enumerate(reversed(rails.items()))]
    plain = [f"{rail}_V={v:.8f}V\n{rail}_A={a:.8f}A" for rail, (a, v) in rails.items()]
    expected = sum(a * v for a, v in rails.values())
    for lines in (numbered, plain):
        found = power_parsers.parse_pmic("\n".join(lines))
        assert found is None if not rails else found == pytest.approx(expected, abs=1e-5)


@untimed
@given(st.floats(0.021, 4.9), st.floats(3.0, 4.5), st.sampled_from([1, -1]), st.booleans(), st.booleans())
def test_a_phones_power_is_told_whatever_its_sign_and_units(
    current: float, volts: float, sign: int, milliamperes: bool, millivolts: bool
) -> None:
    given_current = round(sign * current * (1e3 if milliamperes else 1e6))
    given_voltage = round(volts * (1e3 if millivolts else 1e6))
    assert power_parsers.battery_watts(given_current, given_voltage) == pytest.approx(current * volts, rel=0.03)


def test_the_least_figures_in_millionths_are_read_as_such() -> None:
    least = (power_parsers.MICRO, power_parsers.MICROVOLTS)
    assert power_parsers.battery_watts(*least) == pytest.approx(least[0] * least[1] / 1e12)
    below = (power_parsers.MICRO - 1, power_parsers.MICROVOLTS - 1)
    with pytest.raises(ValueError, match="unit cannot be told"):
        power_parsers.battery_watts(*below)


@untimed
@given(st.integers(), st.integers())
def test_no_phone_draws_more_than_a_phone_can(current: int, voltage: int) -> None:
    try:
        watts = power_parsers.battery_watts(current, voltage)
    except ValueError:
        return
    assert 0 <= watts <= power_parsers.MAX_WATTS


@pytest.mark.parametrize("limit", [None, 0])
def test_a_counter_without_a_limit_does_not_invent_a_wrap(limit: int | None) -> None:
    assert power_parsers.count_up(10, 4, limit) == -6


@pytest.mark.parametrize("record", METERS, ids=board_name)
def test_a_meter_reads_the_whole_board_once(record: dict[str, Any], tmp_path: Path) -> None:
    meter = power.find_meter(write_tree(tmp_path, record["files"]))
    assert (meter.name if meter else None) == record["meter"]
    if meter is not None:
        assert meter.read() == pytest.approx(record["watts"])


class Board:
    """A recorded board that idles, but works from one time to another; its files follow a clock of its own."""

    def __init__(self, root: Path, record: Mapping[str, Any]) -> None:
        self._root, self._record = root, record
        self.now_s, self.busy_s, self.end_s = 0.0, (math.inf, math.inf), math.inf
        if any("pmic" in path for path in record["idle"][0]):
            write_tree(root, {"/usr/bin/vcgencmd": VCGENCMD})
            (root / "usr/bin/vcgencmd").chmod(0o755)
        write_tree(root, record["files"])
        self._write()

    def clock(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> bool:
        """Let time pass; gives whether the end has come."""
        self.now_s += seconds
        self._write()
        return self.now_s >= self.end_s

    def _write(self) -> None:
        states = self._record["busy" if self.busy_s[0] <= self.now_s < self.busy_s[1] else "idle"]
        files = states[int(self.now_s / self._record["period_s"]) % len(states)]
        worked_s = min(max(self.now_s - self.busy_s[0], 0.0), self.busy_s[1] - self.busy_s[0])
        values = {name: self._count(row, worked_s) for name, row in self._record["counters"].items()}
        values["ms"] = int(self.now_s * 1e3)
        write_tree(self._root, {path: text.format(**values) for path, text in files.items()})

    def _count(self, row: Mapping[str, float], worked_s: float) -> int:
        joules = row["idle_w"] * (self.now_s - worked_s) + row["busy_w"] * worked_s
        counted = int(row["start"] + joules * 1e6)
        return counted % int(row["wrap"]) if row["wrap"] else counted


def measure_energy(board: Board, meter: power.Meter) -> Energy:
    """Read a meter while its board rests, works and rests, as the agent does it."""
    seconds = max(2.0, meter.window_s)
    begin = seconds / 2 + 3 * MARGIN_S
    board.busy_s = (begin - MARGIN_S, begin + seconds + MARGIN_S)
    board.end_s = begin + 1.5 * seconds + 4 * MARGIN_S
    windows = [
        Window("", MARGIN_S, MARGIN_S + seconds / 2, 0),
        Window("net", begin, begin + seconds, round(seconds * RATE)),
        Window("", begin + seconds + 2 * MARGIN_S, begin + 1.5 * seconds + 2 * MARGIN_S, 0),
    ]
    log = power.Log()
    power.sample(meter, log, board.wait, board.clock)
    readings = make_readings(Meter(**meter.describe()), [arrival[1:] for arrival in log.arrivals], log.lost)
    return find_energies(readings, windows)["net"]


@pytest.mark.parametrize("record", OVER_TIME, ids=board_name)
def test_the_energy_of_a_recorded_board_is_right_to_a_percent(record: dict[str, Any], tmp_path: Path) -> None:
    board = Board(tmp_path, record)
    meter = power.find_meter(str(tmp_path))
    assert meter is not None
    assert meter.name == record["name"]
    named = power.choose_meter(str(tmp_path), record["meter"])
    assert named is not None
    assert named.describe() == meter.describe()
    found = measure_energy(board, meter)
    assert found.reason == ""
    assert found.energy_mj == pytest.approx(record["energy_mj"], rel=0.01)
    assert found.uncertainty_mj is not None
    assert METER_CLASSES[meter.kind].gain_error * 0.99 <= found.uncertainty_mj / record["energy_mj"] < 0.3


def pick(name: str) -> dict[str, Any]:
    return next(record for record in OVER_TIME if name in record["board"])


def test_the_counters_of_the_rapl_record_do_wrap() -> None:
    """The record would prove nothing otherwise: both packages and the memory begin again while the model runs."""
    for name, at_s in (("p0", (2.0, 5.0)), ("p1", (1.0, 5.0)), ("dram", (0.5, 5.0))):
        row = pick("x86")["counters"][name]
        left_j = (row["wrap"] - row["start"]) / 1e6
        assert row["idle_w"] * at_s[0] - 1 <= left_j <= row["busy_w"] * at_s[1], name


def test_a_phone_that_is_charged_gives_no_figure(tmp_path: Path) -> None:
    record = pick("uA, a discharge below")
    board = Board(tmp_path, {**record, "files": {**record["files"], BATTERY + "status": "Charging\n"}})
    meter = power.find_meter(str(tmp_path))
    assert meter is not None
    found = measure_energy(board, meter)
    assert found.energy_mj is None
    assert "the battery is charging, not discharging; unplug it" in found.reason


def test_a_phone_whose_unit_cannot_be_told_gives_no_figure(tmp_path: Path) -> None:
    """15,000 is neither an awake phone's uA nor any phone's mA."""
    record = pick("uA, a discharge below")
    board = Board(tmp_path, {**record, "busy": [{BATTERY + "current_now": "-15000\n"}]})
    meter = power.find_meter(str(tmp_path))
    assert meter is not None
    assert "its unit cannot be told" in measure_energy(board, meter).reason


def test_a_gauge_that_is_slower_than_a_second_gives_no_figure(tmp_path: Path) -> None:
    record = pick("uA, a discharge below")
    board = Board(tmp_path, {**record, "period_s": 5.0})
    meter = power.find_meter(str(tmp_path))
    assert meter is not None
    found = measure_energy(board, meter)
    assert "new readings of battery in 30 s" in found.reason
    assert found.energy_mj is None


def test_a_meter_that_goes_away_gives_no_figure(tmp_path: Path) -> None:
    record = pick("Jetson Nano")
    board = Board(tmp_path, record)
    meter = power.find_meter(str(tmp_path))
    assert meter is not None
    gone_s = 3.0

    def read() -> float:
        if board.now_s > gone_s:
            (tmp_path / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input").unlink()
        return meter.read()

    found = measure_energy(board, meter._replace(read=read))
    assert "in_power0_input cannot be read" in found.reason


def test_rapl_that_only_root_may_read_is_no_meter(tmp_path: Path) -> None:
    zone = "/sys/class/powercap/intel-rapl:0/"
    root = write_tree(tmp_path, {zone + "name": "package-0\n", zone + "max_energy_range_uj": "262143328850\n"})
    assert power.find_meter(root) is None


@pytest.mark.parametrize("name", ["core", "uncore", "psys", "dram", ""])
def test_parts_and_wholes_of_rapl_alone_are_no_meter(name: str, tmp_path: Path) -> None:
    zone = "/sys/class/powercap/intel-rapl:0/"
    root = write_tree(tmp_path, {zone + "name": name + "\n", zone + "energy_uj": "1\n"})
    assert power.find_meter(root) is None


def two_sensors(root: Path) -> str:
    files = {}
    for number, (label, microwatts) in enumerate((("carrier", 900000), ("input", 2350000))):
        device = root / f"sys/devices/i2c/1-004{number}"
        device.mkdir(parents=True)
        folder = f"/sys/class/hwmon/hwmon{number}"
        files |= {f"{folder}/name": "ina219\n", f"{folder}/power1_input": f"{microwatts}\n"}
        files[f"{folder}/power1_label"] = label + "\n"
        (root / folder.lstrip("/")).mkdir(parents=True)
        (root / folder.lstrip("/") / "device").symlink_to(device)
    return write_tree(root, files)


@pytest.mark.parametrize("sensor", ["1-0041", "input", "ina219 1-0041 input"])
def test_one_of_several_sensors_is_named_by_what_outlasts_a_reboot(sensor: str, tmp_path: Path) -> None:
    meter = power.choose_meter(two_sensors(tmp_path), "hwmon", sensor)
    assert meter is not None
    assert (meter.name, meter.read()) == ("hwmon ina219 1-0041 input", 2.35)


def test_of_several_sensors_none_is_guessed(tmp_path: Path) -> None:
    root = two_sensors(tmp_path)
    assert power.find_meter(root) is None
    for sensor in ("", "ina219"):
        with pytest.raises(AgentError, match="several power sensors: 'ina219 1-0040 carrier', 'ina219 1-0041 input'"):
            power.choose_meter(root, "hwmon", sensor)
    assert power.choose_meter(root, "hwmon", "nothing") is None


def test_the_agent_and_the_targets_know_the_same_meters() -> None:
    assert tuple(power.METERS) == BOARD_METERS
    with pytest.raises(AgentError, match="unknown meter 'rpi4'; expected auto, jetson"):
        power.choose_meter("", "rpi4")
