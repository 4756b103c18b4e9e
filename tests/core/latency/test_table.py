"""Latency tables that are put together and written down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.latency.table import LatencyPoint, LatencyTable, TableKey, merge_tables, parse_table, render_table
from edgeprune.errors import ProfileError

KEY = TableKey("device", "onnxruntime", "1.31.1", "fp32", 1)


def point(cout: int, ms: float) -> LatencyPoint:
    return LatencyPoint(LayerShape("linear", 8, cout), ms, ms * 0.9, ms * 1.1, (ms,))


def table(*points: LatencyPoint) -> LatencyTable:
    return LatencyTable(KEY, points)


def test_of_two_figures_for_a_shape_the_newer_one_is_kept() -> None:
    old, new = table(point(4, 1.0), point(8, 2.0)), table(point(8, 20.0), point(12, 3.0))
    merged = merge_tables(old, new)
    assert merged.points == (point(4, 1.0), point(8, 20.0), point(12, 3.0))
    assert merge_tables(new, old).predict(LayerShape("linear", 8, 8)).latency_ms == 2.0


def test_what_the_newer_table_says_of_itself_stands() -> None:
    old, new = replace(table(point(4, 1.0)), conditions={"made": "then"}), table(point(8, 2.0))
    assert merge_tables(old, replace(new, conditions={"made": "now"})).conditions == {"made": "now"}


@pytest.mark.parametrize("field", ["device", "runtime", "runtime_version", "precision", "threads"])
def test_tables_made_for_different_things_are_not_merged(field: str) -> None:
    other = replace(KEY, **{field: 2 if field == "threads" else "other"})
    with pytest.raises(ProfileError, match="latency tables differ"):
        merge_tables(table(point(4, 1.0)), LatencyTable(other, (point(8, 2.0),)))


def test_a_table_is_read_as_it_was_written() -> None:
    written = replace(table(point(4, 1.0), point(8, 2.0)), conditions={"made": "now"})
    assert parse_table(render_table(written), "table.json") == written
