"""Whether a file fits: verdicts and their reasons, and the text of both."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.memory.document import describe_fit, render_fit
from edgeprune.core.memory.fit import (
    COUNTED_32,
    FITS,
    PLANNED,
    TOO_BIG,
    UNKNOWN,
    ArenaCount,
    FileNeeds,
    judge_fit,
)
from edgeprune.core.memory.size import MemorySize
from edgeprune.core.memory.timeline import Activation, Step, Timeline
from edgeprune.core.text import WIDTH

TIMELINE = Timeline(
    (Step("CONV_2D", ("in",), ("mid",)), Step("FULLY_CONNECTED", ("mid",), ("out",))),
    {
        "in": Activation("INT8", (1, 10, 10, 3), 300),
        "mid": Activation("INT8", (1, 10, 10, 16), 1600),
        "out": Activation("INT8", (1, 10), 10),
    },
    ("in",),
    ("out",),
)
NEEDS = FileNeeds(5000, ArenaCount(1904, 696, COUNTED_32, "mcufit 0.5.2"), TIMELINE)
UNCOUNTED = replace(NEEDS, arena=ArenaCount(1904, None, PLANNED, "edgeprune"))


@pytest.mark.parametrize(
    ("sram", "flash", "verdict"),
    [(2600, 5000, FITS), (2599, 5000, TOO_BIG), (2600, 4999, TOO_BIG), (1, 1, TOO_BIG)],
)
def test_the_last_byte_counts(sram: int, flash: int, verdict: str) -> None:
    assert judge_fit(NEEDS, MemorySize(sram, flash)).verdict == verdict


def test_what_is_too_big_is_told_with_what_makes_it() -> None:
    fit = judge_fit(NEEDS, MemorySize(1316, 4000))
    assert (fit.sram_left_bytes, fit.flash_left_bytes) == (-1284, -1000)
    assert fit.reason == (
        "SRAM: too big by 1,284 bytes at step 0 (CONV_2D): mid [1, 10, 10, 16] 1,600 + in [1, 10, 10, 3] 300 + "
        "kept by the interpreter 696; flash: too big by 1,000 bytes: the file has 5,000"
    )


def test_gaps_between_tensors_are_part_of_the_reason() -> None:
    sizes = {"a": 48, "b": 64, "c": 64, "in": 48, "out": 0}
    tensors = {name: Activation("INT8", (size,), size) for name, size in sizes.items()}
    reads = (("in",), ()), (("in",), ("a",)), (("a",), ("b",)), (("b",), ("c",)), (("b", "c"), ("out",))
    timeline = Timeline(tuple(Step("ADD", read, made) for read, made in reads), tensors, ("in",), ("out",))
    assert (timeline.arena.peak_bytes, max(timeline.arena.alive_bytes)) == (176, 128)
    needs = FileNeeds(1, ArenaCount(176, 0, COUNTED_32, ""), timeline)
    assert "gaps between tensors 48" in judge_fit(needs, MemorySize(1, 100)).reason


def test_activations_alone_can_be_too_big_but_never_fit() -> None:
    assert judge_fit(UNCOUNTED, MemorySize(10**6, 10**6)).verdict == UNKNOWN
    assert judge_fit(UNCOUNTED, MemorySize(1903, 10**6)).verdict == TOO_BIG


@given(st.integers(1, 5000), st.integers(1, 9000), st.integers(0, 5000), st.integers(0, 9000))
def test_more_memory_never_fits_worse(sram: int, flash: int, more_sram: int, more_flash: int) -> None:
    small, large = MemorySize(sram, flash), MemorySize(sram + more_sram, flash + more_flash)
    if judge_fit(NEEDS, small).verdict == FITS:
        assert judge_fit(NEEDS, large).verdict == FITS


def test_the_text_fits_80_columns_and_steers_no_terminal() -> None:
    tensors = {"in": TIMELINE.tensors["in"], "x" * 70 + "\x1b[2J": TIMELINE.tensors["mid"]}
    timeline = Timeline((Step("RELU", ("in",), tuple(tensors)[1:]),), tensors, ("in",), tuple(tensors)[1:])
    document = describe_fit("net.tflite", replace(NEEDS, timeline=timeline), {"board": MemorySize(4 << 20, 8 << 20)})
    WIDTH.set(80)
    try:
        tables = [line for line in render_fit(document).split("\n") if "  " in line]
    finally:
        WIDTH.set(None)
    assert max(map(len, tables)) <= 80
    assert "\x1b" not in render_fit(document)


def test_a_count_that_differs_from_the_plan_is_told() -> None:
    counted = replace(NEEDS, arena=replace(NEEDS.arena, activation_bytes=4000))
    memory = {"board": MemorySize(10**6, 10**6)}
    assert any(
        "4,000 bytes for activations where 1,904 are planned" in note
        for note in describe_fit("", counted, memory)["notes"]
    )
    alike = replace(NEEDS, arena=replace(NEEDS.arena, activation_bytes=TIMELINE.arena.peak_bytes))
    assert len(describe_fit("", alike, memory)["notes"]) == 1  # fmt: skip


def test_a_net_without_operators_has_no_peak() -> None:
    empty = FileNeeds(10, ArenaCount(0, 0, COUNTED_32, ""), Timeline((), {}, (), ()))
    document = describe_fit("", empty, {"board": MemorySize(1, 1)})
    assert document["peak"] is None
    assert "no operators" in render_fit(document)
