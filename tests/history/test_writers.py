"""Many writers of one history, some of them killed: nothing that was written is lost, and nothing is there twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from history_rows import make_row
from history_writer import BATCH
from places import SUPPORT

from edgeprune.history.filters import Filters
from edgeprune.history.store import append_rows, read_rows

WRITERS, KILLED, EACH = 8, 2, 1250


def start(path: Path, writer: int) -> subprocess.Popen[str]:
    words = [sys.executable, str(SUPPORT / "history_writer.py"), str(path), str(writer), str(EACH)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)


def read_until(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]


def test_ten_thousand_measurements_by_eight_processes_two_of_them_killed(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    processes = [start(path, writer) for writer in range(WRITERS)]
    said: list[list[str]] = [[] for _ in processes]
    for writer in range(KILLED):
        said[writer] = read_until(processes[writer], 200 * (writer + 1))
        processes[writer].kill()
    for writer, process in enumerate(processes):
        said[writer] += process.communicate(timeout=120)[0].split()
    assert [process.returncode for process in processes] == [-9] * KILLED + [0] * (WRITERS - KILLED)
    assert all(len(keys) < EACH for keys in said[:KILLED])

    reported = [key for keys in said for key in keys if len(key) == 64]
    kept = Counter(row.key for row in read_rows(path, Filters()))
    assert set(reported) <= set(kept)
    assert set(kept.values()) == {1}
    assert len(kept) - len(reported) <= KILLED * (BATCH + 1)  # committed, and killed before it was said
    assert len(kept) % BATCH == 0  # whole transactions or none

    for writer in range(KILLED):
        rows = [make_row(f"{writer}-{number}") for number in range(EACH)]
        already = sum(row.key in kept for row in rows)
        assert append_rows(path, rows) == EACH - already
    keys = [row.key for row in read_rows(path, Filters())]
    assert len(keys) == len(set(keys)) == WRITERS * EACH
