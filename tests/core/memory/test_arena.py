"""The arena's plan: no two buffers that are alive together overlap, and the rules are TensorFlow Lite Micro's."""

from itertools import combinations, permutations

from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.memory.arena import ArenaPlan, Buffer, plan_arena, round_up

spans = st.tuples(st.integers(0, 400), st.integers(0, 6), st.integers(0, 4))


def _build(rows: list[tuple[int, int, int]]) -> list[Buffer]:
    return [Buffer(str(number), size, first, first + length) for number, (size, first, length) in enumerate(rows)]


@given(st.lists(spans, max_size=10).map(_build))
def test_what_is_alive_together_lies_apart(buffers: list[Buffer]) -> None:
    plan = plan_arena(buffers)
    for first, second in combinations([buffer for buffer in buffers if buffer.size_bytes], 2):
        if first.first <= second.last and second.first <= first.last:
            low, high = sorted((first, second), key=lambda buffer: plan.offsets[buffer.name])
            assert plan.offsets[low.name] + low.size_bytes <= plan.offsets[high.name]


@given(st.lists(spans, max_size=10).map(_build))
def test_the_arena_holds_all_and_no_more(buffers: list[Buffer]) -> None:
    plan = plan_arena(buffers)
    assert plan.peak_bytes >= max(plan.alive_bytes, default=0)
    assert plan.peak_bytes <= sum(round_up(buffer.size_bytes) for buffer in buffers)
    assert all(offset % 16 == 0 for offset in plan.offsets.values())


@given(st.lists(spans, min_size=1, max_size=10).map(_build))
def test_each_step_counts_what_is_alive(buffers: list[Buffer]) -> None:
    plan = plan_arena(buffers, alignment=1)
    total = sum(buffer.size_bytes * (buffer.last - buffer.first + 1) for buffer in buffers)
    assert sum(plan.alive_bytes) == total
    assert plan.alive_bytes[plan.peak_step] == max(plan.alive_bytes)


@given(st.lists(st.integers(1, 100), min_size=2, max_size=5))
def test_a_chain_takes_no_less_than_the_best_of_all_orders(sizes: list[int]) -> None:
    buffers = [Buffer(str(step), size, step, step + 1) for step, size in enumerate(sizes)]
    best = min(_place_in_order(order) for order in permutations(buffers))
    assert best <= plan_arena(buffers, alignment=1).peak_bytes
    last_first = list(reversed(buffers))
    by_size = sorted(last_first, key=lambda buffer: -buffer.size_bytes)
    assert plan_arena(buffers, alignment=1).peak_bytes == _place_in_order(tuple(by_size))


def _place_in_order(order: tuple[Buffer, ...]) -> int:
    """The end of the highest of buffers that are placed at the lowest free offset, byte by byte."""
    taken: dict[str, set[int]] = {}
    for buffer in order:
        others = [other for other in order if other.name in taken]
        together = [taken[other.name] for other in others if other.first <= buffer.last and buffer.first <= other.last]
        busy = set[int]().union(*together)
        offset = 0
        while busy & set(range(offset, offset + buffer.size_bytes)):
            offset += 1
        taken[buffer.name] = set(range(offset, offset + buffer.size_bytes))
    return max(max(bytes_) + 1 for bytes_ in taken.values())


def test_the_largest_is_placed_first() -> None:
    plan = plan_arena([Buffer("small", 16, 0, 1), Buffer("large", 64, 1, 2)])
    assert plan.offsets == {"small": 64, "large": 0}


def test_of_equal_buffers_the_last_is_placed_first() -> None:
    plan = plan_arena([Buffer("input", 32, 0, 1), Buffer("output", 32, 1, 2)])
    assert plan.offsets == {"input": 32, "output": 0}


def test_equal_means_equal_once_rounded_up() -> None:
    plan = plan_arena([Buffer("input", 32, 0, 1), Buffer("output", 20, 1, 2)])
    assert plan.offsets == {"input": 32, "output": 0}


def test_a_gap_below_is_taken_before_the_end() -> None:
    buffers = [Buffer("a", 96, 0, 1), Buffer("b", 64, 1, 3), Buffer("c", 48, 2, 3)]
    assert plan_arena(buffers).offsets == {"a": 0, "b": 96, "c": 0}


def test_gaps_make_the_arena_larger_than_what_is_alive() -> None:
    buffers = [Buffer("a", 48, 1, 2), Buffer("b", 64, 2, 4), Buffer("c", 64, 3, 4), Buffer("d", 48, 0, 1)]
    assert plan_arena(buffers) == ArenaPlan({"a": 128, "b": 64, "c": 0, "d": 0}, 176, (48, 96, 112, 128, 128), 3)


def test_nothing_takes_nothing() -> None:
    assert plan_arena([]) == ArenaPlan({}, 0, (), 0)
