"""The agent's parsers and readers, on what boards were seen to say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from device_trees import write_tree
from edgeprune_agent import board, parsers
from hypothesis import given
from hypothesis import strategies as st
from places import RECORDS

FACTS = json.loads((RECORDS / "facts.json").read_text())


@pytest.mark.parametrize("record", FACTS, ids=lambda record: f"{record['parser']}: {record['board']}")
def test_a_parser_gives_the_recorded_fact(record: dict[str, Any]) -> None:
    assert getattr(parsers, record["parser"])(*record["output"]) == record["fact"]


@given(st.text(st.characters(codec="utf-8")) | st.text("\t\n:=0123456789x.- kBthroledMPVCUpartFHW", max_size=200))
def test_no_text_upsets_a_parser(text: str) -> None:
    parsers.parse_cpuinfo(text)
    parsers.parse_kib(text, "VmHWM")
    parsers.parse_os_release(text)
    parsers.parse_load(text)
    parsers.parse_throttled(text)
    temperature = parsers.pick_temperature([("cpu", text), (text, "50000")])
    assert temperature is None or -30 < temperature < 150


@given(st.integers(0, 2**20 - 1), st.integers(0, 2**20 - 1))
def test_throttling_before_the_run_alone_is_not_held_against_it(before: int, after: int) -> None:
    named = parsers.describe_throttled(before & ~0xF, (after & ~0xF) & before)
    assert named == []
    assert set(parsers.describe_throttled(before, after)) <= set(parsers.THROTTLE_BITS)


def test_a_boards_tree_gives_its_facts_and_state(tmp_path: Path) -> None:
    root = write_tree(tmp_path, json.loads((RECORDS / "rpi4_tree.json").read_text()))
    facts = board.read_facts(root)
    assert facts["model"] == "Raspberry Pi 4 Model B Rev 1.1"
    assert (facts["cpu"], facts["max_mhz"], facts["memory_mib"]) == ("4x Cortex-A72", 1500, 3793)
    state = board.read_state(root)
    assert (state.mhz, state.temperature_c, state.load) == (825.0, 48.199, 0.52)
    assert board.read_governor(root) == "ondemand"


def test_an_empty_tree_gives_facts_without_what_it_lacks(tmp_path: Path) -> None:
    facts = board.read_facts(str(tmp_path))
    assert (facts["max_mhz"], facts["cpu_flags"], facts["memory_mib"]) == (None, [], 0)
    assert board.read_state(str(tmp_path))[:3] == (None, None, None)
