"""The front of predicted loss against latency as one SVG picture that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

WIDTH, HEIGHT = 560, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 70, 50
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1c2733}.soft{fill:#6b7a89}.head{font-weight:600;font-size:16px}"
    ".axis{stroke:#dde3e9}.front{stroke:#0f7b6c;stroke-width:2;fill:none}.point{fill:#0f7b6c}.chosen{fill:#b3541e}"
)
TICKS = 5


def render_front(document: Mapping[str, Any], title: str) -> str:
    """A dot for each optimal choice, loss rise over latency in ms, the chosen one marked.

    `document` has "origin", "front" and "chosen", points with `latency_ms` and `loss_increase`.
    """
    points = [*document["front"], document["chosen"]]
    most_ms, most_loss = (max(point[name] for point in points) or 1.0 for name in ("latency_ms", "loss_increase"))

    def place(point: Mapping[str, float]) -> tuple[float, float]:
        across, up = point["latency_ms"] / most_ms, point["loss_increase"] / most_loss
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    places = [place(point) for point in document["front"]]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(f"<circle class='point' cx='{x:.1f}' cy='{y:.1f}' r='4'/>" for x, y in places)
    x, y = place(document["chosen"])
    mark = (
        f"<circle class='chosen' cx='{x:.1f}' cy='{y:.1f}' r='6'/>"
        f"<text x='{x + 10:.1f}' y='{y - 6:.1f}'>planned: {document['chosen']['latency_ms']:.4g} ms</text>"
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}' "
        f"role='img'><title>{escape(title)}</title><style>{STYLE}</style><rect width='100%' height='100%' fill='#fff'/>"
        f"<text class='head' x='16' y='28'>{escape(title)}</text>"
        f"<text class='soft' x='16' y='48'>least loss rise by latency, before fine-tuning; "
        f"{escape(document['origin'])}</text>{_axes(most_ms, most_loss)}"
        f"<polyline class='front' points='{line}'/>{dots}{mark}</svg>\n"
    )


def _axes(most_ms: float, most_loss: float) -> str:
    parts = []
    for tick in range(TICKS + 1):
        share = tick / TICKS
        x, y = LEFT + share * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
        parts.append(f"<line class='axis' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
        parts.append(_label(share * most_loss, LEFT - 8, y + 4, "end"))
        parts.append(_label(share * most_ms, x, HEIGHT - BOTTOM + 18, "middle"))
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f"<text class='soft' x='{middle}' y='{HEIGHT - 10}' text-anchor='middle'>predicted latency, ms</text>")
    return "".join(parts)


def _label(value: float, x: float, y: float, anchor: str) -> str:
    return f"<text class='soft' x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{value:.3g}</text>"
