"""The file of the history: SQLite, written by many processes at once; what was committed outlives a kill.

Each call opens the file and closes it again: a run writes once, at its end. In WAL mode readers and a writer do not
wait for one another, and `synchronous=FULL` has a commit on the disk before it returns (https://sqlite.org/wal.html,
section 2.2). WAL needs memory that all processes share, which a network file system has not: there it is a rollback
journal.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, fields
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any

from edgeprune.disk import describe_os_error
from edgeprune.errors import HistoryError
from edgeprune.history.filters import Filters, build_query
from edgeprune.history.row import COLUMNS, JSON_COLUMNS, KINDS, HistoryRow
from edgeprune.history.schema import APPLICATION_ID, MIGRATIONS, Migrations

LOCK_WAIT_S = 30.0
"""How long to wait for others who write."""
RETRY_S = 0.05
NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "afs",
    "ceph",
    "lustre",
    "beegfs",
    "gpfs",
    "fuse.sshfs",
    "fuse.gluster",
    "ocfs2",
    "virtiofs",
)
"""How the names of file systems begin that several machines may share (proc(5), /proc/self/mounts)."""
REMEDIES = {
    sqlite3.SQLITE_BUSY: f"others have held it for {LOCK_WAIT_S:g} s; what the run has measured can be taken in later "
    "with `edgeprune history take-in`",
    sqlite3.SQLITE_READONLY: "it, or its folder, cannot be written; check permissions, or name another with --history",
    sqlite3.SQLITE_CANTOPEN: "check the path and its permissions, or name another with --history",
    sqlite3.SQLITE_FULL: "the disk is full; make room there, or name another file with --history",
    sqlite3.SQLITE_IOERR: "is the disk full, or failing?",
    sqlite3.SQLITE_CORRUPT: "it is damaged; move it away, and `edgeprune history take-in` fills a new one from run "
    "directories",
    sqlite3.SQLITE_NOTADB: "it is no history, or damaged; move it away, or name another with --history",
}
"""What to do, by SQLite's primary result code."""

FLAGS = tuple(name for name, kind in KINDS.items() if kind == "bool")
"""Columns that SQLite keeps as 0 and 1."""
_LIST = ", ".join(COLUMNS)
_UPSERT = (
    f"INSERT INTO measurements ({_LIST}) VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT (key) DO UPDATE SET "
    + ", ".join(f"{name} = COALESCE({name}, excluded.{name})" for name in COLUMNS if name != "key")
)
"""A measurement that is there stays as it is; what nothing had told of it is filled in."""


def append_rows(path: Path, rows: Sequence[HistoryRow]) -> int:
    """Write measurements in one transaction, all or none; how many of them were new.

    Raises:
        HistoryError: the file cannot be written, is damaged, is locked for too long, or a newer edgeprune made it.
    """
    with open_history(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        keys = {row.key for row in rows}
        present = sum(connection.execute("SELECT 1 FROM measurements WHERE key = ?", (key,)).fetchone() is not None
                      for key in keys)  # fmt: skip
        connection.executemany(_UPSERT, [astuple(row) for row in rows])
        connection.execute("COMMIT")
        return len(keys) - present


def read_rows(path: Path, filters: Filters) -> list[HistoryRow]:
    """The rows that filters mean, in order of time; none where there is no file yet.

    Raises:
        HistoryError: the file cannot be read, is damaged, or a newer edgeprune made it.
    """
    if not path.exists():
        return []
    condition, parameters = build_query(filters)
    with _open_reading(path) as connection:
        values = connection.execute(f"SELECT {_LIST} FROM measurements {condition}", parameters).fetchall()
    return [_read_row(row, path) for row in reversed(values)]


TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (int,), "float": (float, int)}
OPTIONAL = frozenset(column.name for column in fields(HistoryRow) if column.default is None)


def _read_row(values: Sequence[Any], path: Path) -> HistoryRow:
    columns = dict(zip(COLUMNS, values, strict=True))
    for name, value in columns.items():
        if not (_fits(name, value) or (value is None and name in OPTIONAL)):
            raise HistoryError(
                f"{path}: measurement {columns['key']!r}: {name}: expected {KINDS[name]}, found {value!r}; "
                "edgeprune writes no such row: remove it, or move the file away and take run directories in again"
            )
    return HistoryRow(**columns | {name: bool(columns[name]) for name in FLAGS if columns[name] is not None})


def _fits(name: str, value: Any) -> bool:
    """Whether a column holds what it is for: a figure is finite, a time one that can be read, JSON what it is to be."""
    if not isinstance(value, TYPES[KINDS[name]]) or (isinstance(value, float) and not isfinite(value)):
        return False
    try:
        if name == "created":
            datetime.fromisoformat(str(value))
        return name not in JSON_COLUMNS or isinstance(json.loads(str(value)), (list, dict))
    except ValueError:
        return False


@contextmanager
def open_history(path: Path, migrations: Migrations = MIGRATIONS) -> Iterator[sqlite3.Connection]:
    """The file, made if it is not there, brought to the newest version; no transaction is open.

    Raises:
        HistoryError: as :func:`append_rows`, also of what is done with the connection.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_connect(str(path))) as connection:
            _read_version(connection, path, len(migrations))
            settle_journal(connection, path)
            connection.execute("PRAGMA synchronous = FULL")
            _migrate(connection, path, migrations)
            yield connection


@contextmanager
def _open_reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The file to read from, also where nothing can be written."""
    if os.access(path, os.W_OK) and os.access(path.resolve().parent, os.W_OK):
        with open_history(path) as connection:
            yield connection
        return
    with _explained(path), closing(_connect_reading(path.resolve())) as connection:
        version = _read_version(connection, path, len(MIGRATIONS))
        if version < len(MIGRATIONS):
            raise HistoryError(
                f"{path}: is of version {version}, this edgeprune reads {len(MIGRATIONS)}, and it cannot be "
                "written; copy it to where it can be, and name that with --history"
            )
        yield connection


def _connect_reading(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing beside the file either, where nobody else has it open."""
    address = f"{path.as_uri()}?mode=ro"
    connection = _connect(address)
    try:
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:  # in WAL mode a reader, too, needs a file beside it
        connection.close()
        if path.with_name(f"{path.name}-wal").exists():
            raise
        return _connect(f"{address}&immutable=1")
    return connection


def _connect(address: str) -> sqlite3.Connection:
    return sqlite3.connect(address, timeout=LOCK_WAIT_S, isolation_level=None, uri=address.startswith("file:"))


def _read_version(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    """The version of the file, 0 of an empty one.

    Raises:
        HistoryError: it is newer than this edgeprune, or no history.
    """
    connection.execute("BEGIN")  # one look at all three
    version, application = _pragma(connection, "user_version"), _pragma(connection, "application_id")
    tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    connection.execute("COMMIT")
    if application != APPLICATION_ID and (version or tables or application):
        raise HistoryError(f"{path}: is an SQLite file of something else; name another with --history")
    if version > newest:
        raise HistoryError(
            f"{path}: was made by a newer edgeprune (version {version} of the history; this one reads {newest}); "
            "install that, or name another file with --history"
        )
    return int(version)


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Migrations) -> None:
    """Bring the file to the newest version, in one transaction."""
    if _pragma(connection, "user_version") == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    for statements in migrations[_pragma(connection, "user_version") :]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(migrations)}")
    connection.execute("COMMIT")


def settle_journal(connection: sqlite3.Connection, path: Path) -> str:
    """Use WAL, or a rollback journal where the file is on a network or WAL cannot be had; gives SQLite's name of it.

    Raises:
        sqlite3.OperationalError: others hold the file.
    """
    wanted = "delete" if is_on_network(path) else "wal"
    mode = str(_pragma(connection, "journal_mode"))
    if mode == wanted:
        return mode
    try:
        return _wait_for_lock(lambda: str(_pragma(connection, f"journal_mode = {wanted}")))
    except sqlite3.OperationalError as exc:
        if _code(exc) == sqlite3.SQLITE_BUSY:
            raise
        return mode  # it stays as it is; what then fails says why


def is_on_network(path: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether a file lies where several machines may write it, which WAL does not bear."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return False
    places = [(words[1].replace(r"\040", " "), words[2]) for words in lines if len(words) > 2]
    around = [(len(place), kind) for place, kind in places if path.resolve().is_relative_to(place)]
    return bool(around) and max(enumerate(around), key=lambda row: (row[1][0], row[0]))[1][1].startswith(NETWORK)


def _wait_for_lock(action: Callable[[], str]) -> str:
    """Do it again while others hold the file: SQLite itself does not wait for a change of the journal."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return action()
        except sqlite3.OperationalError as exc:
            if _code(exc) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_S)


def _pragma(connection: sqlite3.Connection, words: str) -> Any:
    return connection.execute(f"PRAGMA {words}").fetchone()[0]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Errors of the file as :class:`HistoryError`, with what to do."""
    try:
        yield
    except sqlite3.Error as exc:
        remedy = REMEDIES.get(_code(exc), "move it away, or name another with --history")
        raise HistoryError(f"{path}: {exc}; {remedy}") from exc
    except OSError as exc:
        raise HistoryError(describe_os_error(exc, path)) from exc
    except (OverflowError, UnicodeError) as exc:
        raise HistoryError(f"{path}: a figure or a text that it cannot hold: {exc}") from exc


def _code(exc: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 where it is Python's own error."""
    return int(getattr(exc, "sqlite_errorcode", 0) or 0) & 0xFF
