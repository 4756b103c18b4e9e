"""A process that writes measurements into a history, and says each key once its transaction has been committed."""

from __future__ import annotations

import sys
from pathlib import Path

from history_rows import make_row

from edgeprune.history.store import append_rows

BATCH = 10
"""Measurements of a transaction: what a run writes at its end."""


def write(path: Path, writer: str, count: int) -> None:
    for start in range(0, count, BATCH):
        rows = [make_row(f"{writer}-{number}", threads=start + 1) for number in range(start, start + BATCH)]
        append_rows(path, rows)
        print("\n".join(row.key for row in rows), flush=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
