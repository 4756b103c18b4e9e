"""Which layers feed each operator of a file, and where what one gives is read by the next."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edgeprune.exporting.quantizing.weights import Node


@dataclass(frozen=True)
class Feeds:
    """Which layers feed each operator of a file: one that no layer feeds belongs to the first.

    `links` are pairs of parts, the second of which reads what the first gives: layers by their place, and behind them
    `merges`: layers that feed operators together, and the tensor that the first of these writes.
    """

    feeders: Mapping[str, frozenset[int]]
    links: tuple[tuple[int, int], ...]
    merges: Mapping[frozenset[int], str]

    def float_operators(self, floats: Sequence[bool]) -> Collection[str]:
        """Operators that stay in float where these layers do: those which only such layers feed."""
        return [name for name, layers in self.feeders.items() if all(floats[layer] for layer in layers)]


def find_feeds(nodes: Sequence[Node], layers: Sequence[str]) -> Feeds:
    """Follow the values of layers, named in order, through the other operators."""
    index = {name: position for position, name in enumerate(layers)}
    parts: dict[str, int] = {}
    members = [frozenset({place}) for place in range(len(layers))]
    feeders, links, merges = {}, set(), {}
    for node in nodes:
        sources = {parts[name] for name in node.inputs if name in parts}
        part = index.get(node.name)
        if part is None and sources:
            together = frozenset[int]().union(*(members[source] for source in sources))
            if together not in members:
                members.append(together)
                merges[together] = node.outputs[0]
            part = members.index(together)
        if part is not None:
            links |= {(source, part) for source in sources if source != part}
            parts |= dict.fromkeys(node.outputs, part)
        feeders[node.name] = frozenset({0}) if part is None else members[part]
    return Feeds(feeders, tuple(sorted(links)), merges)
