"""The layers of a TFLite file: their shapes, what of them computes nothing, and what is refused."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("ai_edge_litert")

from tflite_files import TFLiteFile, build_separable

from edgeprune.core.latency.layers import LayerShape
from edgeprune.errors import ExportError
from edgeprune.exporting.tflite.layers import read_file_layers

STEM = LayerShape("conv", 3, 8, (3, 3), (2, 2), 1, (12, 12), (1, 1))
DEPTHWISE = LayerShape("conv", 8, 8, (3, 3), (1, 1), 8, (6, 6), (1, 1))
POINTWISE = LayerShape("conv", 8, 16, (1, 1), (1, 1), 1, (6, 6), (0, 0))
POOL = LayerShape("pool", 16, 16, (6, 6), (6, 6), 1, (6, 6), (0, 0))
WHOLE = build_separable()


def test_shapes_are_those_of_the_file() -> None:
    file = read_file_layers(WHOLE, "a.tflite")
    assert file.whole == (STEM, DEPTHWISE, POINTWISE, POOL, LayerShape("linear", 16, 4))
    assert file.live == file.whole
    assert file.is_int8
    assert file.macs == 36 * 8 * 27 + 36 * 8 * 9 + 36 * 16 * 8 + 16 * 4
    assert file.parameters == (8 * 27 + 8) + (8 * 9 + 8) + (16 * 8 + 16) + (16 * 4 + 4)


def test_zero_filters_are_dead_in_all_that_reads_them_alone() -> None:
    file = read_file_layers(build_separable(dead=3), "a.tflite")
    assert [(shape.cin, shape.cout) for shape in file.live] == [(3, 5), (5, 5), (5, 16), (16, 16), (16, 4)]
    assert file.live[1].groups == 5
    assert [(shape.cin, shape.cout) for shape in file.whole][:2] == [(3, 8), (8, 8)]


def test_a_filter_on_dead_channels_alone_is_dead() -> None:
    file = TFLiteFile()
    first, second = np.ones((4, 1, 1, 2), np.int8), np.ones((3, 1, 1, 4), np.int8)
    first[1] = 0
    second[0, ..., [0, 2, 3]] = 0
    read = file.add_weighted("CONV_2D", file.add_tensor((1, 2, 2, 2)), first, (1, 2, 2, 4))
    file.add_weighted("CONV_2D", read, second, (1, 2, 2, 3))
    live = read_file_layers(file.content(), "a.tflite").live
    assert [(shape.cin, shape.cout) for shape in live] == [(2, 3), (3, 2)]


def test_a_sum_is_live_where_either_summand_is() -> None:
    file = TFLiteFile()
    source = file.add_tensor((1, 4, 4, 2))
    sides = []
    for dead in ([0, 1], [1, 2]):
        weights = np.ones((4, 1, 1, 2), np.int8)
        weights[dead] = 0
        sides.append(file.add_weighted("CONV_2D", source, weights, (1, 4, 4, 4)))
    file.add_operator("ADD", sides, (1, 4, 4, 4))
    live = read_file_layers(file.content(), "a.tflite").live
    assert [(shape.op, shape.cout) for shape in live] == [("conv", 2), ("conv", 2), ("add", 3)]


def test_flattened_places_are_live_by_their_channels() -> None:
    file = TFLiteFile()
    weights = np.ones((4, 1, 1, 2), np.int8)
    weights[1] = 0
    read = file.add_weighted("CONV_2D", file.add_tensor((1, 2, 3, 2)), weights, (1, 2, 3, 4))
    read = file.add_operator("RESHAPE", [read], (1, 24))
    file.add_weighted("FULLY_CONNECTED", read, np.ones((5, 24), np.int8), (1, 5))
    assert read_file_layers(file.content(), "a.tflite").live[-1] == LayerShape("linear", 18, 5)


def test_float_weights_are_no_int8() -> None:
    assert not read_file_layers(build_separable(kind=np.float32), "a.tflite").is_int8


@pytest.mark.parametrize("kind", ["SVDF", "GELU"])
def test_an_operator_that_is_not_known_is_named(kind: str) -> None:
    """The number of the second is beyond what the schema's first field for it holds."""
    file = TFLiteFile()
    file.add_operator(kind, [file.add_tensor((1, 4))], (1, 4))
    with pytest.raises(ExportError, match=rf"a\.tflite: operator {kind} is not known"):
        read_file_layers(file.content(), "a.tflite")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(st.binary(max_size=64), st.integers(8, len(WHOLE) - 1).map(lambda end: WHOLE[:end])),
    st.lists(st.tuples(st.integers(8, len(WHOLE) - 1), st.integers(0, 255)), max_size=4),
)
def test_whatever_the_bytes_only_its_own_error_comes(content: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(WHOLE)
    for place, value in changes:
        changed[place] = value
    for broken in (content, bytes(changed)):
        with suppress(ExportError):
            read_file_layers(broken, "a.tflite")
