"""Mixed precision: an int8 file in which some layers stay in float, chosen by measured noise and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edgeprune.core.mixed import MixedProblem, QuantizedLayer, choose_floats
from edgeprune.errors import ExportError
from edgeprune.export.observe import run_rows
from edgeprune.export.static import Settings, Trials
from edgeprune.export.weights import Node, WeightLayer, read_layers, read_nodes

STEP_DB = 3.0
STEPS = 14
"""Limits on the noise that are tried, one after the other, from that of plain int8 down."""
CONVERSION = 0.25
"""What a conversion is taken to cost where no latency is known, as a share of a mean layer in float."""


@dataclass(frozen=True)
class Mixed:
    """A file with the layers in it that stayed in float; `sqnr_db` is that of the output on held-out rows."""

    content: bytes
    floats: tuple[str, ...]
    layers: int
    sqnr_db: float

    def describe(self) -> str:
        """For people: how many layers stay in float, and which."""
        names = f": {', '.join(self.floats)}" if self.floats else ""
        return f"{len(self.floats)} of {self.layers} layers in float{names} ({self.sqnr_db:.1f} dB on rows held out)"


def _label(layer: WeightLayer) -> str:
    """The module that a layer belongs to, by its path (`a.Net/torch.nn.Conv2d_body;2`: `Conv2d_body`) or its weight."""
    steps = layer.name.partition(";")[0].split("/")[1:]
    return "/".join(step.rpartition(".")[2] for step in steps) or layer.weight.removesuffix(".weight")


def mix(
    trials: Trials, settings: Settings, accurate: Callable[[Path], bool], prices: Mapping[str, tuple[float, float]]
) -> Mixed:
    """The cheapest file that is `accurate`: of layers whose noise adds up to less and less, in STEPS, the first.

    `prices` are a layer's latencies in float and in int8, in ms; a conversion then counts as the cheapest layer in
    int8. Without a price for each, a float layer costs its multiply-accumulates.

    Raises:
        ExportError: no choice is accurate, there are too few rows to judge by, or no layer to choose.
    """
    layers = read_layers(trials.static.source)
    if not layers or not len(trials.judged):
        raise ExportError(f"{trials.static.source.name}: mixed precision needs layers with weights and 16 rows or more")
    nodes = read_nodes(trials.static.source)
    feeds = find_feeds(nodes, [layer.name for layer in layers])
    costs, conversion = _price(trials, layers, prices)
    noises = _measure_noises(trials, settings, feeds, len(layers))
    named = zip([layer.name for layer in layers], noises, costs, strict=True)
    problem = MixedProblem(tuple(QuantizedLayer(*one) for one in named), feeds.links, conversion)
    tried = set[tuple[bool, ...]]()
    for step in range(STEPS):
        floats = choose_floats(problem, sum(noises) * 10 ** (-STEP_DB * step / 10))
        if all(floats):
            break
        if floats not in tried:
            content = trials.quantize(settings, feeds.named(floats))
            if accurate(trials.write("mixed", content)):
                names = tuple(_label(layer) for layer, one in zip(layers, floats, strict=True) if one)
                return Mixed(content, names, len(layers), trials.judge(content))
        tried.add(floats)
    raise ExportError(
        f"{trials.static.source.name}: mixed precision: no layer may be int8 for it to be accurate and fast enough; "
        "ship fp32"
    )


def _measure_noises(trials: Trials, settings: Settings, feeds: Feeds, count: int) -> list[float]:
    """Noise of each layer alone in int8, as a share of the output's power."""
    noises = []
    for index in range(count):
        alone = trials.quantize(settings, feeds.named([other != index for other in range(count)]))
        noises.append(float(10 ** (-trials.judge(alone) / 10)))
    return noises


def _price(
    trials: Trials, layers: Sequence[WeightLayer], prices: Mapping[str, tuple[float, float]]
) -> tuple[list[float], float]:
    """What each layer costs more in float, and what a conversion costs."""
    if all(layer.name in prices for layer in layers):
        known = [prices[layer.name] for layer in layers]
        return [in_float - in_int8 for in_float, in_int8 in known], min(in_int8 for _, in_int8 in known)
    path = trials.static.source
    (values,) = islice(run_rows(path, trials.judged[:1]), 1)
    written = {node.name: node.outputs[0] for node in read_nodes(path)}
    macs = [values[written[layer.name]].size * layer.weights[0].size for layer in layers]
    return [one * len(macs) / sum(macs) for one in macs], CONVERSION


@dataclass(frozen=True)
class Feeds:
    """Which layers feed each operator of a file: one that no layer feeds belongs to the first."""

    feeders: Mapping[str, frozenset[int]]
    links: tuple[tuple[int, int], ...]

    def named(self, floats: Sequence[bool]) -> Collection[str]:
        """Operators that stay in float where these layers do: those which only such layers feed."""
        return [name for name, layers in self.feeders.items() if all(floats[one] for one in layers)]


def find_feeds(nodes: Sequence[Node], layers: Sequence[str]) -> Feeds:
    """Follow the values of layers, named in order, through the other operators."""
    index = {name: position for position, name in enumerate(layers)}
    carried: dict[str, frozenset[int]] = {}
    feeders, links = {}, set()
    for node in nodes:
        read = frozenset[int]().union(*(carried.get(name, frozenset()) for name in node.inputs))
        if node.name in index:
            links |= {(one, index[node.name]) for one in read}
            read = frozenset({index[node.name]})
        feeders[node.name] = read or frozenset({0})
        carried |= dict.fromkeys(node.outputs, read)
    return Feeds(feeders, tuple(sorted(links)))
