"""Files of measured nets (CSV or JSON) and of layers (JSON), read strictly: an error names line and expectation."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any

from edgeprune.core.estimating.calibrate import Measured
from edgeprune.core.estimating.estimate import VALUE_BYTES
from edgeprune.core.estimating.work import KNOWN
from edgeprune.core.latency.layers import ATTENTION, WEIGHTED, LayerShape
from edgeprune.core.latency.steps import RESIZE
from edgeprune.core.text import suggest
from edgeprune.errors import EdgepruneError, ProfileError

COLUMNS = ("model", "ms", "threads", "precision")
ROW = (
    '{"model": "net.onnx", "ms": 12.5}, with "layers": [...] in place of "model" and "threads", "precision" where they '
    "differ from the target's"
)
WINDOWED = (*WEIGHTED, "pool")
AXES = ("kernel", "stride", "size", "padding")
OPTIONAL = ("dilation", "output")
"""Numbers of each axis that may be left out."""

Layers = tuple[LayerShape, ...]
ReadModel = Callable[[str], Layers]


@dataclass(frozen=True)
class _Row:
    """A row as it was found: `line` is where it begins."""

    line: int
    values: Mapping[str, Any]


def parse_measurements(text: str, where: str, read_model: ReadModel) -> tuple[Measured, ...]:
    """Measured nets of a CSV file (columns model, ms and perhaps threads, precision) or of a JSON list of such rows.

    `read_model` gives the layers of a file that a row names.

    Raises:
        ProfileError: a row that is not as expected, or whose model cannot be read; names its line.
    """
    rows = _json_rows(text, where) if text.lstrip()[:1] in ("[", "{") else _csv_rows(text, where)
    return tuple(_parse_row(row, f"{where}: line {row.line}", read_model) for row in rows)


def _csv_rows(text: str, where: str) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if not {"model", "ms"} <= set(header) <= set(COLUMNS) or len(header) != len(set(header)):
            columns = ",".join(header) or "nothing"
            raise ProfileError(
                f"{where}: line 1: expected the columns model,ms and perhaps threads,precision; found {columns}"
            )
        for cells in reader:
            if len(cells) not in (0, len(header)):
                raise ProfileError(
                    f"{where}: line {reader.line_num}: {len(cells)} cells; expected {len(header)}: {','.join(header)}"
                )
            if cells:
                yield _Row(reader.line_num, {name: cell.strip() for name, cell in zip(header, cells, strict=True)})
    except csv.Error as exc:
        raise ProfileError(f"{where}: line {reader.line_num}: not CSV: {exc}") from exc


def _json_rows(text: str, where: str) -> Iterator[_Row]:
    if not isinstance(_load_json(text, where), list):
        raise ProfileError(f"{where}: line 1: expected a list of rows, each {ROW}")
    decoder, at = json.JSONDecoder(), text.index("[") + 1
    while text[at] != "]":
        if text[at] in " \t\r\n,":
            at += 1
            continue
        line = text.count("\n", 0, at) + 1
        value, at = decoder.raw_decode(text, at)
        if not isinstance(value, dict):
            raise ProfileError(f"{where}: line {line}: expected {ROW}; found {value!r}")
        yield _Row(line, value)


def _load_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as exc:
        raise ProfileError(f"{where}: line {exc.lineno}: not JSON: {exc.msg}") from exc
    except (ValueError, RecursionError) as exc:
        raise ProfileError(f"{where}: not JSON: {exc}") from exc


def _parse_row(row: _Row, where: str, read_model: ReadModel) -> Measured:
    values = dict(row.values)
    for name in values:
        if name not in (*COLUMNS, "layers"):
            raise ProfileError(f"{where}: unknown key {name!r}{suggest(name, (*COLUMNS, 'layers'))}")
    if ("model" in values) == ("layers" in values):
        raise ProfileError(f"{where}: expected a model or its layers, one of the two: {ROW}")
    latency_ms = _parse_ms(values.get("ms"), where)
    threads, precision = _parse_threads(values.get("threads"), where), _parse_precision(values.get("precision"), where)
    if "layers" in values:
        layers = check_layers(values["layers"], where)
        return Measured(layers, latency_ms, threads, precision=precision)
    name = values["model"]
    if not isinstance(name, str) or not name:
        raise ProfileError(
            f"{where}: model is {name!r}; expected the name of an .onnx file or of a JSON list of layers"
        )
    try:
        return Measured(read_model(name), latency_ms, threads, precision=precision)
    except EdgepruneError as exc:
        raise ProfileError(f"{where}: {exc}") from exc


def _parse_ms(value: Any, where: str) -> float:
    try:
        ms = float("nan") if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        ms = float("nan")
    if not (isfinite(ms) and ms > 0):
        raise ProfileError(f"{where}: ms is {value!r}; expected the latency in milliseconds, a number above 0")
    return ms


def _parse_threads(value: Any, where: str) -> int | None:
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else "" if isinstance(value, (bool, float)) else str(value)
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 4 and int(text) > 0):
        raise ProfileError(f"{where}: threads is {value!r}; expected a whole number from 1, or nothing")
    return int(text)


def _parse_precision(value: Any, where: str) -> str | None:
    if value is None or value == "":
        return None
    if value not in tuple(VALUE_BYTES):
        raise ProfileError(f"{where}: precision is {value!r}; expected {', '.join(VALUE_BYTES)}, or nothing")
    return str(value)


def parse_layers(text: str, where: str) -> Layers:
    """The layers of a net from a JSON list of objects with the fields of LayerShape.

    Raises:
        ProfileError: not such a list; says which layer and what is expected.
    """
    return check_layers(_load_json(text, where), where)


def check_layers(rows: Any, where: str) -> Layers:
    """Layers from parsed JSON.

    Raises:
        ProfileError: not a list of layers.
    """
    if not isinstance(rows, list) or not rows:
        raise ProfileError(
            f"{where}: expected a list of layers, each like "
            '{"op": "conv", "cin": 16, "cout": 32, "kernel": [3, 3], "stride": [1, 1], "size": [28, 28], '
            '"padding": [1, 1]}'
        )
    return tuple(_check_layer(row, f"{where}: layer {number}") for number, row in enumerate(rows, 1))


def _check_layer(row: Any, where: str) -> LayerShape:
    names = [field.name for field in fields(LayerShape)]
    if not isinstance(row, dict) or not {"op", "cin", "cout"} <= set(row):
        raise ProfileError(f"{where}: expected an object with op, cin, cout and, for all but linear, the window")
    for name in row:
        if name not in names:
            raise ProfileError(f"{where}: unknown key {name!r}{suggest(name, names)}")
    if row["op"] not in KNOWN:
        raise ProfileError(f"{where}: op is {row['op']!r}{suggest(str(row['op']), KNOWN)}")
    for name in ("cin", "cout", "groups"):
        if not _is_count(row.get(name, 1), 1):
            raise ProfileError(f"{where}: {name} is {row[name]!r}; expected a whole number from 1")
    windows = {name: _window(row.get(name, []), name, where) for name in (*AXES, *OPTIONAL)}
    if row["op"] not in WINDOWED:
        spatial = ("size", "output") if row["op"] == RESIZE else ("size",)
        windows |= {name: () for name in windows if name not in spatial}
    output = windows.pop("output")
    shape = LayerShape(row["op"], row["cin"], row["cout"], groups=row.get("groups", 1), **windows)
    _check_window(shape, output, where)
    return replace(shape, output=output)


def _window(value: Any, name: str, where: str) -> tuple[int, ...]:
    least = 0 if name == "padding" else 1
    if not isinstance(value, list) or not all(_is_count(number, least) for number in value):
        raise ProfileError(f"{where}: {name} is {value!r}; expected a list of whole numbers from {least}, one an axis")
    return tuple(value)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31


def _check_window(shape: LayerShape, output: tuple[int, ...], where: str) -> None:
    """Whether sizes and groups of a layer fit each other, and the output, where it is given, its window."""
    if shape.cin % shape.groups or shape.cout % shape.groups:
        raise ProfileError(f"{where}: {shape.groups} groups do not divide {shape.cin} and {shape.cout} channels")
    if shape.op not in WINDOWED:
        axes = {ATTENTION: 2, RESIZE: len(output or shape.size)}.get(shape.op, len(shape.size))
        if len(shape.size) != axes:
            raise ProfileError(f"{where}: size of {shape.op} is {list(shape.size)}; expected {axes} numbers")
        return
    lengths = {len(getattr(shape, name)) for name in AXES}
    if len(lengths) > 1 or (shape.op in ("conv", "pool") and lengths == {0}):
        raise ProfileError(f"{where}: kernel, stride, size and padding of {shape.op} need one number an axis each")
    if shape.dilation and len(shape.dilation) not in lengths:
        raise ProfileError(f"{where}: dilation of {shape.op} needs one number an axis, or to be left out")
    if any(size < 1 for size in shape.output_size):
        raise ProfileError(f"{where}: {shape.describe()}: the window is larger than the padded input")
    most = [max(stride, step) for stride, step in zip(shape.stride, shape.steps, strict=True)]
    usual = shape.output_size
    if output and (
        len(output) != len(usual) or any(abs(a - b) > c for a, b, c in zip(output, usual, most, strict=True))
    ):
        raise ProfileError(f"{where}: {shape.describe()}: output is {list(output)}; its window gives {list(usual)}")
