"""Was the board hot: the answer in words, whatever the board can tell."""

from __future__ import annotations

from typing import Any

import pytest

from edgeprune.report.heat import describe_heat, render_heat

COOL: dict[str, Any] = {"temperature_c": [50.0, 55.5], "frequency_mhz": [1500.0, 1500.0], "throttled": []}


@pytest.mark.parametrize(
    ("changes", "words", "kind"),
    [
        ({}, "The board was not hot. 50.0 to 55.5 C, clock 1500 MHz, no throttle flag was read.", ""),
        (
            {"throttled": ["under-voltage"]},
            "The board throttled: under-voltage. 50.0 to 55.5 C, clock 1500 MHz.",
            "bad",
        ),
        ({"too_warm_c": 71.0}, "The board was too warm to begin with, 71.0 C", "bad"),
        ({"temperature_c": [70.0, 80.0]}, "The board was hot", "warn"),
        ({"temperature_c": [70.0, 79.9]}, "The board was not hot", ""),
        ({"frequency_mhz": [1500.0, 1400.0]}, "Its clock fell by 7%", "warn"),
        ({"frequency_mhz": [1400.0, 1500.0]}, "The board was not hot", ""),
        ({"temperature_c": []}, "not known: it has no temperature sensor", "warn"),
        ({"temperature_c": [], "frequency_mhz": []}, "No clock can be read", "warn"),
        ({"temperature_c": [None, 60.0], "frequency_mhz": [0.0, 0.0]}, "The board was not hot. 60.0 C", ""),
    ],
)
def test_the_answer(changes: dict[str, Any], words: str, kind: str) -> None:
    text, answer_kind = describe_heat([{**COOL, **changes}])
    assert words in text
    assert answer_kind == kind


def test_heat_while_the_other_file_was_measured_counts_too() -> None:
    text, _ = describe_heat([{**COOL, "temperature_c": [85.0]}, COOL])
    assert text.startswith("The board was hot")
    assert "50.0 to 85.0 C" in text


def test_readings_that_changed_are_drawn_and_those_of_both_files_once() -> None:
    assert render_heat(COOL, COOL).count("class=chart") == 1
    assert "both files 50 first, 55.5 last, highest 55.5" in render_heat(COOL, COOL)
    other = {**COOL, "temperature_c": [60.0, 66.0]}
    assert "before 50 first, 55.5 last, highest 55.5; after 60 first, 66 last" in render_heat(COOL, other)


def test_what_a_board_does_not_tell_is_said() -> None:
    html = render_heat(None, {"threads": 1})
    assert "class=chart" not in html
    assert html.count(">not known</td>") == 8
