"""The file of the history: versions, journals, and what stands in the way of reading or writing it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from history_rows import make_row
from places import SUPPORT

from edgeprune.errors import HistoryError
from edgeprune.history import store
from edgeprune.history.filters import Filters
from edgeprune.history.row import COLUMNS
from edgeprune.history.schema import MIGRATIONS
from edgeprune.history.store import append_rows, is_on_network, open_history, read_rows, settle_journal

ALL = Filters()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "history.sqlite"


def pragma(path: Path, name: str) -> object:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_a_row_comes_back_as_it_was_and_is_written_once(path: Path) -> None:
    row = make_row(1, valid=False, problems='["too short"]', shipped=True, speedup=2.5, file_bytes=10, verdict="fail")
    assert append_rows(path, [row, make_row(2)]) == 2
    assert append_rows(path, [row, make_row(3)]) == 1
    assert append_rows(path, [row, row]) == 0
    assert read_rows(path, ALL) == sorted([row, make_row(2), make_row(3)], key=lambda kept: kept.key)
    assert pragma(path, "journal_mode") == "wal"


def test_what_was_not_known_is_filled_in_and_what_was_stays(path: Path) -> None:
    append_rows(path, [make_row(1, quality=0.5)])
    assert append_rows(path, [make_row(1, quality=0.7, verdict="pass", latency_p50_ms=9.0)]) == 0
    assert read_rows(path, ALL) == [make_row(1, quality=0.5, verdict="pass")]


def test_the_table_has_the_columns_of_a_row(path: Path) -> None:
    with open_history(path) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(measurements)")]
    assert tuple(names) == COLUMNS


def test_an_older_file_is_brought_to_the_newest_version_with_its_rows(path: Path) -> None:
    append_rows(path, [make_row(1)])
    newer = (*MIGRATIONS, ("ALTER TABLE measurements ADD COLUMN humidity_percent REAL",), ("CREATE TABLE more (a)",))
    with open_history(path, newer) as connection:
        assert connection.execute("SELECT artifact, humidity_percent FROM measurements").fetchall() == [
            ("pruned-onnx-fp32", None)
        ]
    assert pragma(path, "user_version") == len(MIGRATIONS) + 2


def test_a_file_of_the_first_version_gets_the_columns_of_today(path: Path) -> None:
    with open_history(path, MIGRATIONS[:1]) as connection:
        columns = {name: value for name, value in asdict(make_row(1)).items() if name != "instructions"}
        marks = ", ".join("?" * len(columns))
        connection.execute(f"INSERT INTO measurements ({', '.join(columns)}) VALUES ({marks})", [*columns.values()])
        connection.commit()
    append_rows(path, [replace(make_row(2), latency_p50_ms=None, instructions=8_121_722.0)])
    rows = read_rows(path, ALL)
    assert [(row.instructions, row.latency_p50_ms) for row in rows] == [
        (None, make_row(1).latency_p50_ms),
        (8_121_722.0, None),
    ]


def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    append_rows(path, [make_row(1)])
    broken = (*MIGRATIONS, ("CREATE TABLE more (a)", "ALTER TABLE absent ADD COLUMN a"))
    with pytest.raises(HistoryError, match="no such table"), open_history(path, broken):
        pass
    assert read_rows(path, ALL) == [make_row(1)]
    assert pragma(path, "user_version") == len(MIGRATIONS)


def test_a_newer_file_is_refused_and_not_touched(path: Path) -> None:
    with open_history(path, (*MIGRATIONS, ("CREATE TABLE more (a)",))):
        pass
    before = path.read_bytes()
    for attempt in (lambda: append_rows(path, [make_row(1)]), lambda: read_rows(path, ALL)):
        with pytest.raises(
            HistoryError, match=r"made by a newer edgeprune \(version 3 of the history; this one reads 2\)"
        ):
            attempt()
    assert path.read_bytes() == before


def test_a_file_of_something_else_is_refused_and_not_touched(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE measurements (mine)")
    before = path.read_bytes()
    with pytest.raises(HistoryError, match="SQLite file of something else"):
        append_rows(path, [make_row(1)])
    path.write_bytes(b"not a database at all, but long enough to be looked at as one" * 20)
    with pytest.raises(HistoryError, match="file is not a database; it is no history, or damaged"):
        read_rows(path, ALL)
    assert before


def test_a_damaged_file_is_told_with_what_to_do(path: Path) -> None:
    append_rows(path, [make_row(number) for number in range(500)])
    content = bytearray(path.read_bytes())
    for page in range(1, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(HistoryError, match="damaged; move it away, and `edgeprune history take-in`"):
        read_rows(path, ALL)
    with pytest.raises(HistoryError, match="damaged"):
        append_rows(path, [make_row("new")])


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "history.sqlite", tmp_path, Path("/proc/history.sqlite")):
        with pytest.raises(HistoryError, match=str(place)):
            append_rows(place, [make_row(1)])


@pytest.fixture
def read_only(path: Path) -> Iterator[Path]:
    """A history of one row in a folder that is mounted read-only, or that belongs to nobody who may write."""
    append_rows(path, [make_row(1)])
    if os.geteuid() != 0:
        path.chmod(0o400)
        path.parent.chmod(0o500)
        yield path
        path.parent.chmod(0o700)
        return
    place = str(path.parent)
    mounts = (["mount", "--bind", place, place], ["mount", "-o", "remount,bind,ro", place])
    if any(subprocess.run(words, check=False, capture_output=True).returncode for words in mounts):
        pytest.skip("may not mount a folder read-only")
    yield path
    subprocess.run(["umount", "-l", place], check=True)


def test_a_read_only_folder_is_read_from_and_told_when_it_is_written_to(read_only: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.sqlite"
    link.symlink_to(read_only)
    assert read_rows(read_only, ALL) == read_rows(link, ALL) == [make_row(1)]
    with pytest.raises(HistoryError, match=r"history\.sqlite: .*(read-only|readonly|unable to open)"):
        append_rows(read_only, [make_row(2)])
    assert read_rows(read_only, ALL) == [make_row(1)]


def test_a_disk_that_is_full_is_told_and_loses_nothing(path: Path) -> None:
    append_rows(path, [make_row("before")])
    size = path.stat().st_size
    code = (
        "import resource; from history_writer import *; most = int(sys.argv[2]); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)); write(Path(sys.argv[1]), 'w', 5000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(size + 50_000)],
        cwd=SUPPORT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "HistoryError" in done.stderr
    assert "disk" in done.stderr.splitlines()[-1]
    said = done.stdout.split()
    assert said
    assert {make_row("before").key, *said} <= {row.key for row in read_rows(path, ALL)}


def test_a_lock_that_is_held_for_too_long_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_rows(path, [make_row(1)])
    monkeypatch.setattr(store, "LOCK_WAIT_S", 0.1)
    with open_history(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert read_rows(path, ALL) == [make_row(1)]  # readers need not wait
        with pytest.raises(HistoryError, match="locked; others have held it"):
            append_rows(path, [make_row(2)])


def test_on_a_network_the_journal_is_one_that_a_network_bears(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_rows(path, [make_row(1)])
    monkeypatch.setattr(store, "is_on_network", lambda path: True)
    append_rows(path, [make_row(2)])
    with open_history(path) as connection:
        assert settle_journal(connection, path) == "delete"
    assert pragma(path, "journal_mode") == "delete"
    assert len(read_rows(path, ALL)) == 2


@pytest.mark.parametrize(
    ("place", "expected"),
    [("/home/me/h", True), ("/home/me/local/h", False), ("/h", False), ("/with space/h", True), ("/data/h", False)],
)
def test_a_network_file_system_is_known_by_its_mount(tmp_path: Path, place: str, expected: bool) -> None:
    mounts = tmp_path / "mounts"
    lines = ("/dev/a / ext4 rw 0 0", "server:/home /home/me nfs4 rw 0 0", "/dev/b /home/me/local xfs rw 0 0",
             r"//s/x /with\040space cifs rw 0 0", "x: /data nfs rw 0 0", "/dev/c /data ext4 rw 0 0")  # fmt: skip
    mounts.write_text("\n".join(lines))
    assert is_on_network(Path(place), mounts) is expected
    assert not is_on_network(Path(place), tmp_path / "nothing")


@pytest.mark.parametrize("columns", [{"file_bytes": 2**70}, {"recipe": "\ud800"}, {"quality": []}])
def test_what_it_cannot_hold_is_told_and_nothing_of_it_is_kept(path: Path, columns: dict[str, object]) -> None:
    append_rows(path, [make_row(1)])
    with pytest.raises(HistoryError, match=str(path)):
        append_rows(path, [make_row(2), make_row(3, **columns)])
    assert read_rows(path, ALL) == [make_row(1)]


@pytest.mark.parametrize(
    "change",
    [
        "created = 'yesterday'",
        "latency_p50_ms = 'fast'",
        "problems = 'x'",
        "recipe = x'ff00'",
        "latency_p50_ms = 9e999",
    ],
)
def test_a_row_that_edgeprune_does_not_write_is_named(path: Path, change: str) -> None:
    append_rows(path, [make_row(1)])
    with open_history(path) as connection:
        connection.execute(f"UPDATE measurements SET {change}")
    with pytest.raises(HistoryError, match=rf"measurement '.*': {change.split(maxsplit=1)[0]}: expected .*, found "):
        read_rows(path, ALL)
