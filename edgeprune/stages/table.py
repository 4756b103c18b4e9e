"""The latency table of a job: brought along, or measured on the device, coarsely and then where it is least certain."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from math import hypot
from pathlib import Path

import numpy as np

from edgeprune.core.latency.layers import JOIN, LayerShape, join_ends
from edgeprune.core.latency.table import (
    FOREIGN,
    TABLE_VERSION,
    LatencyPoint,
    LatencyTable,
    TableKey,
    accept_table,
    merge_tables,
    parse_table,
    render_table,
)
from edgeprune.core.measuring.windows import SteadyLatency
from edgeprune.core.planning.candidates import probe_shapes
from edgeprune.core.planning.refine import Surprises, find_uncertain, note_surprises, predict_uncertainty
from edgeprune.device.board import ProbeSettings
from edgeprune.errors import ProfileError
from edgeprune.exporting.probing.probes import write_probes
from edgeprune.run import write_atomic
from edgeprune.shipped import cache_dir
from edgeprune.stages.job import Job
from edgeprune.stages.net import Net
from edgeprune.stages.timing import EMPTY, LEAST_MS, choose_references, shapes_alone, time_probes

FIRST_PROBES = 200
MORE_PROBES = 300
"""Layer shapes measured at first, and in each step after it."""
TOLERANCE = 0.01
"""Measuring ends when widths between measured ones leave no more than this share of the net uncertain."""
ROUNDS, WINDOW_S = 8, 0.004
"""Many shapes for a short time each: the errors of a net's layers cancel, those of widths not measured do not."""
MINUTES = 10.0
"""Time for layer shapes, unless the user says otherwise."""


def _table_key(job: Job) -> TableKey:
    target, facts = job.planned, job.board.facts
    return TableKey(
        facts.fingerprint,
        target.runtime,
        job.board.runtime_version(target.runtime),
        job.planned.layer_precision,
        target.threads,
    )


def _stored_path(key: TableKey) -> Path:
    name = f"{key.device}-{key.runtime}-{key.runtime_version}-{key.precision}-{key.threads}-v{TABLE_VERSION}.json"
    return cache_dir() / "profiles" / name


def find_table(job: Job, net: Net) -> LatencyTable:
    """The table that the user brought along, or what is measured here.

    Raises:
        ProfileError: the user's table cannot be read, or was made for something else.
    """
    request, key = job.run.request, _table_key(job)
    if not request.get("table"):
        return _measure_table(job, net, key)
    path = Path(request["table"])
    try:
        table = accept_table(parse_table(path.read_text(), str(path)), key, bool(request.get("insist")))
    except OSError as exc:
        raise ProfileError(f"{path}: cannot be read: {exc.strerror}") from exc
    job.detail(f"{len(table.points)} layer shapes of {path}, made for {table.conditions.get(FOREIGN, 'this device')}")
    return table


def _measure_table(job: Job, net: Net, key: TableKey) -> LatencyTable:
    """The stored table of this device, with what it lacks measured now: coarsely, then where it is least certain.

    It is stored after every step, so that an interrupted profile goes on where it was.
    """
    path = _stored_path(key)
    table = parse_table(path.read_text(), str(path)) if path.exists() else LatencyTable(key, (), unit=job.unit)
    shapes, surprises = probe_shapes(net.layers, net.widths), Surprises()
    missing = sorted(probe_shapes(net.layers, net.widths, FIRST_PROBES) - table.shapes)
    if count := len(shapes & table.shapes):
        job.detail(f"{count} of {len(shapes)} layer shapes are known from earlier runs, kept in {path.parent}")
    end = time.monotonic() + 60 * (job.run.request.get("minutes") or MINUTES)
    while True:
        if missing:
            unmeasured = len(shapes - table.shapes)
            job.detail(f"measuring {len(missing)} of the {unmeasured} layer shapes that are not measured yet")
            points = _probe(job, missing, end - time.monotonic())
            note_surprises(surprises, table, points)
            table = merge_tables(table, LatencyTable(key, points, unit=job.unit))
            write_atomic(path, render_table(table))
        error = predict_uncertainty(table, net.layers, net.widths, surprises)
        missing = find_uncertain(table, shapes, surprises, MORE_PROBES)
        if error <= TOLERANCE or not missing or time.monotonic() > end:
            break
    job.detail(
        f"{len(shapes & table.shapes)} of {len(shapes)} layer shapes measured; a net with others may be missed by "
        f"{error:.1%}"
    )
    return table


def _probe(job: Job, shapes: Sequence[LayerShape], seconds: float) -> tuple[LatencyPoint, ...]:
    """Time models of one layer or a join on the device; what a call of the runtime costs by itself is taken off."""
    target, joins = job.planned, [shape for shape in shapes if shape.op == JOIN]
    alone = shapes_alone([shape for shape in shapes if shape.op != JOIN], joins)
    files = write_probes({*alone, *joins}, target.format, job.planned.layer_precision, job.run.path("probes"))
    settings = ProbeSettings(rounds=ROUNDS, window_s=WINDOW_S, budget_s=max(0.0, seconds))
    steady = time_probes(job, files, settings, choose_references(alone))
    empty_ms = steady[EMPTY].latency_ms
    points = {shape: _point(shape, steady[shape], empty_ms) for shape in alone - {EMPTY}}
    points |= {shape: _join_point(_point(shape, steady[shape], empty_ms), points) for shape in joins}
    return tuple(points[shape] for shape in sorted(points))


def _point(shape: LayerShape, steady: SteadyLatency, empty_ms: float) -> LatencyPoint:
    """What is told of a probe: its latency, and how far its windows lie apart, both without the call."""
    low, high = (float(value) for value in np.percentile(steady.windows_ms, [10, 90]))
    latency_ms, low_ms, high_ms = (max(value - empty_ms, LEAST_MS) for value in (steady.latency_ms, low, high))
    windows_ms = tuple(round(window_ms, 6) for window_ms in steady.windows_ms)
    return LatencyPoint(shape, latency_ms, min(low_ms, latency_ms), max(high_ms, latency_ms), windows_ms)


def _join_point(pair: LatencyPoint, alone: Mapping[LayerShape, LatencyPoint]) -> LatencyPoint:
    """What two layers cost together, less what each costs alone."""
    first, second = (alone[end] for end in join_ends(pair.shape))
    difference = pair.latency_ms - first.latency_ms - second.latency_ms
    spread = hypot(*((point.high_ms - point.low_ms) / 2 for point in (pair, first, second)))
    return LatencyPoint(pair.shape, difference, difference - spread, difference + spread, pair.windows_ms)
