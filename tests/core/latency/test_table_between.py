"""Latency tables: what lies between measured points, what is another kind of layer, tables of other versions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgeprune.core.latency.layers import TRANSPOSED, LayerShape
from edgeprune.core.latency.table import (
    INTERPOLATED,
    LatencyPoint,
    LatencyTable,
    TableKey,
    keep_families,
    parse_table,
    render_table,
)
from edgeprune.errors import ProfileError

KEY = TableKey("board", "onnxruntime", "1.0", "fp32", 1)
CONV = LayerShape("conv", 8, 8, (3, 3), (1, 1), 1, (14, 14), (1, 1))
UP = LayerShape(TRANSPOSED, 8, 8, (2, 2), (2, 2), 1, (7, 7), (0, 0))


def table(*points: tuple[LayerShape, float, float, float]) -> LatencyTable:
    return LatencyTable(KEY, tuple(LatencyPoint(*point) for point in points))


def test_between_two_points_lies_their_mean_within_the_widest_of_their_intervals() -> None:
    """A step may rise or fall: a width that fills a kernel's blocks may be faster than a narrower one."""
    slow, fast = (9.0, 8.0, 10.0), (2.0, 1.5, 3.0)
    for low, high in ((slow, fast), (fast, slow)):
        known = table((CONV, *low), (replace(CONV, cout=16), *high))
        found = known.predict(replace(CONV, cout=12))
        assert (found.latency_ms, found.low_ms, found.high_ms, found.kind) == (5.5, 1.5, 10.0, INTERPOLATED)
        found = known.predict(replace(CONV, cout=10))
        assert found.latency_ms == pytest.approx(0.75 * low[0] + 0.25 * high[0])


def test_between_input_channels_and_along_a_diagonal_intervals_are_the_widest_too() -> None:
    slow, fast = (9.0, 8.0, 10.0), (2.0, 1.5, 3.0)
    found = table((CONV, *slow), (replace(CONV, cin=16), *fast)).predict(replace(CONV, cin=12))
    assert (found.low_ms, found.high_ms) == (1.5, 10.0)
    for shape in (CONV, UP):
        thin, wide = replace(shape, groups=8), replace(shape, cin=16, cout=16, groups=16)
        found = table((thin, *slow), (wide, *fast)).predict(replace(shape, cin=12, cout=12, groups=12))
        assert (found.latency_ms, found.low_ms, found.high_ms) == (5.5, 1.5, 10.0)


def test_a_point_interpolated_in_both_counts_is_within_the_widest_of_four() -> None:
    corners = [(8, 8, 4.0), (8, 16, 8.0), (16, 8, 2.0), (16, 16, 6.0)]
    known = table(*((replace(CONV, cin=cin, cout=cout), ms, ms - 1, ms + 1) for cin, cout, ms in corners))
    found = known.predict(replace(CONV, cin=12, cout=12))
    assert (found.latency_ms, found.low_ms, found.high_ms) == (5.0, 1.0, 9.0)


@pytest.mark.parametrize("change", [{"dilation": (2, 2)}, {"output": (13, 13)}, {"op": TRANSPOSED}])
def test_a_layer_of_another_dilation_or_output_is_another_kind(change: dict[str, object]) -> None:
    known = table((CONV, 1.0, 1.0, 1.0), (replace(CONV, cout=16), 2.0, 2.0, 2.0))
    for cout in (8, 12):
        with pytest.raises(ProfileError, match="no layer of this kind was measured"):
            known.predict(replace(CONV, cout=cout, **change))


def test_a_table_with_dilated_and_transposed_layers_is_read_back() -> None:
    shapes = [replace(CONV, dilation=(2, 1)), replace(CONV, output=(13, 14)), UP]
    known = table(*((shape, 1.0, 0.5, 2.0) for shape in shapes))
    assert parse_table(render_table(known), "here") == known


@pytest.mark.parametrize("version", [1, 3])
def test_a_table_of_another_version_is_refused(version: int) -> None:
    document = json.loads(render_table(table((CONV, 1.0, 0.5, 2.0))))
    with pytest.raises(ProfileError, match=rf"it\.json: version {version}; .* reads version 2: leave it out"):
        parse_table(json.dumps(document | {"version": version}), "it.json")


@pytest.mark.parametrize("field", ["points", "key", "origin", "conditions"])
def test_a_table_without_a_field_says_which_and_what_to_do(field: str) -> None:
    document = json.loads(render_table(table((CONV, 1.0, 0.5, 2.0))))
    del document[field]
    with pytest.raises(ProfileError, match=rf"^it\.json: not a latency table: '{field}' is missing; leave it out"):
        parse_table(json.dumps(document), "it.json")


def test_what_a_net_needs_of_a_table_predicts_the_same() -> None:
    other = replace(CONV, kernel=(5, 5), padding=(2, 2))
    shapes = [replace(CONV, cin=cin, cout=cout) for cin in (8, 32) for cout in (8, 32)]
    whole = table(*((shape, 1.0 + shape.cin * shape.cout, 1.0, 2000.0) for shape in (*shapes, other)))
    kept = keep_families(whole, [replace(CONV, cin=16, cout=24), replace(CONV, cin=8)])
    assert {point.shape for point in kept.points} == set(shapes)
    wanted = replace(CONV, cin=16, cout=24)
    assert kept.predict(wanted) == whole.predict(wanted)
    with pytest.raises(ProfileError, match="no layer of this kind"):
        kept.predict(other)
