"""Where a net's time goes, a layer a line: what was predicted of each layer within the net, and what a profiler saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.core.latency.correction import Correction
from edgeprune.core.latency.layers import JOIN, Layer
from edgeprune.core.latency.table import LatencyTable
from edgeprune.core.text import render_columns

OTHERS = "others"


@dataclass(frozen=True)
class NodeTime:
    """A node as the runtime ran it, in microseconds; its name is the runtime's own."""

    name: str
    operator: str
    us: float


@dataclass(frozen=True)
class LayerTime:
    """A layer: what it is predicted to take within the net and what its nodes took, both in ms; None if not found."""

    name: str
    shape: str
    predicted_ms: float | None
    profiled_ms: float | None

    @property
    def off_ms(self) -> float | None:
        """How much more was predicted than the profiler saw."""
        if self.predicted_ms is None or self.profiled_ms is None:
            return None
        return self.predicted_ms - self.profiled_ms


def break_down(
    layers: Sequence[Layer],
    widths: Mapping[str, int],
    table: LatencyTable,
    correction: Correction,
    nodes: Mapping[str, Sequence[NodeTime]],
) -> list[LayerTime]:
    """Layers in order, each with its join, then the nodes that belong to none, under the name OTHERS.

    `nodes` are those of each layer by name, the rest under OTHERS.
    """
    rows = []
    joins = {layer.name.removesuffix(">"): layer for layer in layers if layer.shape.op == JOIN}
    for layer in (layer for layer in layers if layer.shape.op != JOIN and not layer.at(widths).is_gone):
        parts = [layer, *([joins[layer.name]] if layer.name in joins else [])]
        predicted = sum(table.price_ms(part.at(widths), correction) for part in parts)
        own_nodes = nodes.get(layer.name, ())
        profiled = sum(node.us for node in own_nodes) / 1e3 if own_nodes else None
        rows.append(LayerTime(layer.name, layer.at(widths).describe(), predicted, profiled))
    others = nodes.get(OTHERS, ())
    operators = ", ".join(sorted({node.operator for node in others}))
    fixed_ms = correction.offset_ms + correction.beyond_ms(sum(layer.at(widths).megavalues for layer in layers))
    rows.append(LayerTime(OTHERS, operators, fixed_ms, sum(node.us for node in others) / 1e3))
    return rows


def render_breakdown(rows: Sequence[LayerTime], measured_ms: float) -> str:
    """A table, and the layer whose prediction is off by most beside the net."""
    table = [("layer", "shape", "predicted ms", "profiled ms", "off")]
    table += [(row.name, row.shape, _ms(row.predicted_ms), _ms(row.profiled_ms), _ms(row.off_ms)) for row in rows]
    predicted = sum(row.predicted_ms or 0 for row in rows)
    profiled = sum(row.profiled_ms or 0 for row in rows)
    table.append(("sum", "", _ms(predicted), _ms(profiled), _ms(predicted - profiled)))
    compared = [row for row in rows if row.off_ms is not None]
    lines = [render_columns(table), f"the whole net, measured without the profiler: {_ms(measured_ms)} ms"]
    if compared:
        worst = max(compared, key=lambda row: abs(row.off_ms or 0))
        share, way = abs(worst.off_ms or 0) / measured_ms, "more" if (worst.off_ms or 0) > 0 else "less"
        lines.append(f"off by most: {worst.name}, predicted {way} than its nodes took by {share:.1%} of the net")
    if any((row.predicted_ms or 0) < 0 for row in rows):
        lines.append("a figure below zero is what measured whole nets take off the sum of their single layers")
    return "\n".join([*lines, "the profiler itself takes about a microsecond a node, and tells whole microseconds"])


def _ms(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"
