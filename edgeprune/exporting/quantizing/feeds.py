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

    def named(self, floats: Sequence[bool]) -> Collection[str]:
        """Operators that stay in float where these layers do: those which only such layers feed."""
        return [name for name, layers in self.feeders.items() if all(floats[one] for one in layers)]


def find_feeds(nodes: Sequence[Node], layers: Sequence[str]) -> Feeds:
    """Follow the values of layers, named in order, through the other operators."""
    index = {name: position for position, name in enumerate(layers)}
    carried: dict[str, int] = {}
    members = [frozenset({one}) for one in range(len(layers))]
    feeders, links, merges = {}, set(), {}
    for node in nodes:
        read = {carried[name] for name in node.inputs if name in carried}
        part = index.get(node.name)
        if part is None and read:
            together = frozenset[int]().union(*(members[one] for one in read))
            if together not in members:
                members.append(together)
                merges[together] = node.outputs[0]
            part = members.index(together)
        if part is not None:
            links |= {(one, part) for one in read if one != part}
            carried |= dict.fromkeys(node.outputs, part)
        feeders[node.name] = frozenset({0}) if part is None else members[part]
    return Feeds(feeders, tuple(sorted(links)), merges)
