"""A contact sheet: rows of small images, each with a word above it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune.extras import comes_with

with comes_with("report"):
    from matplotlib.figure import Figure

SIDE, LEFT = 0.9, 2.4
"""Inches of an image, and of the words before a row."""
COLOURS = 3


def draw_contact_sheet(rows: Sequence[tuple[str, np.ndarray, Sequence[float]]], title: str) -> Figure:
    """A row for each `(words, images [N, C, H, W], figures [N])`, with each figure above its image.

    Three channels are shown as colours, others as the mean of all; values are stretched over those of all images.
    """
    columns = max(len(images) for _, images, _ in rows)
    figure = Figure(figsize=(LEFT + SIDE * columns, 0.5 + (SIDE + 0.2) * len(rows)))
    figure.suptitle(title, fontsize=9)
    panels = figure.subplots(len(rows), columns, squeeze=False)
    figure.subplots_adjust(
        left=LEFT / (LEFT + SIDE * columns), right=0.99, bottom=0.01, top=1 - 0.5 / (0.5 + len(rows))
    )
    low, high = (float(edge([edge(images) for _, images, _ in rows])) for edge in (np.min, np.max))
    for line, (words, images, figures) in zip(panels, rows, strict=True):
        for panel in line:
            panel.axis("off")
        for panel, image, value in zip(line, images, figures, strict=False):
            shown = (image - low) / ((high - low) or 1.0)
            panel.imshow(_as_picture(shown), cmap="gray", vmin=0, vmax=1)
            panel.set_title(f"{value:.3g}", fontsize=6, pad=2)
        line[0].text(-0.15, 0.5, words, fontsize=7, ha="right", va="center", transform=line[0].transAxes)
    return figure


def _as_picture(image: np.ndarray) -> np.ndarray:
    """`[C, H, W]` as `[H, W, 3]`, or `[H, W]`."""
    return np.asarray(np.moveaxis(image, 0, -1) if len(image) == COLOURS else image.mean(0))
