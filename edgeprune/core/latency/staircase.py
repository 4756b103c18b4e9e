"""Staircases of a latency table: what a layer costs over its channels, by kind of layer, for people to look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.core.cost import MS, cost_name, find_cost_unit, say_cost
from edgeprune.core.latency.layers import JOIN, LayerShape
from edgeprune.core.latency.table import MEASURED, LatencyPoint, LatencyTable, find_family

BLOCKS = " ▁▂▃▄▅▆▇█"
HEIGHT = 4
"""Lines of text that a chart is high; each line shows eight levels."""
MOST_BARS = 64
"""Columns for the bars of a chart, so that it fits a terminal of 80; of more points so many are shown, evenly."""


@dataclass(frozen=True)
class Line:
    """Latency over one channel count, by that count, the other being fixed: `fixed` says which, as "cin 32"."""

    fixed: str
    points: tuple[tuple[int, LatencyPoint], ...]


@dataclass(frozen=True)
class Staircase:
    """A kind of layer with its lines; `over` is "cout", "cin", or "channels" where one count says all."""

    title: str
    over: str
    lines: tuple[Line, ...]
    points: int

    def thin(self, most: int) -> tuple[Line, ...]:
        """At most so many of the lines, spread evenly from the first to the last."""
        indices = np.unique(np.linspace(0, len(self.lines) - 1, min(most, len(self.lines))).round().astype(int))
        return tuple(self.lines[index] for index in indices)


def find_staircases(table: LatencyTable) -> tuple[Staircase, ...]:
    """One for each kind of layer in a table, in order of size; joins are no layers."""
    families: dict[LayerShape, list[LatencyPoint]] = defaultdict(list)
    for point in table.points:
        if point.shape.op != JOIN:
            families[find_family(point.shape)].append(point)
    return tuple(_staircase(family, points) for family, points in sorted(families.items()))


def _staircase(family: LayerShape, points: Sequence[LatencyPoint]) -> Staircase:
    shapes = [point.shape for point in points]
    if all(shape.has_one_count for shape in shapes):
        kind = "depthwise" if shapes[0].is_depthwise else family.op
        line = Line(kind, tuple(sorted(((point.shape.cin, point) for point in points), key=lambda pair: pair[0])))
        return Staircase(_title(family, "depthwise " * shapes[0].is_depthwise), "channels", (line,), len(points))
    by_cout = len({shape.cout for shape in shapes}) == 1
    over, fixed = ("cin", "cout") if by_cout else ("cout", "cin")
    rows: dict[int, dict[int, LatencyPoint]] = defaultdict(dict)
    for point in points:
        rows[getattr(point.shape, fixed)][getattr(point.shape, over)] = point
    longest = max(map(len, rows.values()))
    lines = [
        Line(f"{fixed} {count}", tuple(sorted(row.items())))
        for count, row in sorted(rows.items())
        if len(row) > 1 or longest == 1
    ]
    return Staircase(_title(family, ""), over, tuple(lines), len(points))


def _title(family: LayerShape, kind: str) -> str:
    return kind + " ".join(word for word in family.describe().split() if "->" not in word)


def render_staircase(staircase: Staircase, most: int = 3) -> str:
    """Bars from zero, `most` lines of the staircase, each to its own scale."""
    head = f"{staircase.title}: {cost_name()} over {staircase.over}, {staircase.points} points"
    return head + "\n" + "\n\n".join(_bars(line) for line in staircase.thin(most))


def _bars(line: Line) -> str:
    top, count = max(point.latency_ms for _, point in line.points), len(line.points)
    shown = [line.points[index] for index in np.linspace(0, count - 1, min(count, MOST_BARS)).round().astype(int)]
    levels = [round(8 * HEIGHT * point.latency_ms / top) for _, point in shown]
    labels = [str(count) for count, _ in shown]
    wide = max(map(len, labels)) + 1
    wide = wide if wide * len(labels) <= MOST_BARS else 1  # a bar with its channel count below it, or bars alone
    margins = [say_cost(top).removesuffix(" instructions"), *[""] * (HEIGHT - 2), line.fixed]
    rows = []
    for row, margin in zip(reversed(range(HEIGHT)), margins, strict=True):
        marks = (BLOCKS[max(0, min(8, level - 8 * row))] for level in levels)
        rows.append(f"{margin:>12} |" + "".join((mark * max(1, wide - 1)).rjust(wide) for mark in marks).rstrip())
    ends = "".join(label.rjust(wide) for label in labels) if wide > 1 else f"{labels[0]} ... {labels[-1]}"
    return "\n".join([*rows, f"{'':12}  {ends}"])


def render_table_facts(table: LatencyTable, profiled: Mapping[str, Any] | None) -> str:
    """What a table is of and how far it may be believed; `profiled` is the result of the run's profile stage."""
    spreads = [(point.high_ms - point.low_ms) / point.latency_ms for point in table.points if point.latency_ms > 0]
    interval = "least to median window" if table.origin == MEASURED else "90 % interval"
    facts = {
        "table": table.key.describe(),
        "origin": table.origin,
        "points": f"{len(table.points)} layer shapes of {len(find_staircases(table))} kinds",
        "spread": f"{interval} {np.median(spreads):.1%} of the figure (median)" if spreads else "unknown",
        "validation": _validation(table, profiled),
        **{name: _plain(value) for name, value in table.conditions.items() if not isinstance(value, Mapping)},
        **_device(profiled),
    }
    wide = max(map(len, facts))
    return "\n".join(f"{name:{wide}}  {value}" for name, value in facts.items())


def _validation(table: LatencyTable, profiled: Mapping[str, Any] | None) -> str:
    if table.origin != MEASURED:
        misses = table.conditions.get("left_out", {}).items()
        errors = ", ".join(f"{source} by {miss['mean']:.0%}" for source, miss in misses)
        return f"no measurement of this device; nets of sources left out were missed: {errors or 'unknown'}"
    if profiled is None:
        return "whole nets are measured by a run: name it with --run"
    correction = profiled["correction"]
    if correction.get("error") is None:
        return "none: too few whole nets were measured"
    twins = (
        f"; the same net twice: {profiled['twin_gap']:.1%} apart"
        if "twin_gap" in profiled and find_cost_unit() == MS
        else ""
    )
    error, count = correction["error"], correction["variants"]
    return f"whole nets missed by {error:.1%} on average, leave one out of {count}{twins}"


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _device(profiled: Mapping[str, Any] | None) -> dict[str, str]:
    device = (profiled or {}).get("device") or {}
    shown = {name: device.get(name) for name in ("host", "cpu", "os", "fingerprint")}
    return {f"device {name}": str(value) for name, value in shown.items() if value}
