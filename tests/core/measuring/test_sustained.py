"""The sustained run: what is read from the agent, and what it shows."""

from __future__ import annotations

from typing import Any

import pytest

from edgeprune.core.measuring.sustained import compare_ends, parse_sustained, render_sustained

CONDITIONS = {"threads": 1, "throttled": []}


def make_row(seconds: int, slowing: float = 0.0, throttled: dict[int, list[str]] | None = None) -> dict[str, Any]:
    """A window a second; after half of the time it is slower by so much, and the board is at 80 degrees."""
    windows = []
    for at in range(1, seconds + 1):
        late = at > seconds / 2
        wobble = 1 + 0.002 * (at % 7)
        middle = int(2e6 * wobble * (1 + slowing * late))
        windows.append(
            {
                "at_s": float(at),
                "count": 400,
                "latency_ns": [middle - 1000, middle, middle + 1000, middle + 9000],
                "mhz": 1000.0 if late else 1500.0,
                "temperature_c": 80.0 if late else 55.0,
                "throttled": (throttled or {}).get(at, []),
                "waited_share": 0.0,
            }
        )
    return {"name": "net", "inputs": {"x": [1, 3, 8, 8]}, "windows": windows, "conditions": CONDITIONS}


def test_the_last_minute_is_held_against_the_first() -> None:
    run = parse_sustained(make_row(600, slowing=0.25, throttled={400: ["throttled"], 401: ["throttled"]}), 600)
    change = compare_ends(run)
    assert change.minute_s == 60
    assert change.ratio == pytest.approx(1.25, rel=1e-3)
    assert 1.24 < change.low < change.ratio < change.high < 1.26
    assert (change.first_ms, change.last_ms) == pytest.approx((2.012, 2.515), rel=2e-3)
    assert change.throttled == {"throttled": (400.0, 401.0)}
    text = render_sustained(run)
    assert "last 60 s against the first" in text
    assert "throttled: 2 times, first at 400 s" in text
    assert "the board does not keep its speed" in text
    assert len(text.splitlines()) < 30


def test_a_board_that_keeps_its_speed_is_not_blamed() -> None:
    text = render_sustained(parse_sustained(make_row(300), 300))
    assert "no throttling was told" in text
    assert "does not keep" not in text


def test_a_run_shorter_than_three_minutes_is_cut_in_three() -> None:
    change = compare_ends(parse_sustained(make_row(30, slowing=0.1), 30))
    assert (change.minute_s, round(change.ratio, 2)) == (10, 1.1)


def test_a_board_that_tells_nothing_of_itself_is_shown_by_its_latency() -> None:
    row = make_row(12)
    for window in row["windows"]:
        window |= {"mhz": None, "temperature_c": None}
    assert " - " in render_sustained(parse_sustained(row, 12)).splitlines()[1]


def test_a_run_that_is_not_whole_is_no_run() -> None:
    with pytest.raises(ValueError, match="5 windows in 5 s"):
        parse_sustained(make_row(5), 5)
    for key in ("windows", "conditions", "inputs"):
        with pytest.raises(KeyError):
            parse_sustained({name: value for name, value in make_row(12).items() if name != key}, 12)


def test_what_it_shows_is_written_with_it() -> None:
    found = parse_sustained(make_row(60), 60).to_dict()
    assert (len(found["windows"]), found["change"]["minute_s"]) == (60, 20.0)
