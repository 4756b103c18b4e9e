"""Whatever a phone or a board prints is read, or an error of ours that names the board: no traceback."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from test_device_conversations import Echo, told_by

from edgeprune.core.target import FASTEST, Target
from edgeprune.device.connect import shake_hands
from edgeprune.device.phone import describe_phone, find_cores
from edgeprune.device.phone_state import collect, read_state

TARGET = Target("rpi4", "a board of the tests")
PHONE = """
== model
Google
Pixel 8
== machine
aarch64
== memory
MemTotal:        7654321 kB
== clocks
/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq 1704000
/sys/devices/system/cpu/cpu8/cpufreq/cpuinfo_max_freq 2914000
== now
300000
1200000
== governor
sched_pixel
== battery
  USB powered: true
  level: 90
== power
mWakefulness=Awake
== thermal
Thermal Status: 0
	Temperature{mValue=41.2, mType=0, mName=BIG, mStatus=0}
== end
"""

texts = st.text(st.characters(codec="utf-8"), max_size=80)
shuffled = st.lists(st.sampled_from([*PHONE.splitlines(), "== x", "== clocks"]) | texts, max_size=40).map("\n".join)


@given(shuffled | texts)
def test_no_text_of_a_phone_is_a_traceback(said: str) -> None:
    transport = Echo({}, said)
    facts = describe_phone(transport)
    assert facts.cores >= 1
    json.dumps(facts.to_dict(), allow_nan=False)
    assert isinstance(read_state(transport).notes, tuple)
    said = told_by(lambda: find_cores("PHONE", replace(TARGET, cores=FASTEST), collect(transport)))
    assert said == "" or "does not tell the clocks" in said


@given(st.lists(st.sampled_from(["workspace=/b", "python=/usr/bin/python3", "workspace=", "="]) | texts).map("\n".join))
def test_no_greeting_of_a_board_is_a_traceback(said: str) -> None:
    found: list[str] = []
    told = told_by(lambda: found.extend(shake_hands(Echo({}, said), "")))
    assert bool(found) != told.startswith("board: ")
    assert "".join(found).isprintable()
