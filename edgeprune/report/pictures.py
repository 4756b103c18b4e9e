"""Pictures: staircases of a latency table, and the front of predicted loss against latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from edgeprune.core.cost import cost_name, find_cost_unit, say_cost, title_cost
from edgeprune.core.latency.staircase import Line, Staircase
from edgeprune.extras import comes_with

with comes_with("report"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 4
COLUMNS, WIDTH, HEIGHT = 2, 5.0, 3.2
"""Panels beside each other, and a panel's size in inches."""
LINES = ("#7a8fa6", "#2b8cbe", "#0f7b6c", "#b3541e")
FRONT, CHOSEN = "#0f7b6c", "#b3541e"
DOTS_PER_INCH = 110


def draw_staircases(staircases: Sequence[Staircase], title: str, note: str) -> Figure:
    """A panel for each staircase: a dot for each point, with a bar from its low to its high latency."""
    rows = -(-len(staircases) // COLUMNS)
    figure = Figure(figsize=(WIDTH * COLUMNS, HEIGHT * rows + 0.7), layout="constrained")
    figure.suptitle(f"{title}\n{note}", fontsize=10)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for panel, staircase in zip(panels, staircases, strict=False):
        _draw_staircase(panel, staircase)
    for panel in list(figure.axes)[len(staircases) :]:
        panel.remove()
    return figure


def _draw_staircase(panel: Axes, staircase: Staircase) -> None:
    for line, colour in zip(staircase.thin(MOST_LINES), LINES, strict=False):
        _draw_line(panel, line, colour)
    panel.set_title(staircase.title, fontsize=9)
    panel.set_xlabel(staircase.over)
    panel.set_ylabel(find_cost_unit())
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7)


def _draw_line(panel: Axes, line: Line, colour: str) -> None:
    counts = [count for count, _ in line.points]
    middle, low, high = (
        [getattr(point, name) for _, point in line.points] for name in ("latency_ms", "low_ms", "high_ms")
    )
    panel.plot(counts, middle, ".-", color=colour, linewidth=1, label=line.fixed)
    panel.vlines(counts, low, high, color=colour, alpha=0.4, linewidth=3)


def draw_front(document: Mapping[str, Any], title: str) -> Figure:
    """A dot for each optimal choice, loss rise over latency in ms, the chosen one marked.

    `document` has "origin", "front" and "chosen", points with `latency_ms` and `loss_increase`.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel, chosen = figure.subplots(), document["chosen"]
    across, up = ([point[name] for point in document["front"]] for name in ("latency_ms", "loss_increase"))
    panel.plot(across, up, "o-", color=FRONT, label=f"least loss rise by {cost_name()}")
    label = f"planned: {say_cost(chosen['latency_ms'])}"
    panel.plot([chosen["latency_ms"]], [chosen["loss_increase"]], "D", color=CHOSEN, label=label)
    panel.set_title(f"{title}\nbefore fine-tuning; {document['origin']}", fontsize=10)
    panel.set_xlabel(f"predicted {title_cost()}")
    panel.set_ylabel("predicted rise of the loss")
    panel.set_xlim(left=0)
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    return figure


def render_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    return file.getvalue()
