"""Ranges from histograms, and rounding that spares the output: against direct computation on the values themselves."""

from __future__ import annotations

from itertools import product
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.core.metric import TOP1
from edgeprune.core.planning.mixed import Merge, MixedProblem, Output, QuantizedLayer, choose_floats
from edgeprune.core.quantizing.ranges import BINS, METHODS, Histogram, Range, find_range
from edgeprune.core.quantizing.rounding import (
    Moments,
    equalising_steps,
    raise_by,
    round_to_nearest,
    round_weights,
    shift_of_outputs,
)
from edgeprune.core.releasing.gate import Gate, settle_gates
from edgeprune.core.releasing.shipping import is_within


def histogram_of(values: np.ndarray) -> Histogram:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    counts, _ = np.histogram(values, BINS, (low, high if high > low else low + 1))
    return Histogram(low, high, counts)


def held(values: np.ndarray, found: Range) -> np.ndarray:
    """The values after 8 bits with this range."""
    step = (found[1] - found[0]) / 255
    return np.round(np.clip(values, *found) / step) * step


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(-3, 3), st.integers(0, 6))
def test_every_range_holds_zero_and_lies_within_what_was_seen(seed: int, shift: int, tail: int) -> None:
    values = np.random.default_rng(seed).standard_normal(500) ** 3 * tail + shift
    histogram = histogram_of(values)
    for method in METHODS:
        low, high = find_range(method, histogram)
        assert histogram.low <= low <= 0 <= high
        assert low < high
        assert high <= max(histogram.high, low + 1e-5)


def test_least_error_is_the_least_error() -> None:
    values = np.random.default_rng(0).laplace(size=100_000)
    values[:3] = 60.0
    histogram = histogram_of(values)

    def error(found: Range) -> float:
        return float(np.mean((held(values, found) - values) ** 2))

    grid = [(histogram.low * a, histogram.high * b) for a in np.linspace(0.3, 1, 15) for b in np.linspace(0.3, 1, 15)]
    assert error(find_range("least error", histogram)) <= 1.02 * min(map(error, grid))
    assert error(find_range("least error", histogram)) < error(find_range("min-max", histogram))


def test_percentiles_cut_their_share_of_either_end() -> None:
    histogram = histogram_of(np.linspace(-1, 3, 100_001))
    assert find_range("percentile 99.9", histogram) == pytest.approx((-0.996, 2.996), abs=0.003)
    assert find_range("min-max", histogram) == (-1.0, 3.0)


def test_a_rectified_tensor_keeps_its_zero() -> None:
    values = np.maximum(np.random.default_rng(0).standard_normal(50_000), 0)
    values[0] = 100.0
    for method in METHODS:
        low, high = find_range(method, histogram_of(values))
        assert low == 0.0
        assert high < 60 or method not in ("percentile 99.99", "percentile 99.9")


def test_entropy_clips_a_thin_tail() -> None:
    values = np.random.default_rng(0).standard_t(3, size=200_000)
    low, high = find_range("entropy", histogram_of(values))
    assert max(-low, high) < np.abs(values).max() * 0.7
    assert np.mean((values >= low) & (values <= high)) > 0.99


def observed(patches: np.ndarray, groups: int = 1) -> Moments:
    """Moments of patches `[N, groups * K]`."""
    grouped = patches.reshape(len(patches), groups, -1).transpose(1, 0, 2)
    return Moments(grouped.mean(1), grouped.transpose(0, 2, 1) @ grouped / len(patches))


@pytest.mark.parametrize("levels", [127, 64])
def test_rounding_spares_the_output_and_stays_on_the_grid(levels: int) -> None:
    random = np.random.default_rng(1)
    patches = np.abs(random.standard_normal((4000, 6)) @ random.standard_normal((6, 40))) + 0.1
    weights = random.standard_normal((8, 40)).astype(np.float32)
    rounded = round_weights(weights, observed(patches), levels)
    scales = np.abs(weights).max(axis=1) / levels
    steps = rounded / scales[:, None]
    assert np.abs(steps - np.round(steps)).max() < 1e-3
    np.testing.assert_allclose(np.abs(rounded).max(axis=1), np.abs(weights).max(axis=1), rtol=1e-6)
    nearest = round_to_nearest(weights, levels)
    errors = [np.mean((patches @ (one - weights).T) ** 2) for one in (rounded, nearest)]
    assert errors[0] < errors[1] / 4


def test_groups_are_rounded_by_what_each_reads() -> None:
    random = np.random.default_rng(2)
    patches = random.standard_normal((500, 3 * 9)) + np.repeat([0.0, 4.0, -4.0], 9)
    weights = random.standard_normal((3, 1, 3, 3)).astype(np.float32)
    rounded = round_weights(weights, observed(patches, 3), 64)
    for group in range(3):
        alone = round_weights(weights[[group]], observed(patches[:, 9 * group : 9 * group + 9]), 64)
        np.testing.assert_array_equal(rounded[[group]], alone)


def test_a_corrected_bias_leaves_the_mean_output_where_it_was() -> None:
    random = np.random.default_rng(3)
    patches = random.standard_normal((300, 2 * 5)) + 2
    weights = random.standard_normal((4, 5))
    rounded = round_to_nearest(weights, 7)
    shift = shift_of_outputs(weights, rounded, observed(patches, 2))
    halves = patches.reshape(300, 2, 5)

    def run(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([halves[:, 0] @ rows[:2].T, halves[:, 1] @ rows[2:].T], axis=1)

    assert np.abs((run(rounded) - run(weights)).mean(0)).max() > 0.01
    np.testing.assert_allclose((run(rounded) - shift).mean(0), run(weights).mean(0), atol=1e-12)


def test_dead_channels_and_constant_inputs_are_held() -> None:
    weights = np.array([[0.0, 0.0], [1.0, -0.3]], np.float32)
    rounded = round_weights(weights, observed(np.zeros((10, 2))), 127)
    np.testing.assert_allclose(rounded, round_to_nearest(weights, 127), atol=1e-7)
    assert find_range("entropy", histogram_of(np.zeros(5))) == (0.0, pytest.approx(1e-6))


def test_quiet_channels_are_raised_halfway_to_the_loudest_and_four_times_at_most() -> None:
    steps = equalising_steps(np.array([[8.0, 4.0, 2.0, 0.5, 0.0, 1e-12]]))
    np.testing.assert_allclose(raise_by(steps), [1, 2**0.5, 2, 4, 1, 4])
    assert {len(str(step)) for step in steps} == {1}
    np.testing.assert_array_equal(equalising_steps(np.zeros((2, 3))), np.zeros(3))


def test_a_channel_is_raised_no_further_than_the_tensor_allows_where_it_is_loudest() -> None:
    steps = equalising_steps(np.array([[8.0, 2.0, 0.5, 0.0, 0.0], [16.0, 16.0, 4.0, 4.0, 0.0]]))
    np.testing.assert_allclose(raise_by(steps), [1, 1, 2, 2, 1])


def draw_problem(data: st.DataObject) -> MixedProblem:
    """Some layers, merges and outputs, with costs of tenths: an output may save something, as two float layers do."""
    count = data.draw(st.integers(1, 7))
    tenths = st.integers(0, 20).map(lambda value: value / 10)
    joint = st.integers(-10, 15).map(lambda value: value / 10)
    layers = tuple(
        QuantizedLayer(f"l{index}", data.draw(tenths), data.draw(tenths), data.draw(tenths)) for index in range(count)
    )
    some = st.frozensets(st.integers(0, count - 1), min_size=2, max_size=4)
    merged = data.draw(st.lists(some, max_size=3, unique=True)) if count > 1 else ()
    merges = tuple(Merge(one, data.draw(joint), data.draw(joint)) for one in merged)
    parts = range(count + len(merges))
    outputs = []
    for writer in data.draw(st.lists(st.sampled_from(parts), max_size=4, unique=True)) if count > 1 else ():
        others = st.sampled_from([one for one in parts if one != writer])
        readers = tuple(data.draw(st.lists(others, min_size=1, max_size=3, unique=True)))
        int8 = tuple((data.draw(joint), data.draw(joint)) for _ in readers)
        outputs.append(Output(writer, readers, data.draw(joint), data.draw(joint), int8))
    return MixedProblem(layers, tuple(outputs), data.draw(st.sampled_from([inf, inf, 2.05, 5.05])), merges)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_mixed_precision_is_the_cheapest_choice(data: st.DataObject) -> None:
    problem = draw_problem(data)
    limit = data.draw(st.integers(0, 60)) / 10 + 0.05
    found = choose_floats(problem, limit)
    choices = product((False, True), repeat=len(problem.layers))
    within = [one for one in choices if problem.noise(one) <= limit and problem.cost(one) <= problem.budget]
    if found is None:
        assert not within
        return
    best = min(problem.cost(one) for one in within)
    assert found in within
    assert problem.cost(found) == pytest.approx(best, abs=1e-3)
    assert sum(found) == min(sum(one) for one in within if problem.cost(one) <= best + 1e-9)


def test_no_noise_is_no_int8_where_each_layer_is_noisy() -> None:
    layers = tuple(QuantizedLayer(name, 1e-9, 5.0) for name in "abc")
    outputs = tuple(Output(one, (one + 1,), 0.0, 1.0, ((0.0, 1.0),)) for one in range(2))
    assert choose_floats(MixedProblem(layers, outputs), 0.0) == (True, True, True)
    assert choose_floats(MixedProblem(layers, outputs), 3e-9) == (False, False, False)


def test_a_conversion_is_saved_by_a_float_layer_between_two() -> None:
    """The middle layer adds no noise: it is in float only where that costs less than two conversions."""
    layers = tuple(QuantizedLayer(name, noise, cost) for name, noise, cost in (("a", 1, 1), ("b", 0, 3), ("c", 1, 1)))

    def choose(conversion: float) -> tuple[bool, ...] | None:
        outputs = tuple(Output(one, (one + 1,), 0.0, conversion, ((0.0, conversion),)) for one in range(2))
        return choose_floats(MixedProblem(layers, outputs), 0.5)

    assert choose(1.0) == (True, False, True)
    assert choose(2.0) == (True, True, True)


def test_a_sum_of_a_float_and_an_int8_layer_is_in_int8() -> None:
    """What the float layer gives is rounded for the sum, and what reads the sum in float converts it back."""
    layers = tuple(QuantizedLayer(name, 0.0) for name in "abc")
    outputs = tuple(Output(one, (reader,), 0.0, 10.0, ((0.0, 1.0),)) for one, reader in ((0, 3), (1, 3), (3, 2)))
    problem = MixedProblem(layers, outputs, merges=(Merge(frozenset({0, 1}), 0.5, 0.25),))
    found = [problem.cost(floats) for floats in product((False, True), repeat=3)]
    assert found == [0.25, 1.25, 10.25, 11.25, 10.25, 11.25, 10.5, 0.5]


def test_what_a_float_part_gives_is_rounded_once() -> None:
    layers = tuple(QuantizedLayer(name, 0.0) for name in "abc")
    problem = MixedProblem(layers, (Output(0, (1, 2), -1.0, 3.0, ((0.0, 2.0), (0.0, 2.0))),))
    found = [problem.cost(floats) for floats in product((False, True), repeat=3)]
    assert found == [0.0, 2.0, 2.0, 4.0, 3.0, 3.0, 3.0, -1.0]


@pytest.mark.parametrize(
    ("limits", "accuracy", "within"),
    [
        ((Gate("accuracy_drop_points", at_most=1.0),), 89.0, True),
        ((Gate("accuracy_drop_points", at_most=1.0),), 88.9, False),
        ((Gate("accuracy_drop_points", at_most=1.0), Gate("accuracy_percent", at_least=89.5)), 89.2, False),
        ((Gate("accuracy_percent", max_regression=0.1),), 81.5, True),
        ((Gate("accuracy_percent", max_regression=0.1),), 80.5, False),
    ],
)
def test_accuracy_limits_are_held_against_the_unpruned_net(
    limits: tuple[Gate, ...], accuracy: float, within: bool
) -> None:
    assert is_within(settle_gates(limits, TOP1, "gates"), accuracy, 90.0) == within
