"""What comes out of the history: a table, JSON, CSV, Parquet and pictures."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from history_rows import make_row
from places import ROOT

from edgeprune.history.row import COLUMNS, KINDS, METRICS, HistoryRow
from edgeprune.history.store import append_rows

Call = Callable[..., tuple[int, str, str]]
ODD = make_row(
    "odd", recipe='a "b", c\n\x1b[31m=1+1', host="é", valid=False, problems='["a, b"]', quality=1 / 3, shipped=False,
    created="2026-11-01T00:00:00+00:00",
)  # fmt: skip


@pytest.fixture
def rows(history: Path) -> list[HistoryRow]:
    """A level of ten days, one that is a fifth lower, and something odd before."""
    rows = [ODD]
    for day in range(20):
        level = 10.0 if day < 10 else 8.0
        figures = {"latency_p50_ms": level + 0.01 * (day % 3), "latency_low_ms": level - 0.1,
                   "latency_high_ms": level + 0.1, "recipe": "mine", "valid": day != 15}  # fmt: skip
        rows.append(make_row(day, created=f"2026-11-{day + 2:02}T10:00:00+00:00", **figures))
    append_rows(history, rows)
    return rows


def test_the_page_names_every_column_and_metric() -> None:
    page = (ROOT / "docs" / "history.md").read_text()
    table = page.split("| column |")[1].split("\n\n")[0]
    named = [name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split(" | ")[0])]
    assert sorted(named) == sorted(COLUMNS)
    assert all(f"`{name}`" in page.split("## Trends")[1] for name in METRICS)


def parse(name: str, text: str) -> Any:
    if not text:
        return None
    kinds: dict[str, Callable[[str], Any]] = {"str": str, "int": int, "float": float, "bool": lambda own: own == "1"}
    return kinds[KINDS[name]](text)


def test_csv_holds_every_row_as_it_is(call: Call, rows: list[HistoryRow], tmp_path: Path) -> None:
    _, said, _ = call("history", "export", tmp_path / "out.csv")
    assert "21 measurements written" in said
    with (tmp_path / "out.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == COLUMNS
    assert [HistoryRow(**{name: parse(name, line[name]) for name in COLUMNS}) for line in lines] == rows


def test_parquet_holds_every_row_as_it_is(call: Call, rows: list[HistoryRow], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    call("history", "export", tmp_path / "out.parquet")
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == [asdict(row) for row in rows]


def test_parquet_without_pyarrow_says_what_to_install(
    call: Call, rows: list[HistoryRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, said = call("history", "export", tmp_path / "out.parquet")
    assert code == 2
    assert "a Parquet file needs pyarrow: `pip install pyarrow`" in said
    assert not (tmp_path / "out.parquet").exists()


def test_another_ending_is_refused(call: Call, tmp_path: Path) -> None:
    code, _, said = call("history", "export", tmp_path / "out.xlsx")
    assert code == 2
    assert "expected a name that ends in .csv or .parquet" in said


def test_the_table_filters_and_steers_no_terminal(call: Call, rows: list[HistoryRow]) -> None:
    _, said, _ = call("history")
    assert said.count("\n") == 24
    assert "\x1b" not in said
    _, said, _ = call("history", "--recipe", "mine", "--since", "2026-11-10", "--limit", 3)
    assert [line[:10] for line in said.splitlines()[3:]] == ["2026-11-19", "2026-11-20", "2026-11-21"]
    _, said, _ = call("history", "--device", "é", "--json")
    (row,) = json.loads(said)["measurements"]
    assert (row["problems"], row["valid"], row["recipe"]) == (["a, b"], False, ODD.recipe)


def test_an_export_of_nothing_says_so_and_is_a_table_all_the_same(
    call: Call, rows: list[HistoryRow], tmp_path: Path
) -> None:
    code, said, _ = call("history", "export", tmp_path / "out.csv", "--recipe", "nobody")
    assert code == 0
    assert "no measurement agrees with what is asked" in said
    assert f"{tmp_path}/out.csv has column names alone" in said
    assert (tmp_path / "out.csv").read_text().split() == [",".join(COLUMNS)]
    _, said, _ = call("history", "export", tmp_path / "out.csv", "--history", tmp_path / "none.sqlite")
    assert "there is no file yet" in said


def test_options_before_a_command_are_refused(call: Call) -> None:
    code, _, said = call("history", "--recipe", "mine", "export", "out.csv")
    assert code == 2
    assert "write the options behind the command" in said


def test_a_picture_marks_where_the_level_changed(call: Call, rows: list[HistoryRow], tmp_path: Path) -> None:
    code, said, _ = call("history", "plot", "--output", tmp_path / "out.png")
    assert code == 0
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert "2026-11-12 10:00 UTC: 10.01 to 8.01 (-20.0%)" in said
    assert said.count("UTC: ") == 1
    for metric in ("quality", "energy_mj"):
        code, _, said = call("history", "plot", "--recipe", "mine", "--metric", metric, "--output", tmp_path / "no.png")
        assert code == 1
        assert f"no measurement with {metric}" in said
