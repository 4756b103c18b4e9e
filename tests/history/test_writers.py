"""Many writers of one history, some of them killed: nothing that was written is lost, and nothing is there twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from history_rows import make_row
from history_writer import BATCH
from places import SUPPORT

from edgeprune.history.filters import Filters
from edgeprune.history.store import append_rows, read_rows

WRITERS, KILLED, EACH = 8, 2, 1250


def start(path: Path, writer: int) -> subprocess.Popen[bytes]:
    """Begin to write; the keys that it reports stand in a file beside the history."""
    words = [sys.executable, str(SUPPORT / "history_writer.py"), str(path), str(writer), str(EACH)]
    with reports(path, writer).open("wb") as file:
        return subprocess.Popen(words, stdout=file, env={**os.environ, "OMP_NUM_THREADS": "1"})


def reports(path: Path, writer: int) -> Path:
    return path.with_name(f"reported-{writer}")


def read_reported(path: Path, writer: int) -> list[str]:
    """The keys that a writer has reported so far, without a last one that is not whole."""
    return [line for line in reports(path, writer).read_text().splitlines() if len(line) == 64]


def test_ten_thousand_measurements_by_eight_processes_two_of_them_killed(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    processes = [start(path, writer) for writer in range(WRITERS)]
    for writer in range(KILLED):
        while len(read_reported(path, writer)) < 200 * (writer + 1):
            assert processes[writer].poll() is None
            time.sleep(0.005)
        processes[writer].kill()
    assert [process.wait(120) for process in processes] == [-9] * KILLED + [0] * (WRITERS - KILLED)
    said = [read_reported(path, writer) for writer in range(WRITERS)]
    assert all(len(keys) < EACH for keys in said[:KILLED])

    reported = [key for keys in said for key in keys]
    kept = Counter(row.key for row in read_rows(path, Filters()))
    assert set(reported) <= set(kept)
    assert set(kept.values()) == {1}
    assert len(kept) - len(reported) <= KILLED * BATCH  # committed, and killed before it was said
    assert len(kept) % BATCH == 0  # whole transactions or none

    for writer in range(KILLED):
        rows = [make_row(f"{writer}-{number}") for number in range(EACH)]
        already = sum(row.key in kept for row in rows)
        assert append_rows(path, rows) == EACH - already
    keys = [row.key for row in read_rows(path, Filters())]
    assert len(keys) == len(set(keys)) == WRITERS * EACH
