"""Sizes over widths, found from a few files of random widths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.latency.layers import Extent
from edgeprune.core.memory.arena import Buffer
from edgeprune.core.memory.learn import FileMemory, bound_overhead, find_extent, learn_memory
from edgeprune.core.memory.steps import NetMemory, Tensor, drop_covered
from edgeprune.errors import PlanError

GROUPS = ("a", "b", "c")
COUNTS = (*(Extent(0, ((1, (group,)),)) for group in GROUPS), Extent(3, ((1, ("a",)), (1, ("b",)))))


def draw_widths(seed: int, count: int) -> list[dict[str, int]]:
    generator = np.random.default_rng(seed)
    return [dict.fromkeys(GROUPS, 64), *({g: int(generator.integers(8, 64)) for g in GROUPS} for _ in range(count))]


@given(st.integers(0, 99), st.integers(1, 4096), st.sampled_from(COUNTS))
def test_a_multiple_of_a_count_holds_at_widths_that_no_file_had(seed: int, factor: int, count: Extent) -> None:
    widths = draw_widths(seed, 4)
    extent = find_extent([factor * count.at(each) for each in widths], widths, COUNTS)
    assert extent is not None
    assert [extent.at(each) for each in draw_widths(seed + 100, 9)] == [
        factor * count.at(each) for each in draw_widths(seed + 100, 9)
    ]


@given(st.integers(0, 99), st.integers(0, 500), st.lists(st.integers(0, 40), min_size=3, max_size=3))
def test_a_sum_that_is_no_known_count_is_found_from_enough_files(seed: int, constant: int, factors: list[int]) -> None:
    size = Extent(constant, tuple((factor, (group,)) for factor, group in zip(factors, GROUPS, strict=True)))
    widths, unseen = draw_widths(seed, 7), draw_widths(seed + 100, 5)
    extent = find_extent([size.at(each) for each in widths], widths, ())
    assert extent is not None
    assert [extent.at(each) for each in unseen] == [size.at(each) for each in unseen]


def test_a_size_that_follows_no_sum_is_refused_not_guessed() -> None:
    widths = draw_widths(0, 7)
    sizes = [each["a"] * each["b"] for each in widths]
    assert find_extent(sizes, widths, COUNTS) is None
    files = [FileMemory((Buffer("product", size, 0, 1),), ("MUL",)) for size in sizes]
    with pytest.raises(PlanError, match="size of 'product' follows no sum"):
        learn_memory(files, widths, COUNTS)


def test_too_few_files_settle_no_sum() -> None:
    widths = draw_widths(0, 2)
    assert find_extent([each["a"] + 2 * each["b"] + 5 for each in widths], widths, ()) is None


def test_files_that_differ_in_more_than_widths_are_refused() -> None:
    widths = draw_widths(0, 1)
    files = [FileMemory((Buffer("x", 8, 0, last),), ("ADD",) * 2) for last in (1, 2)]
    with pytest.raises(PlanError, match="differ in more than their widths"):
        learn_memory(files, widths, COUNTS)


@given(st.integers(0, 99), st.lists(st.integers(0, 5000), min_size=7, max_size=7))
def test_no_overhead_that_was_counted_lies_above_its_bound(seed: int, overheads: list[int]) -> None:
    widths = draw_widths(seed, 6)
    bound = bound_overhead(overheads, widths)
    assert all(bound.at(each) >= overhead for each, overhead in zip(widths, overheads, strict=True))
    assert all(factor > 0 for factor, _ in bound.terms)


def test_an_overhead_per_channel_is_bound_tightly() -> None:
    widths = draw_widths(1, 6)
    bound = bound_overhead([700 + 8 * each["a"] for each in widths], widths)
    assert abs(bound.at(dict.fromkeys(GROUPS, 16)) - 828) <= 64


def test_an_overhead_per_channel_is_told_of_more_groups_than_files() -> None:
    names = [f"layer{number}" for number in range(12)]
    drawn = np.random.default_rng(3).integers(1, 129, (8, len(names)))
    widths = [dict(zip(names, map(int, row), strict=True)) for row in drawn]
    overheads = [9000 + 8 * sum(each.values()) for each in widths]
    bound = bound_overhead(overheads[:-1], widths[:-1])
    assert abs(bound.at(widths[-1]) / overheads[-1] - 1) < 0.01
    assert bound.constant > 0


def test_steps_that_another_covers_are_left_out() -> None:
    ends = {"input": (0, 1), "stem": (1, 2), "head": (2, 2)}
    tensors = {name: Tensor(name, Extent(1), *each) for name, each in ends.items()}
    alive = NetMemory(tuple(tensors.values()), ("CONV_2D", "MEAN")).alive
    assert [{tensor.name for tensor in each} for each in alive] == [{"input"}, {"input", "stem"}, {"stem", "head"}]
    assert [{tensor.name for tensor in each} for each in drop_covered(alive)] == [{"input", "stem"}, {"stem", "head"}]
