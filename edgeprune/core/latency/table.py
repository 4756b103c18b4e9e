"""Latency tables: what layers cost on one device in one runtime, and what a whole net is predicted to cost."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from edgeprune.core.answers import describe_misfit
from edgeprune.core.cost import MS, name_costs, read_costs
from edgeprune.core.latency.correction import Correction, MeasuredNet, find_kind
from edgeprune.core.latency.layers import BESIDE, JOIN, Layer, LayerShape
from edgeprune.errors import ProfileError

TABLE_VERSION = 2
"""1 held lower percentiles of windows, and knew neither dilation nor output size; 2 holds latencies at the common speed
of the board."""
MEASURED, INTERPOLATED, ESTIMATED = "measured", "interpolated", "estimated"
FOREIGN = "foreign"
"""The condition that marks a table that was made for something else."""
COVERAGE = 0.9
"""Probability that the interval of a net's prediction holds its latency."""


@dataclass(frozen=True)
class LatencyPoint:
    """What one layer shape costs: the latency in ms and the interval it was seen in.

    `windows_ms` are the medians of the windows that were measured, as they were; of a join, those of both layers.
    """

    shape: LayerShape
    latency_ms: float
    low_ms: float
    high_ms: float
    windows_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """A layer's or a net's predicted latency; `kind` is "measured", "interpolated" or "estimated"."""

    latency_ms: float
    low_ms: float
    high_ms: float
    kind: str


@dataclass(frozen=True)
class TableKey:
    """What a table is valid for: figures of another device, runtime, version, precision or thread count are refused."""

    device: str
    runtime: str
    runtime_version: str
    precision: str
    threads: int

    def describe(self) -> str:
        """For people."""
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''}"
        return f"{self.runtime} {self.runtime_version} {self.precision}, {threads}, device {self.device}"


@dataclass(frozen=True)
class LatencyTable:
    """Latency by layer shape for one device and runtime; in instructions where `unit` says so.

    `origin` is "measured" or "estimated".
    """

    key: TableKey
    points: tuple[LatencyPoint, ...]
    origin: str = MEASURED
    conditions: Mapping[str, Any] = field(default_factory=dict)
    unit: str = MS

    @cached_property
    def _families(self) -> dict[LayerShape, dict[int, dict[int, LatencyPoint]]]:
        """Points by family, then by cin, then by cout."""
        families: dict[LayerShape, dict[int, dict[int, LatencyPoint]]] = defaultdict(lambda: defaultdict(dict))
        for point in self.points:
            families[find_family(point.shape)][point.shape.cin][point.shape.cout] = point
        return families

    @cached_property
    def shapes(self) -> frozenset[LayerShape]:
        """Shapes that were measured themselves."""
        return frozenset(point.shape for point in self.points)

    def predict(self, shape: LayerShape) -> Prediction:
        """Latency of a layer: measured, or interpolated between measured channel counts; none if it is cut, or for what
        is beside the layers, which measured nets alone put a price on.

        Raises:
            ProfileError: the shape lies outside what was measured; names the nearest point.
        """
        if shape.is_gone or shape.op == BESIDE:
            return Prediction(0.0, 0.0, 0.0, self.origin)
        rows = self._families.get(find_family(shape), {})
        if shape.cout in rows.get(shape.cin, {}):
            point = rows[shape.cin][shape.cout]
            kind = MEASURED if self.origin == MEASURED else ESTIMATED
            return Prediction(point.latency_ms, point.low_ms, point.high_ms, kind)
        prediction = _interpolate_diagonal(rows, shape) if shape.has_one_count else None
        prediction = prediction or _interpolate(rows, shape)
        if prediction is None:
            raise ProfileError(self._outside(shape, rows))
        return replace(prediction, kind=ESTIMATED) if self.origin != MEASURED else prediction

    def _outside(self, shape: LayerShape, rows: Mapping[int, Mapping[int, LatencyPoint]]) -> str:
        where = f"latency table ({self.key.describe()}): {shape.describe()}"
        couts = [point.shape for row in rows.values() for point in row.values()]
        if not couts:
            return f"{where}: no layer of this kind was measured; run `edgeprune profile` with this recipe"
        nearest = min(couts, key=lambda other: abs(other.cin - shape.cin) + abs(other.cout - shape.cout))
        return f"{where}: outside what was measured; the nearest point is {nearest.describe()}"

    def price_ms(self, shape: LayerShape, correction: Correction) -> float:
        """What a layer or a join adds to a net's latency.

        Raises:
            ProfileError: the shape lies outside what was measured.
        """
        return correction.layer_ms(shape, self.predict(shape).latency_ms)

    def predict_net(self, shapes: Iterable[LayerShape], correction: Correction) -> Prediction:
        """Latency of a net made of these layers, corrected."""
        parts = [(shape, self.predict(shape)) for shape in shapes]
        kinds = {part.kind for _, part in parts}
        kind = next(kind for kind in (ESTIMATED, INTERPOLATED, MEASURED) if kind in kinds or kind == MEASURED)
        total = correction.offset_ms + sum(correction.layer_ms(shape, part.latency_ms) for shape, part in parts)
        total += correction.beyond_ms(sum(shape.megavalues for shape, _ in parts))
        margin = 1.0 if correction.sigma is None else correction.spread.margin((1 + COVERAGE) / 2)
        return Prediction(total, total / margin, total * margin, kind)


def keep_families(table: LatencyTable, shapes: Iterable[LayerShape]) -> LatencyTable:
    """The points that predictions of some shapes rest on: those of layers that differ in channel counts alone."""
    families = {find_family(shape) for shape in shapes}
    return replace(table, points=tuple(point for point in table.points if find_family(point.shape) in families))


def describe_net(
    table: LatencyTable, layers: Iterable[Layer], widths: Mapping[str, int], measured_ms: float
) -> MeasuredNet:
    """A measured net of these widths, as a correction learns from it."""
    shapes, alone_ms = [layer.at(widths) for layer in layers], dict[str, float]()
    for shape in shapes:
        kind = JOIN if shape.op == JOIN else find_kind(shape)
        alone_ms[kind] = alone_ms.get(kind, 0.0) + table.predict(shape).latency_ms
    joins_ms = alone_ms.pop(JOIN, 0.0)
    weights, megavalues = sum(shape.weights for shape in shapes), sum(shape.megavalues for shape in shapes)
    beside = sum(shape.beside_values for shape in shapes)
    return MeasuredNet(sum(alone_ms.values()), joins_ms, weights / 1e6, measured_ms, megavalues, beside / 1e6, alone_ms)


def find_family(shape: LayerShape) -> LayerShape:
    """The shape without its channel counts: layers of a family differ in nothing else."""
    if shape.is_depthwise:
        return replace(shape, cin=0, cout=shape.cout // shape.cin, groups=0)
    return replace(shape, cin=0, cout=0)


def _interpolate_diagonal(rows: Mapping[int, Mapping[int, LatencyPoint]], shape: LayerShape) -> Prediction | None:
    couts = {cin: cin * shape.cout // shape.cin for cin in rows}
    column = {cin: row[couts[cin]] for cin, row in rows.items() if couts[cin] in row}
    return _between(column, shape.cin)


def _interpolate(rows: Mapping[int, Mapping[int, LatencyPoint]], shape: LayerShape) -> Prediction | None:
    column = {cin: prediction for cin, row in rows.items() if (prediction := _between(row, shape.cout)) is not None}
    return _between(column, shape.cin)


def _between(points: Mapping[int, LatencyPoint | Prediction], at: int) -> Prediction | None:
    """Linear interpolation over one channel count; None outside the range."""
    counts = sorted(points)
    index = bisect_left(counts, at)
    if index == len(counts) or (index == 0 and counts[0] != at):
        return None
    high = counts[index]
    low = high if high == at else counts[index - 1]
    share = 0.0 if high == low else (at - low) / (high - low)
    left, right = points[low], points[high]

    def mix(start: float, end: float) -> float:
        return start + share * (end - start)

    low_ms, high_ms = min(left.low_ms, right.low_ms), max(left.high_ms, right.high_ms)
    return Prediction(mix(left.latency_ms, right.latency_ms), low_ms, high_ms, INTERPOLATED)


def accept_table(table: LatencyTable, key: TableKey, insist: bool) -> LatencyTable:
    """A table that was brought along, if it is valid for `key`, or if the user insists: then it is marked.

    Raises:
        ProfileError: it was made on another device, runtime, version, precision or thread count; says which.
    """
    own, needed = asdict(table.key), asdict(key)
    differing = [f"{name} {own[name]} instead of {needed[name]}" for name in needed if own[name] != needed[name]]
    if not differing:
        return table
    if not insist:
        raise ProfileError(
            f"latency table: made for {'; '.join(differing)}; leave --table out to measure here, or add --insist"
        )
    return replace(table, key=key, conditions={**table.conditions, FOREIGN: "; ".join(differing)})


def merge_tables(old: LatencyTable, new: LatencyTable) -> LatencyTable:
    """Both tables' points; the newer of two figures for a shape is kept.

    Raises:
        ProfileError: the tables are not for the same device, runtime, precision and threads.
    """
    if old.key != new.key:
        raise ProfileError(f"latency tables differ: {old.key.describe()} and {new.key.describe()}")
    older = tuple(point for point in old.points if point.shape not in new.shapes)
    return replace(new, points=tuple(sorted(older + new.points, key=lambda point: point.shape)))


def render_table(table: LatencyTable) -> str:
    """JSON with one point a line."""
    head = {
        "version": TABLE_VERSION,
        "key": asdict(table.key),
        "origin": table.origin,
        "conditions": dict(table.conditions),
        "unit": table.unit,
    }
    points = name_costs({"unit": table.unit, "points": [asdict(point) for point in table.points]})["points"]
    rows = ",\n  ".join(map(json.dumps, points))
    return f'{json.dumps(head, indent=1)[:-2]},\n "points": [\n  {rows}\n ]\n}}\n'


def parse_table(text: str, where: str) -> LatencyTable:
    """Read what :func:`render_table` wrote.

    Raises:
        ProfileError: not such a document.
    """
    try:
        document = read_costs(json.loads(text))
        if document["version"] != TABLE_VERSION:
            raise ProfileError(
                f"{where}: version {document['version']}; this edgeprune reads version {TABLE_VERSION}: leave it out, "
                "and measure here"
            )
        points = tuple(_parse_point(row) for row in document["points"])
        head = (document["origin"], document["conditions"], document.get("unit", MS))
        return LatencyTable(TableKey(**document["key"]), points, *head)
    except (ValueError, KeyError, TypeError) as exc:
        raise ProfileError(
            f"{where}: not a latency table: {describe_misfit(exc)}; leave it out, and measure here"
        ) from exc


def _parse_point(row: dict[str, Any]) -> LatencyPoint:
    shape: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in row["shape"].items()
    }
    windows_ms = tuple(map(float, row.get("windows_ms", ())))
    return LatencyPoint(LayerShape(**shape), row["latency_ms"], row["low_ms"], row["high_ms"], windows_ms)
