"""What phones say, on recorded texts."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import RECORDS

from edgeprune.core.boards import phone

RECORDS = json.loads((RECORDS / "phones.json").read_text())
WORDS = st.text("\t\n:=0123456789.e+-{}, TemperaturemValTypNcountfirstavginkSOpowered()[]", max_size=300)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record['parser']}: {record['phone']}")
def test_a_parser_gives_the_recorded_fact(record: dict[str, Any]) -> None:
    found = getattr(phone, record["parser"])(*record["output"])
    if isinstance(found, phone.Benchmark):
        assert asdict(found) == record["fact"]
    else:
        assert (list(found) if isinstance(found, tuple) else found) == record["fact"]


@given(st.text(st.characters(codec="utf-8")) | WORDS)
def test_no_text_upsets_a_parser(text: str) -> None:
    sections = {"battery": text, "power": text, "thermal": text}
    state = phone.parse_phone(sections)
    assert all(isinstance(note, str) for note in (*state.notes, *state.throttled))
    phone.parse_benchmark(text)


def test_heat_makes_a_run_invalid_and_the_rest_is_told() -> None:
    state = phone.PhoneState("on", "powered by USB", 90, 2, 91.4)
    assert state.notes == ("screen on", "powered by USB", "battery 90 %", "thermal status moderate")
    assert state.throttled == ("thermal status moderate",)
    assert phone.PhoneState(thermal_status=0).throttled == ()
    assert phone.PhoneState(thermal_status=9).throttled == ("thermal status 9",)
    assert phone.PhoneState().notes == ()


def test_the_fastest_cores_become_a_mask() -> None:
    clocks = {core: 2914000 if core == 8 else 2367000 if core >= 4 else 1704000 for core in range(9)}
    assert phone.pick_fastest(clocks, 1) == (8,)
    assert phone.pick_fastest(clocks, 3) == (6, 7, 8)
    assert phone.core_mask((6, 7, 8)) == "1c0"
    assert phone.pick_fastest({}, 4) == ()


@pytest.mark.parametrize(
    ("row", "spread"),
    [
        ("count=74 first=14850 curr=13315 min=13105 max=15765 avg=13520.2 std=470 p5=1 median=2 p95=3", 470 / 13520.2),
        ("count=99 first=4 curr=3 min=3 max=4 avg=3.3 std=0 p5=3 median=3 p95=4", None),
        ("count=50 curr=33209(all same) p5=33209 median=33209 p95=33209", None),
    ],
    ids=["told", "below one microsecond", "all the same"],
)
def test_how_far_runs_lie_apart_is_told_in_whole_microseconds_or_not_at_all(row: str, spread: float | None) -> None:
    assert phone.parse_spread(f"INFO: {row}\n") == (None if spread is None else pytest.approx(spread))
