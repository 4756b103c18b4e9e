"""Staircases of a latency table, in the terminal and as a picture."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.latency.staircase import find_staircases, render_staircase, render_table_facts
from edgeprune.core.latency.table import LatencyPoint, LatencyTable, TableKey
from edgeprune.report.pictures import draw_front, draw_staircases, render_png

KEY = TableKey("0123456789abcdef", "litert", "2.3.0", "fp32", 1)
PNG = b"\x89PNG\r\n"


def conv(cin: int, cout: int, groups: int = 1, size: int = 28) -> LayerShape:
    return LayerShape("conv", cin, cout, (3, 3), (1, 1), groups, (size, size), (1, 1))


def table(*points: tuple[LayerShape, float]) -> LatencyTable:
    return LatencyTable(KEY, tuple(LatencyPoint(shape, ms, 0.9 * ms, 1.2 * ms) for shape, ms in points))


def stairs(cout: int, step: int = 16) -> float:
    return -(-cout // step) * 0.01


STAIRS = table(*((conv(cin, cout), cin * stairs(cout)) for cin in (8, 32, 64, 96, 128) for cout in range(8, 65, 8)))


def bars(text: str) -> list[str]:
    return [line.partition("|")[2] for line in text.splitlines() if "|" in line]


def test_widths_of_one_step_are_equally_high() -> None:
    (staircase,) = find_staircases(STAIRS)
    assert (staircase.title, staircase.over, staircase.points) == ("conv 3x3 @ 28x28", "cout", 40)
    text = render_staircase(staircase)
    assert [held in text for held in ("cin 8 |", "cin 64 |", "cin 128 |", "cin 32 |")] == [True, True, True, False]
    columns = [tuple(row[place : place + 3] for row in bars(text)[:4]) for place in range(0, 24, 3)]
    heights = [sum(cell.strip() != "" for cell in (row.ljust(3) for row in column)) for column in columns]
    assert heights == [1, 1, 2, 2, 3, 3, 4, 4]


def test_layers_that_vary_in_input_channels_alone_are_drawn_over_them() -> None:
    head = [(LayerShape("linear", cin, 10), cin * 0.001) for cin in (8, 16, 24)]
    depthwise = [(conv(count, count, count), count * 0.002) for count in (8, 16)]
    gelu = [(LayerShape("gelu", count, count, (1,), (1,), 1, (64,), (0,)), count * 0.001) for count in (8, 16)]
    found = {one.title: one for one in find_staircases(table(*head, *depthwise, *gelu))}
    assert [count for count, _ in found["gelu 1 @ 64"].lines[0].points] == [8, 16]
    assert found["linear"].over == "cin"
    assert [line.fixed for line in found["linear"].lines] == ["cout 10"]
    assert found["depthwise conv 3x3 @ 28x28"].over == "channels"
    assert [count for count, _ in found["depthwise conv 3x3 @ 28x28"].lines[0].points] == [8, 16]


def test_many_points_are_labelled_at_the_ends() -> None:
    (staircase,) = find_staircases(table(*((conv(8, cout), stairs(cout)) for cout in range(1, 101))))
    text = render_staircase(staircase)
    assert "1 ... 100" in text
    assert all(len(row) <= 100 for row in bars(text))


def test_facts_name_the_validation_error_or_say_that_there_is_none() -> None:
    profiled = {
        "correction": {"error": 0.034, "variants": 12},
        "device": {"host": "pi", "cpu": "Cortex-A72"},
        "twin_gap": 0.013,
    }
    text = render_table_facts(STAIRS, profiled)
    assert re.search(
        r"validation +whole nets missed by 3\.4% on average, leave one out of 12; the same net twice: 1\.3% apart", text
    )
    assert re.search(r"origin +measured", text)
    assert "40 layer shapes of 1 kinds" in text
    assert "Cortex-A72" in text
    assert "--run" in render_table_facts(STAIRS, None)
    assert "too few" in render_table_facts(STAIRS, {"correction": {"error": None, "variants": 2}})


def test_an_estimate_says_so_and_how_far_it_missed_others() -> None:
    left_out = {"ncnn rpi4": {"mean": 0.566}, "xnnpack rpi4": {"mean": 0.288}}
    estimated = LatencyTable(KEY, STAIRS.points, "estimated", {"left_out": left_out, "fitted_on": ["a", "b"]})
    text = render_table_facts(estimated, {"correction": {"error": None, "variants": 0}, "device": None})
    assert re.search(r"origin +estimated", text)
    assert "ncnn rpi4 by 57%, xnnpack rpi4 by 29%" in text
    assert re.search(r"fitted_on +a, b", text)


def test_the_picture_shows_every_measured_point_where_it_lies() -> None:
    (panel,) = draw_staircases(find_staircases(STAIRS), "title", "note").axes
    assert (panel.get_title(), panel.get_xlabel(), panel.get_ylabel()) == ("conv 3x3 @ 28x28", "cout", "ms")
    curves = {line.get_label(): line.get_xydata().tolist() for line in panel.lines}
    assert list(curves) == ["cin 8", "cin 32", "cin 96", "cin 128"]
    expected = [[cout, pytest.approx(128 * stairs(cout))] for cout in range(8, 65, 8)]
    assert curves["cin 128"] == expected
    assert panel.get_ylim()[0] == 0


def test_the_front_marks_what_is_planned() -> None:
    places = [{"latency_ms": ms, "loss_increase": 1 / ms} for ms in (1.0, 2.0, 4.0)]
    figure = draw_front({"origin": "estimated", "front": places, "chosen": places[1]}, "net on board")
    (panel,) = figure.axes
    assert [line.get_xydata().tolist() for line in panel.lines] == [[[1, 1], [2, 0.5], [4, 0.25]], [[2, 0.5]]]
    assert "estimated" in panel.get_title()
    assert render_png(figure).startswith(PNG)


@given(
    st.lists(
        st.tuples(st.integers(1, 64), st.integers(1, 64), st.sampled_from([7, 14]), st.floats(1e-4, 1e3)),
        min_size=1,
        max_size=30,
        unique_by=lambda one: one[:3],
    )
)
def test_any_table_can_be_drawn(rows: list[tuple[int, int, int, float]]) -> None:
    found = find_staircases(table(*((conv(cin, cout, size=size), ms) for cin, cout, size, ms in rows)))
    assert sum(one.points for one in found) == len(rows)
    for one in found:
        assert one.lines
        assert render_staircase(one)
    panels = draw_staircases(found, "title", "note").axes
    assert [panel.get_title() for panel in panels] == [one.title for one in found]
    assert all(panel.lines for panel in panels)
