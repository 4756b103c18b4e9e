"""Estimated cycles of microcontrollers: what nets cost on a core in a runtime, by published results.

A microcontroller runs one instruction stream from memory without much of a cache, so its cycles add up: work of a
layer, counted in the terms below, times a price in cycles. Prices are of a core **and** a runtime, fitted to published
results of whole nets (`benchmarks/mcu_estimates.py`); the runtime alone moves the same core by a factor of four. What
is estimated serves planning; it never stands for a measurement.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import exp, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.answers import describe_misfit
from edgeprune.core.estimating.estimate import NORMAL_90
from edgeprune.core.estimating.work import ON_VALUES
from edgeprune.core.latency import steps
from edgeprune.core.latency.layers import TRANSPOSED, LayerShape
from edgeprune.core.latency.table import ESTIMATED
from edgeprune.core.text import suggest
from edgeprune.errors import ProfileError

Array = NDArray[np.float64]

TABLE_VERSION = 1
TERMS = ("stem", "conv", "pointwise", "depthwise", "linear", "outputs", "packing", "windows", "values", "calls")
"""Multiply-accumulates by kind of kernel; `outputs` sums that are scaled back to int8 and stored; `packing` input
values that a kernel larger than 1x1 copies for each place; `windows` values that pools and means see; `values` those
that operators on single values write; `calls` operators."""
FEW_CHANNELS = 3
"""Input channels up to which a convolution is a `stem`: int8 kernels take four values at once."""
PUBLISHED, COMBINED = "published", "combined"
"""What a price rests on: results of this core in this runtime, or of the core and of the runtime with others."""


@dataclass(frozen=True)
class CyclePrices:
    """Cycles of each unit of TERMS on a core in a runtime.

    `spread` is the standard deviation of the logarithm of what whole nets are missed by: of this core in this runtime,
    by fits that had not seen them. `basis` is PUBLISHED or COMBINED; `submissions` are the results that it rests on.
    """

    core: str
    runtime: str
    prices: Mapping[str, float]
    spread: float
    basis: str
    submissions: tuple[str, ...] = ()

    def price(self, shape: LayerShape) -> float:
        """Cycles of one layer.

        Raises:
            ProfileError: an operator that the model does not know.
        """
        return float(count_terms(shape) @ np.array([self.prices[term] for term in TERMS]))

    def estimate(self, shapes: Iterable[LayerShape]) -> CycleEstimate:
        """Cycles of one inference of a net with their 90 % interval.

        Raises:
            ProfileError: an operator that the model does not know.
        """
        cycles = sum(map(self.price, shapes))
        reach = exp(NORMAL_90 * self.spread)
        return CycleEstimate(cycles, cycles / reach, cycles * reach)


@dataclass(frozen=True)
class CycleEstimate:
    """Estimated cycles of one inference and their 90 % interval."""

    cycles: float
    low: float
    high: float

    def at(self, clock_mhz: float) -> tuple[float, float, float]:
        """The same in ms at a clock: estimate, low, high."""
        cycles_per_ms = clock_mhz * 1e3
        return self.cycles / cycles_per_ms, self.low / cycles_per_ms, self.high / cycles_per_ms


@dataclass(frozen=True)
class RuntimeFacts:
    """What is known of a runtime that was published about.

    `drops_dead`: it leaves out channels whose weights are all zero, as results on the reference model of `vww` show,
    half of whose multiply-accumulates are such.
    """

    name: str
    title: str
    drops_dead: bool = False


@dataclass(frozen=True)
class CycleTable:
    """Prices of all cores and runtimes, their sources and, by core and runtime, the errors on results left out."""

    sources: tuple[str, ...]
    runtimes: tuple[RuntimeFacts, ...]
    entries: tuple[CyclePrices, ...]
    left_out: Mapping[str, Any]

    def choose(self, core: str, runtime: str) -> CyclePrices:
        """The prices of a core in a runtime.

        Raises:
            ProfileError: no published result of that core, or none of that runtime on such cores.
        """
        cores = list(dict.fromkeys(entry.core for entry in self.entries))
        if core not in cores:
            raise ProfileError(
                f"no estimate of {core or 'an unknown core'}: published results are of {', '.join(cores)}"
            )
        offers = {entry.runtime: entry for entry in self.entries if entry.core == core}
        if runtime not in offers:
            raise ProfileError(f"no estimate of {core} in {runtime!r}{suggest(runtime, offers)}")
        return offers[runtime]

    def facts(self, runtime: str) -> RuntimeFacts:
        """What is known of a runtime of the table."""
        return next(facts for facts in self.runtimes if facts.name == runtime)


def count_net(shapes: Sequence[LayerShape]) -> Array:
    """Work of a net. Shape (terms,).

    Raises:
        ProfileError: an operator that the model does not know.
    """
    work: Array = np.sum([count_terms(shape) for shape in shapes], axis=0)
    return work


@lru_cache(maxsize=100_000)
def count_terms(shape: LayerShape) -> Array:
    """Work of a layer. Shape (terms,).

    Raises:
        ProfileError: an operator that the model does not know.
    """
    if shape.is_gone:
        return np.zeros(len(TERMS))
    written = float(shape.cout * prod(shape.output_size))
    if shape.has_weights:
        work = _count_weighted(shape, written)
    elif shape.op in (steps.POOL, steps.REDUCE):
        read = float(shape.cin * prod(shape.size))
        work = {"windows": written * prod(shape.kernel) if shape.kernel else read}
    elif shape.op in ON_VALUES:
        work = {"values": written}
    else:
        raise ProfileError(
            f"estimate of cycles: operator {shape.op!r} of {shape.describe()!r} is in no net that was published; it "
            "has to be measured on the board"
        )
    work["calls"] = 1.0
    return np.array([work.get(term, 0.0) for term in TERMS])


def find_term(shape: LayerShape) -> str:
    """The kind of kernel of a convolution or a linear layer, one of TERMS."""
    if shape.op == "linear":
        return "linear" if prod(shape.size) == 1 else "pointwise"
    if shape.is_depthwise:
        return "depthwise"
    if shape.cin // shape.groups <= FEW_CHANNELS:
        return "stem"
    return "pointwise" if prod(shape.kernel) == 1 else "conv"


def _count_weighted(shape: LayerShape, written: float) -> dict[str, float]:
    term = find_term(shape)
    places = prod(shape.size if shape.op == TRANSPOSED else shape.output_size)
    packed = float(places * shape.cin * prod(shape.kernel)) if term in ("stem", "conv") else 0.0
    return {term: float(shape.macs), "outputs": written, "packing": packed}


def render_cycles(table: CycleTable) -> str:
    """JSON with one figure a line."""
    document = {
        "version": TABLE_VERSION,
        "origin": ESTIMATED,
        "sources": list(table.sources),
        "runtimes": [asdict(facts) for facts in table.runtimes],
        "entries": [
            asdict(entry) | {"prices": {term: float(f"{entry.prices[term]:.4g}") for term in TERMS}}
            for entry in table.entries
        ],
        "left_out": dict(table.left_out),
    }
    return json.dumps(document, indent=1) + "\n"


def parse_cycles(text: str, where: str) -> CycleTable:
    """Read what :func:`render_cycles` wrote.

    Raises:
        ProfileError: not such a document, one of another version or origin, or a figure that is no positive number.
    """
    try:
        document = json.loads(text)
        if (document["version"], document["origin"]) != (TABLE_VERSION, ESTIMATED):
            raise ProfileError(
                f"{where}: version {document['version']}, origin {document['origin']!r}; expected version "
                f"{TABLE_VERSION}, {ESTIMATED!r}"
            )
        runtimes = tuple(RuntimeFacts(**row) for row in document["runtimes"])
        entries = tuple(_parse_entry(row, where) for row in document["entries"])
        unknown = {entry.runtime for entry in entries} - {facts.name for facts in runtimes}
        if unknown:
            raise ProfileError(f"{where}: nothing is said of runtime {', '.join(sorted(unknown))}")
        return CycleTable(tuple(document["sources"]), runtimes, entries, document["left_out"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as exc:
        raise ProfileError(f"{where}: not a table of estimated cycles: {describe_misfit(exc)}") from exc


def _parse_entry(row: Mapping[str, Any], where: str) -> CyclePrices:
    prices = {term: float(row["prices"][term]) for term in TERMS}
    entry = CyclePrices(
        str(row["core"]),
        str(row["runtime"]),
        prices,
        float(row["spread"]),
        str(row["basis"]),
        tuple(map(str, row["submissions"])),
    )
    if not all(0 < figure < float("inf") for figure in (*prices.values(), entry.spread)):
        raise ProfileError(f"{where}: {entry.core}, {entry.runtime}: prices and spread must be positive numbers")
    if entry.basis not in (PUBLISHED, COMBINED):
        raise ProfileError(f"{where}: {entry.core}, {entry.runtime}: basis {entry.basis!r}; expected {PUBLISHED!r}")
    return entry
