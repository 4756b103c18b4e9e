"""Whatever a phone or a board prints is read, or an error of ours that names the board: no traceback."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conversations import Echo, told_by
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.boards.phone import Benchmark
from edgeprune.core.measuring.measurement import Conditions
from edgeprune.core.target import FASTEST, Target
from edgeprune.device.board import ModelFile
from edgeprune.device.connect import shake_hands
from edgeprune.device.phone import benchmark as phone
from edgeprune.device.phone.benchmark import Timed, describe_phone, find_cores
from edgeprune.device.phone.benchmark import _describe as describe_calls
from edgeprune.device.phone.binary import Binary
from edgeprune.device.phone.state import collect, read_state

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


def test_what_a_phone_says_is_read_by_section() -> None:
    told = collect(Echo({}, f"a login shell says hello{PHONE}"))
    assert (told["model"], told["machine"], told["governor"]) == ("Google\nPixel 8", "aarch64", "sched_pixel")
    assert find_cores("PHONE", replace(TARGET, cores=FASTEST, threads=1), told) == (8,)


def test_the_memory_of_a_file_is_the_most_that_any_call_took(tmp_path: Path) -> None:
    path = tmp_path / "a.tflite"
    path.write_bytes(b"")
    calls = [Timed(Benchmark(5000.0, 900.0, 800.0, 700.0, 50, peak)) for peak in (3.0, None, 9.0, 4.0)]
    one = describe_calls(ModelFile.of(path, "litert"), calls, TARGET, Conditions(1), "f")
    assert (one.peak_memory_mib, one.init_ms, one.first_ms) == (9.0, 5.0, 0.9)
    assert list(one.samples_ms) == [0.7] * 4


def test_files_on_a_phone_take_turns_in_changing_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, ran = [], list[str]()
    for name in "ab":
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(name.encode())
        models.append(replace(ModelFile.of(path, "litert"), name=name))

    def run(transport: Echo, command: list[str]) -> Timed:
        ran.extend(word.removeprefix("--graph=") for word in command if word.startswith("--graph="))
        return Timed(Benchmark(1.0, 1.0, 1.0, 1.0, 50, None))

    monkeypatch.setattr(phone, "_put", lambda transport, model: model.name)
    monkeypatch.setattr(phone, "_look", lambda transport, command, target, name: (None, {}))
    monkeypatch.setattr(phone, "_run", run)
    binary = Binary("./benchmark_model", "f" * 64, frozenset({"graph"}))
    measured = phone.measure_native(Echo({}, PHONE), binary, models, TARGET, lambda text: None)
    assert set(measured) == {"a", "b"}
    assert "".join(ran[:8]) == "abbaabba"
    assert len(ran) == 2 * phone.CALLS * TARGET.protocol.processes
