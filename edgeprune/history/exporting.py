"""The history as a table for other programs: CSV, and Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple
from io import BytesIO, StringIO
from pathlib import Path

from edgeprune.errors import UsageError
from edgeprune.history.row import COLUMNS, KINDS, HistoryRow


def render_csv(rows: Sequence[HistoryRow]) -> bytes:
    """A line a row under the names of the columns (RFC 4180); what nothing tells is empty, yes and no are 1 and 0."""
    text = StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(
        [int(value) if isinstance(value, bool) else value for value in astuple(row)] for row in rows
    )  # None is empty
    return text.getvalue().encode()


def render_parquet(rows: Sequence[HistoryRow]) -> bytes:
    """The same columns with their types.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        pyarrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    except ImportError as exc:
        raise UsageError("a Parquet file needs pyarrow: `pip install pyarrow`; or export a .csv") from exc
    types = {"str": pyarrow.string(), "int": pyarrow.int64(), "float": pyarrow.float64(), "bool": pyarrow.bool_()}
    schema = pyarrow.schema([(name, types[KINDS[name]]) for name in COLUMNS])
    file = BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist([asdict(row) for row in rows], schema=schema), file)
    return file.getvalue()


RENDERERS: dict[str, Callable[[Sequence[HistoryRow]], bytes]] = {".csv": render_csv, ".parquet": render_parquet}


def find_renderer(path: Path) -> Callable[[Sequence[HistoryRow]], bytes]:
    """How a file is written, by how its name ends.

    Raises:
        UsageError: it ends otherwise.
    """
    if path.suffix.lower() not in RENDERERS:
        raise UsageError(f"{path}: expected a name that ends in {' or '.join(RENDERERS)}")
    return RENDERERS[path.suffix.lower()]
