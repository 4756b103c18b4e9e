"""Tables and texts that fit a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.text import WIDTH, fold, narrow, parse_bytes, render_columns, wrap

ROWS = [
    ("file", "p50 ms", "choice"),
    ("artifacts/original.fp32.onnx", "0.1186", "not valid at first, measured again"),
    ("artifacts/pruned.int8.tflite", "0.01993", "shipped"),
]
words = st.text(st.sampled_from("ab1/_. -"), max_size=40)


@pytest.fixture
def width() -> Iterator[None]:
    token = WIDTH.set(50)
    yield
    WIDTH.reset(token)


def test_without_a_width_a_row_is_a_line() -> None:
    lines = render_columns(ROWS).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("artifacts/original.fp32.onnx   0.1186")


@pytest.mark.usefixtures("width")
def test_within_a_width_names_are_folded_and_figures_are_whole() -> None:
    text = render_columns(ROWS)
    assert max(map(len, text.splitlines())) <= 50
    assert "0.01993" in text.split()
    assert "".join(text.split()).count("artifacts/") == 2
    rule = text.splitlines().index("-" * max(map(len, text.splitlines())))
    assert rule == 1


@pytest.mark.usefixtures("width")
def test_a_table_of_too_many_columns_is_told_a_cell_a_line() -> None:
    head, row = [f"column{number}" for number in range(12)], [f"{number}.123456" for number in range(12)]
    row[3] = ""
    lines = render_columns([head, row, row]).splitlines()
    assert lines[:3] == ["0.123456", "column1: 1.123456", "column2: 2.123456"]
    assert "column3" not in " ".join(lines)
    assert lines[11] == ""


@given(words, st.integers(1, 50))
def test_folding_loses_no_letter_and_fits(text: str, width: int) -> None:
    lines = fold(text, width)
    assert all(len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 12)), min_size=1, max_size=6), st.integers(5, 120))
def test_columns_are_narrowed_as_far_as_is_needed(columns: list[tuple[int, int]], most: int) -> None:
    natural, least = [wide for wide, _ in columns], [min(pair) for pair in columns]
    widths, gaps = narrow(natural, least, most), 2 * (len(columns) - 1)
    if widths is None:
        assert sum(least) + gaps > most
    else:
        assert sum(widths) + gaps == min(most, sum(natural) + gaps)
        assert all(low <= width <= wide for low, width, wide in zip(least, widths, natural, strict=True))


def test_a_long_line_goes_on_below_its_beginning() -> None:
    assert wrap("  gate fail: one two three four", 18) == "  gate fail: one\n    two three four"
    assert wrap("one two", 18) == "one two"
    assert wrap("one two three", None) == "one two three"


FIGURES = ["0.1186 ms", "-0.4 %", "1,234,567 bytes", "1e-05", "48.5 KiB", "98.7 %", "12 s", "+1.25", "[-0.3,"]


@given(st.lists(st.sampled_from(FIGURES) | st.sampled_from(["was", "unpruned-onnx", "against", "(a/b)"]), max_size=12))
def test_no_line_breaks_a_number_or_parts_it_from_its_unit(words: list[str]) -> None:
    text = " ".join(words)
    for broken in (wrap(text, 22), "\n".join(fold(text, 22))):
        assert all(broken.count(figure) == text.count(figure) for figure in FIGURES)


def test_a_column_is_as_wide_as_its_longest_figure_with_its_unit() -> None:
    token = WIDTH.set(30)
    rows = [("file", "said of it"), ("a" * 30, "it takes 1,234,567.25 bytes more than before")]
    assert "1,234,567.25 bytes" in render_columns(rows)
    WIDTH.reset(token)


def test_a_path_stays_whole_so_that_it_can_be_copied() -> None:
    path = "/a/path/that-is-long/" * 3
    assert path in wrap(f"report: {path}", 20).splitlines()[-1]


@given(st.integers(0, 10**9), st.sampled_from(["", "B", "KB", "MB", "KiB", "MiB", "kib"]), st.sampled_from(["", " "]))
def test_a_number_of_bytes_is_read_with_any_unit(number: int, unit: str, gap: str) -> None:
    sizes = {"": 1, "b": 1, "kb": 1000, "mb": 1_000_000, "kib": 1024, "mib": 1_048_576}
    assert parse_bytes(f"{number}{gap}{unit}") == number * sizes[unit.lower()]


@pytest.mark.parametrize("text", ["", "KiB", "-1", "1.5", "0.3KiB", "1 GiBs", "1e3", "nan"])
def test_what_is_no_whole_number_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="bytes"):
        parse_bytes(text)
