"""Filters of the history, against the same filters over a list; and texts that are no part of the query."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from history_rows import make_row
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import UsageError
from edgeprune.history.filters import Filters, parse_since
from edgeprune.history.row import HistoryRow
from edgeprune.history.store import append_rows, read_rows

NAMES = st.sampled_from(["a", "b", "", "a' OR '1'='1", "%", "A", "é", None])
TIMES = st.sampled_from([f"2026-11-{day:02}T1{hour}:00:00+00:00" for day in (1, 2, 30) for hour in (0, 9)])
COLUMNS = st.fixed_dictionaries({
    "created": TIMES, "recipe": NAMES, "target": NAMES, "host": NAMES, "device": NAMES.map(lambda name: name or ""),
    "artifact": NAMES.map(lambda name: name or ""), "stage": st.sampled_from(["measure", "confirm", "file"]),
})  # fmt: skip
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("recipe", "target", "device", "artifact"), NAMES),
        "stage": st.sampled_from(["measure", "file"]), "since": TIMES, "limit": st.integers(1, 5),
    },
)  # fmt: skip


def choose(rows: list[HistoryRow], filters: dict[str, Any]) -> list[HistoryRow]:
    """The same in Python."""
    chosen = sorted(rows, key=lambda row: (row.created, row.key))
    for name, value in filters.items():
        if value is None or name == "limit":
            continue
        if name == "since":
            chosen = [row for row in chosen if row.created >= value]
        elif name == "device":
            chosen = [row for row in chosen if value in (row.device, row.host)]
        else:
            chosen = [row for row in chosen if getattr(row, name) == value]
    return chosen[-filters["limit"] :] if filters.get("limit") else chosen


@settings(max_examples=40)
@given(st.lists(COLUMNS, max_size=12), st.lists(FILTERS, min_size=1, max_size=8))
def test_filters_choose_what_the_same_filters_choose_of_a_list(
    columns: list[dict[str, Any]], tries: list[dict[str, Any]]
) -> None:
    rows = [make_row(number, **own) for number, own in enumerate(columns)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.sqlite"
        append_rows(path, rows)
        for filters in tries:
            assert read_rows(path, Filters(**filters)) == choose(rows, filters)


@pytest.mark.parametrize(
    "text", ["x' OR 1=1 --", "'; DROP TABLE measurements; --", '" OR ""="', "a%", "\x00", ":recipe"]
)
def test_a_text_of_a_filter_is_never_a_part_of_the_query(tmp_path: Path, text: str) -> None:
    path = tmp_path / "history.sqlite"
    append_rows(path, [make_row(1, recipe="a", host="a"), make_row(2, recipe=text, host=text)])
    for name in ("recipe", "target", "device", "artifact", "stage", "since"):
        read_rows(path, Filters(**{name: text}))
    assert [row.recipe for row in read_rows(path, Filters(recipe=text))] == [text]
    assert len(read_rows(path, Filters())) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-21", "2026-11-21T00:00:00+00:00"),
        ("2026-11-21T10:30", "2026-11-21T10:30:00+00:00"),
        ("2026-11-21T10:30+02:00", "2026-11-21T08:30:00+00:00"),
    ],
)
def test_a_day_or_a_time_is_read_as_utc(text: str, expected: str) -> None:
    assert parse_since(text) == expected


@pytest.mark.parametrize("text", ["yesterday", "", "2026-13-01", "0001-01-01T00:00+14:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--since .*: expected a date as 2026-11-21"):
        parse_since(text)
