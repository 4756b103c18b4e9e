"""Which layers stay in float, within what the file and the activations may take."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.planning.mixed import MixedProblem, QuantizedLayer, choose_floats
from edgeprune.exporting.quantizing.mixed import describe_cost, find_choice

layers = st.builds(
    QuantizedLayer,
    name=st.just("layer"),
    noise=st.integers(1, 50).map(lambda value: value / 100),
    float_cost=st.integers(1, 50).map(float),
    int8_cost=st.integers(1, 50).map(float),
    weights=st.integers(0, 1000),
    values=st.integers(1, 1000),
)
problems = st.builds(
    MixedProblem,
    layers=st.lists(layers, min_size=1, max_size=5).map(tuple),
    budget=st.just(inf) | st.integers(10, 200).map(float),
    room_bytes=st.just(inf) | st.integers(-10, 9000).map(float),
    most_activation_bytes=st.just(inf) | st.integers(100, 4000).map(float),
)


def is_allowed(problem: MixedProblem, floats: tuple[bool, ...], noise: float) -> bool:
    added = sum(3 * layer.weights for layer, chosen in zip(problem.layers, floats, strict=True) if chosen)
    large = any(
        chosen and 4 * layer.values > problem.most_activation_bytes
        for layer, chosen in zip(problem.layers, floats, strict=True)
    )
    quiet = problem.noise(floats) <= noise + 1e-9
    return quiet and added <= problem.room_bytes and not large and problem.cost(floats) <= problem.budget + 1e-9


@given(problems, st.integers(0, 100))
def test_the_cheapest_choice_within_all_limits_is_found(problem: MixedProblem, percent: int) -> None:
    noise = percent / 100 * problem.noise([False] * len(problem.layers))
    allowed = [one for one in product([False, True], repeat=len(problem.layers)) if is_allowed(problem, one, noise)]
    chosen = choose_floats(problem, noise)
    assert (chosen is None) == (not allowed)
    if chosen is not None:
        assert is_allowed(problem, chosen, noise)
        assert problem.cost(chosen) <= min(map(problem.cost, allowed)) + 0.1


SMALL = QuantizedLayer("small", 0.5, 2.0, 1.0, weights=100, values=10)
LARGE = QuantizedLayer("large", 0.4, 1.5, 1.0, weights=10_000, values=10)
PROBLEM = MixedProblem((SMALL, LARGE))


def test_a_file_that_may_not_grow_keeps_its_large_layer_in_int8() -> None:
    def quiet(floats: tuple[bool, ...]) -> bool:
        return sum(floats) == 1

    assert find_choice(PROBLEM, quiet) == (False, True)
    assert find_choice(replace(PROBLEM, room_bytes=300), quiet) == (True, False)


def test_where_nothing_is_quiet_enough_within_the_sizes_they_are_exceeded_and_it_is_said() -> None:
    """Its large layer makes nearly all of the noise: without it in float no choice is quiet."""
    third = QuantizedLayer("third", 0.1, 2.0, 1.0, weights=100, values=10)
    layers = (replace(SMALL, noise=0.1), replace(LARGE, noise=0.8), third)
    tight = MixedProblem(layers, room_bytes=300, budget=10.0)
    chosen = find_choice(tight, lambda floats: floats[1])
    assert chosen == (False, True, False)
    assert "30,000 bytes larger than int8, 300 allowed" in describe_cost(tight, chosen)
    assert "allowed" not in describe_cost(tight, (True, False, False))


def test_activations_are_counted_by_what_each_layer_is_held_in() -> None:
    problem = MixedProblem((replace(SMALL, values=100), replace(LARGE, values=300)), most_activation_bytes=1000)
    cases = {(False, False): 300, (True, False): 400, (False, True): 1200, (True, True): 1200}
    assert {floats: problem.activation_bytes(floats) for floats in cases} == cases
    assert choose_floats(problem, 0.45) == (True, False)
    assert "a layer reads and writes 1,200 bytes, 1,000 allowed" in describe_cost(problem, (True, True))


def test_activations_exactly_at_their_limit_are_within_it() -> None:
    exact = MixedProblem((replace(SMALL, values=250), replace(LARGE, values=251)), most_activation_bytes=1000)
    assert [exact.may_float(layer) for layer in exact.layers] == [True, False]


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_the_sizes_of_layers_are_read_from_the_file(suffix: str, tmp_path: Path) -> None:
    """A convolution of 9 x 3 x 8 weights on 6 x 6 places, and a linear layer of 8 x 4."""
    import torch

    from edgeprune.exporting.onnx.export import export_onnx
    from edgeprune.exporting.quantizing.feeds import find_feeds
    from edgeprune.exporting.quantizing.prices import pose_problem, price_nothing
    from edgeprune.exporting.quantizing.weights import read_layers, read_nodes
    from edgeprune.exporting.request import FLOAT_NCHW
    from edgeprune.exporting.tflite.export import export_tflite
    from edgeprune.graph.trace import trace_model

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    ).eval()
    example, path = torch.zeros(1, 3, 8, 8), tmp_path / f"net{suffix}"
    program = trace_model(net, example)
    if suffix == ".onnx":
        export_onnx(program, example, path, False)
    else:
        pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")
        export_tflite(program, example, path, FLOAT_NCHW)
    stored = read_layers(path)
    feeds = find_feeds(read_nodes(path), [layer.name for layer in stored])
    row = example.numpy()[0]
    problem = pose_problem(path, row, stored, feeds, price_nothing)
    assert [(layer.weights, layer.values) for layer in problem.layers] == [
        (3 * 8 * 9, 3 * 64 + 8 * 36), (8 * 4, 8 + 4),
    ]  # fmt: skip
