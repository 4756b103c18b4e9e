"""What keeping layers of a net in float costs on the device: layers, conversions and the whole net, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeprune.core.latency.layers import LayerShape, join_ends
from edgeprune.device.board import ModelFile, ProbeSettings
from edgeprune.errors import ExportError
from edgeprune.exporting.probing.probes import CONVERSIONS, PRECISIONS, write_probes
from edgeprune.exporting.quantizing.prices import NetShapes, PairCosts, Prices
from edgeprune.run import write_json
from edgeprune.stages.job import Job
from edgeprune.stages.results import Fitted
from edgeprune.stages.timing import EMPTY, LEAST_MS, choose_references, shapes_alone, time_nets, time_probes

PROBES = ProbeSettings(rounds=10, window_s=0.006, budget_s=240.0)
PAIRS = (("int8", "int8-fp32"), ("fp32-int8", "fp32"))
"""Precisions of a probe of two layers, by whether the first and the second are in float."""

Times = Mapping[tuple[LayerShape, str], float]
"""Latency in ms by shape and precision."""


def price_net(job: Job, files: Mapping[str, Path], shapes: NetShapes) -> Prices | None:
    """Prices of a net's layers and of conversions between them, all measured now, in turns; `files` are the whole net
    by precision. None for a net with layers that cannot be measured alone.

    Raises:
        DeviceError: the device cannot be reached or does not run them.
    """
    single = shapes_alone(shapes.layers, shapes.joins)
    probes = {precision: single | set(shapes.joins) for precision in PRECISIONS}
    try:
        times = _measure(job, probes | {key: set(shapes.joins) for key in CONVERSIONS})
    except ExportError as exc:
        job.detail(f"layers cannot be priced: {exc}")
        return None
    whole_ms = _measure_whole(job, files)
    layers = tuple((_layer_ms(times, shape, "fp32"), _layer_ms(times, shape, "int8")) for shape in shapes.layers)
    joins = tuple(_price_join(times, shape) for shape in shapes.joins)
    budget_ms = job.read(Fitted).plan.budget_ms
    assert budget_ms is not None, "a plan of the line has a budget of latency"
    prices = Prices(layers, joins, whole_ms, budget_ms)
    _save(job, shapes, prices)
    return prices


def _measure(job: Job, probes: Mapping[str, set[LayerShape]]) -> Times:
    """What models of one layer or two take, less what a call takes."""
    folder = job.run.path("probes")
    files = {
        (shape, precision): path
        for precision, shapes in probes.items()
        for shape, path in write_probes(shapes, job.planned.format, precision, folder).items()
    }
    job.detail(f"measuring {len(files)} layers and conversions in float and int8")
    references = [(shape, PRECISIONS[0]) for shape in choose_references(probes[PRECISIONS[0]])]
    latency_ms = {key: steady.latency_ms for key, steady in time_probes(job, files, PROBES, references).items()}
    return {
        (shape, precision): ms - latency_ms[EMPTY, precision.rpartition("-")[2]]
        for (shape, precision), ms in latency_ms.items()
    }


def _layer_ms(times: Times, shape: LayerShape, precision: str) -> float:
    return max(times[shape, precision], LEAST_MS)


def _price_join(times: Times, shape: LayerShape) -> PairCosts:
    """What two layers take together, less what each takes alone, by whether the first and the second are in float."""
    first, second = join_ends(shape)

    def beside(first_float: int, second_float: int) -> float:
        alone = times[first, PRECISIONS[1 - first_float]] + times[second, PRECISIONS[1 - second_float]]
        return times[shape, PAIRS[first_float][second_float]] - alone

    return ((beside(0, 0), beside(0, 1)), (beside(1, 0), beside(1, 1)))


def _measure_whole(job: Job, files: Mapping[str, Path]) -> tuple[float, float]:
    """What the whole net takes in float and in int8."""
    nets = [ModelFile.of(files[precision], job.planned.runtime, precision) for precision in PRECISIONS]
    latency_ms = time_nets(job, nets).latency_ms
    return latency_ms["fp32"], latency_ms["int8"]


def _save(job: Job, shapes: NetShapes, prices: Prices) -> None:
    """Write the prices into the run directory, for people."""

    def rows(layers: Sequence[LayerShape], costs: Sequence[object]) -> list[dict[str, object]]:
        return [{"shape": layer.describe(), "ms": cost} for layer, cost in zip(layers, costs, strict=True)]

    document = {
        "layers_float_int8": rows(shapes.layers, prices.layers),
        "pairs_by_first_and_second_in_float": rows(shapes.joins, prices.joins),
        "whole_float_int8": prices.whole_ms,
        "budget_ms": prices.budget_ms,
    }
    write_json(job.run.path("mixed_prices.json"), document)
