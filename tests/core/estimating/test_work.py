"""What layers ask of a board: every operator that the lists of a net hold, from graph or file."""

from pathlib import Path

import pytest
import torch
from estimated import add, conv, load, pool
from hypothesis import given
from hypothesis import strategies as st
from layer_nets import OPERATORS, WINDOWS

from edgeprune.core.estimating.work import KNOWN, TERMS, Machine, count_work, find_kernel
from edgeprune.core.latency import steps
from edgeprune.core.latency.layers import ATTENTION, TRANSPOSED, LayerShape
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.onnx.layers import read_onnx_layers
from edgeprune.graph.costs import list_shapes
from edgeprune.graph.groups import find_groups
from edgeprune.graph.trace import trace_model

LARGE = Machine(cache_values=1e12, winograd=False)


def count(shape: LayerShape, machine: Machine = LARGE) -> dict[str, float]:
    return dict(zip(TERMS, count_work([shape], machine, "here")[0], strict=True))


@pytest.mark.parametrize("name", WINDOWS | OPERATORS)
def test_every_operator_of_a_net_is_known_and_costs_the_same_from_graph_and_file(name: str, tmp_path: Path) -> None:
    build, shape = (WINDOWS | OPERATORS)[name]
    example, profile = torch.zeros(1, *shape), load("rpi4")
    program = trace_model(build(), example)
    export_onnx(program, example, tmp_path / "net.onnx")
    graph, file = list_shapes(find_groups(program), {}), read_onnx_layers(tmp_path / "net.onnx")
    estimated_ms = profile.predict_net(graph).latency_ms
    assert profile.predict_net(file).latency_ms == pytest.approx(estimated_ms, rel=1e-6)
    weights_ms = profile.predict_net([one for one in graph if one.has_weights]).latency_ms
    assert (estimated_ms > weights_ms) == any(not one.has_weights for one in graph)


@pytest.mark.parametrize("op", KNOWN)
def test_every_operator_that_is_listed_has_work(op: str) -> None:
    sizes = {ATTENTION: (5, 7), "linear": ()}
    window = ((1, 1), (1, 1)) if op in ("conv", TRANSPOSED, "pool") else ((), ())
    shape = LayerShape(op, 8, 8, *window, 1, sizes.get(op, (4, 4)), (0, 0) if window[0] else ())
    counted = count(shape)
    assert counted["calls"] == 1
    assert counted["near"] > 0
    if op != steps.CONCAT:
        assert any(counted[term] for term in ("conv", "pointwise", "linear", "pool", "add", "activation"))


def test_kernels_are_told_apart() -> None:
    kinds = {
        "winograd": conv(8, 16),
        "conv": conv(8, 16, stride=2),
        "pointwise": conv(8, 16, kernel=1),
        "depthwise": conv(8, 8, groups=8),
        "grouped": conv(8, 16, groups=2),
        "linear": LayerShape("linear", 8, 8),
    }
    assert all(find_kernel(shape, winograd=True) == kind for kind, shape in kinds.items())
    assert find_kernel(kinds["winograd"], winograd=False) == "conv"
    assert find_kernel(LayerShape("linear", 8, 8, (1,), (1,), 1, (197,), (0,)), winograd=False) == "pointwise"
    dilated = LayerShape("conv", 8, 8, (3, 3), (1, 1), 1, (9, 9), (2, 2), (2, 2))
    transposed = LayerShape(TRANSPOSED, 8, 8, (3, 3), (1, 1), 1, (9, 9), (1, 1))
    one_axis = LayerShape("conv", 8, 8, (3,), (1,), 1, (9,), (1,))
    for shape in (dilated, transposed, one_axis):
        assert find_kernel(shape, winograd=True) == "conv"


@given(st.integers(1, 8), st.integers(1, 8), st.sampled_from([1, 3, 5]), st.integers(5, 12), st.sampled_from([1, 2]))
def test_multiply_accumulates_are_those_of_the_layer_in_whole_tiles(
    cin: int, cout: int, kernel: int, size: int, stride: int
) -> None:
    shape = conv(cin, 8 * cout, size, kernel, stride)
    counted = count(shape)
    assert counted["conv"] + counted["pointwise"] == shape.macs
    assert counted["weights"] == shape.weights
    assert counted["near"] == shape.values
    assert counted["starts"] == shape.cout * shape.output_size[0] ** 2
    assert counted["packing"] == cin * kernel**2 * shape.output_size[0] ** 2
    assert count(LayerShape("linear", cin, 8 * cout))["packing"] == 0, "a vector is where it is wanted"
    ragged = conv(cin, 8 * cout - 3, size, kernel, stride)
    assert count(ragged)["conv"] + count(ragged)["pointwise"] == shape.macs
    assert count(ragged)["near"] == ragged.values


def test_a_transposed_convolution_multiplies_at_its_small_side_and_writes_its_large_one() -> None:
    shape = LayerShape(TRANSPOSED, 3, 16, (2, 2), (2, 2), 1, (16, 16), (0, 0))
    counted = count(shape)
    assert counted["conv"] == shape.macs == 3 * 16 * 4 * 256
    assert counted["near"] == 3 * 256 + 16 * 1024


def test_pools_see_every_value_of_each_window() -> None:
    assert count(pool(4, 8, 3))["pool"] == 4 * 64 * 9
    assert count(pool(4, 8, 2, 2))["pool"] == 4 * 64
    assert count(pool(4, 8, 8, 8))["pool"] == count(LayerShape(steps.REDUCE, 4 * 64, 1, size=(1,)))["pool"] == 4 * 64


def test_values_that_are_read_and_written() -> None:
    for op, moved in (("add", 3), ("mul", 3), ("pointwise", 2), ("softmax", 2), ("concat", 2), ("gelu", 2)):
        assert count(LayerShape(op, 4, 4, size=(64,)))["near"] == moved * 4 * 64
    assert count(LayerShape(steps.RESIZE, 4, 4, size=(8, 8), output=(16, 16)))["near"] == 4 * (64 + 256)
    assert count(add(4, 8)) == count(LayerShape("add", 4, 4, size=(64,)))


def test_attention_is_its_two_products_and_a_softmax() -> None:
    heads, width, queries, keys = 3, 16, 10, 14
    attention = count(
        LayerShape(ATTENTION, heads * width, heads * width, (1, 1), (1, 1), heads, (queries, keys), (0, 0))
    )
    scores = count(LayerShape(steps.PRODUCT, heads * width, heads * keys, groups=heads, size=(queries,)))
    mixed = count(LayerShape(steps.PRODUCT, heads * keys, heads * width, groups=heads, size=(queries,)))
    assert attention["pointwise"] == scores["pointwise"] + mixed["pointwise"] == 2 * heads * queries * keys * width
    assert attention["activation"] == heads * queries * keys


def test_what_the_cache_cannot_hold_comes_from_memory() -> None:
    shape = conv(16, 16, 32)
    held, half, none = (count(shape, Machine(values, False)) for values in (2 * shape.values, shape.values, 10.0))
    assert (held["far"], held["near"]) == (0, shape.values)
    assert half["far"] == half["near"] == shape.values / 2
    assert (none["far"], none["near"]) == (shape.values, 0)


def test_winograds_algorithm_costs_transforms_beside() -> None:
    shape = conv(16, 16, 32)
    assert count(shape, Machine(1e12, winograd=True))["winograd"] == shape.macs + 9 * 16 * 32 * 32
