"""Staircases of a latency table as one SVG picture that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

import numpy as np

from edgeprune.core.staircase import Line, Staircase

MOST_LINES = 4
COLUMNS, WIDTH, HEIGHT = 2, 460, 290
LEFT, RIGHT, TOP, BOTTOM = 62, 66, 40, 42
"""Margins of a panel; names of lines stand in the right one."""
COLOURS = ("#7a8fa6", "#2b8cbe", "#0f7b6c", "#b3541e")
HEAD = 64
LEAST_GAP = 13
"""Between the names of lines, so that none covers another."""
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1c2733}.soft{fill:#6b7a89}.title{font-weight:600;font-size:13px}"
    ".head{font-weight:600;font-size:16px}.axis{stroke:#dde3e9;stroke-width:1}"
)


def render_staircases(staircases: Sequence[Staircase], title: str, note: str) -> str:
    """A panel for each staircase: a dot for each point, with a bar from its low to its high latency."""
    height = HEAD + HEIGHT * -(-len(staircases) // COLUMNS)
    panels = [
        f"<g transform='translate({WIDTH * (index % COLUMNS)} {HEAD + HEIGHT * (index // COLUMNS)})'>{_panel(one)}</g>"
        for index, one in enumerate(staircases)
    ]
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH * COLUMNS} {height}' "
        f"width='{WIDTH * COLUMNS}' height='{height}' role='img'><title>{escape(title)}</title>"
        f"<style>{STYLE}</style><rect width='100%' height='100%' fill='#fff'/>"
        f"<text class='head' x='16' y='28'>{escape(title)}</text>"
        f"<text class='soft' x='16' y='48'>{escape(note)}</text>{''.join(panels)}</svg>\n"
    )


def _panel(staircase: Staircase) -> str:
    lines = staircase.thin(MOST_LINES)
    counts = [count for line in lines for count, _ in line.points]
    highest = max(point.high_ms for line in lines for _, point in line.points)
    axis_x, axis_y = _Axis(min(counts), max(counts), LEFT, WIDTH - RIGHT), _Axis(0, highest, HEIGHT - BOTTOM, TOP)
    parts = [f"<text class='title' x='{LEFT}' y='22'>{escape(staircase.title)}</text>", _grid(axis_x, axis_y, counts)]
    parts.append(f"<text class='soft' x='{LEFT}' y='{HEIGHT - 6}'>{staircase.over}</text>")
    ends = [axis_y.at(line.points[-1][1].latency_ms) for line in lines]
    for line, colour, label_y in zip(lines, COLOURS, _apart(ends), strict=False):
        parts.append(_curve(line, colour, axis_x, axis_y))
        end_x = axis_x.at(line.points[-1][0])
        parts.append(f"<text x='{end_x + 7:.1f}' y='{label_y + 4:.1f}' style='fill:{colour}'>{line.held}</text>")
    return "".join(parts)


class _Axis:
    """Maps values from `low` to `high` to pixels; a single value stands in the middle."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)


def _grid(axis_x: _Axis, axis_y: _Axis, counts: Sequence[int]) -> str:
    parts = []
    for value in _ticks(axis_y.high):
        y = axis_y.at(value)
        parts.append(f"<line class='axis' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
        parts.append(f"<text class='soft' x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{value:.4g}</text>")
    parts.append(f"<text class='soft' x='{LEFT - 6}' y='{TOP - 12}' text-anchor='end'>ms</text>")
    every = sorted(set(counts))
    for count in every[:: max(1, -(-len(every) // 8))]:
        x = axis_x.at(count)
        parts.append(f"<text class='soft' x='{x:.1f}' y='{HEIGHT - BOTTOM + 17}' text-anchor='middle'>{count}</text>")
    return "".join(parts)


def _ticks(highest: float) -> list[float]:
    """Round values from 0 to `highest`, four or five of them."""
    rough = highest / 4
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [step * index for index in range(int(highest / step) + 1)]


def _curve(line: Line, colour: str, axis_x: _Axis, axis_y: _Axis) -> str:
    places = [(axis_x.at(count), point) for count, point in line.points]
    path = " ".join(f"{x:.1f},{axis_y.at(point.latency_ms):.1f}" for x, point in places)
    marks = [
        f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{axis_y.at(point.low_ms):.1f}' y2='{axis_y.at(point.high_ms):.1f}' "
        f"stroke='{colour}' stroke-opacity='.4' stroke-width='3'/>"
        f"<circle cx='{x:.1f}' cy='{axis_y.at(point.latency_ms):.1f}' r='2.6' fill='{colour}'/>"
        for x, point in places
    ]
    return f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.4'/>{''.join(marks)}"


def _apart(places: Sequence[float]) -> list[float]:
    """The heights moved so that neighbours are apart, their order kept; from the lowest on the page upwards."""
    moved = list(places)
    order = sorted(range(len(places)), key=lambda index: -places[index])
    for below, above in pairwise(order):
        moved[above] = min(moved[above], moved[below] - LEAST_GAP)
    return moved
