"""Channel groups of a graph, and the costs of its layers as functions of their widths."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch.fx import GraphModule

from edgeprune.core.latency.layers import Extent, Layer
from edgeprune.core.planning.plan import BRANCH, ChannelGroup, Member
from edgeprune.graph.analysis import Analysis, Branch
from edgeprune.graph.branches import find_branches
from edgeprune.graph.labelling import is_ignored, walk_graph
from edgeprune.graph.labels import NONE, Array, Dim, Mask, Solution, solve
from edgeprune.graph.steps import find_timed
from edgeprune.graph.walk import Dims, LayerUse, Walk

SHOWN = 3
"""Names that are listed of many."""


def find_groups(program: GraphModule, ignore: Collection[str] = ()) -> Analysis:
    """Find which slices of which tensors live and die together.

    `ignore` names modules or parameters whose output channels have to stay. A group that cannot be pruned
    is listed with the reason in `frozen`.
    """
    walk = walk_graph(program, ignore)
    layers, operators = find_timed(walk)
    solution = solve(walk.labels)
    groups = _gather(walk, solution)
    frozen = {name: _reason(atoms, solution) for name, atoms in groups.items()}
    branches = find_branches(program, {use.node: use.weight for use in walk.layers})
    sizes = [(name, len(atoms)) for name, atoms in groups.items()]
    extent = _Counting(_free_owners(groups, frozen, solution), solution, sizes).extent
    return Analysis(
        groups=(*_describe(walk, solution, groups, frozen), *_describe_branches(walk, branches, ignore)),
        layers=tuple(_layers(layers, extent, branches)),
        operators=tuple(_layers(operators, extent, branches)),
        notes=_notes(walk, frozen),
        atoms=groups,
        solution=solution,
        values={node.name: value for node, value in walk.values.items() if value is not None},
        tensors=walk.tensors,
        inner=walk.inner,
        shuffles={node.name: shuffle for node, shuffle in walk.shuffles.items()},
        branches=branches,
        faults=tuple(walk.faults),
    )


def _gather(walk: Walk, solution: Solution) -> dict[str, Array]:
    """Atoms that occur equally often in the same dimensions, by name, in the order of the graph."""
    signature = _signatures(walk, solution)
    listed = np.zeros(solution.count + 1, np.bool_)
    pieces: list[tuple[str, Array]] = []
    for use in walk.uses:
        labels = walk.tensors[use.tensor][use.dim] if use.role == "out" else None
        if labels is None:
            continue
        row = solution.atoms[labels]
        for column in range(row.shape[1]):
            atoms, first = np.unique(row[:, column], return_index=True)
            atoms = atoms[np.argsort(first)]
            atoms = atoms[(atoms != NONE) & ~listed[atoms]]
            listed[atoms] = True
            pieces += [(use.tensor, atoms[signature[atoms] == number]) for number in _in_order(signature[atoms])]
    return _by_name(pieces, solution)


def _in_order(values: NDArray[np.uint64]) -> Iterator[np.uint64]:
    distinct, first = np.unique(values, return_index=True)
    yield from distinct[np.argsort(first)]


def _by_name(pieces: Sequence[tuple[str, Array]], solution: Solution) -> dict[str, Array]:
    """Unique names: the producing parameter, what its slices are, and a number where that is not enough."""
    bare = []
    for tensor, atoms in pieces:
        kind = solution.kinds.get(int(atoms[0]), "")
        bare.append(tensor.removesuffix(".weight") + (f":{kind}" if kind else ""))
    times, numbers, groups = Counter(bare), Counter[str](), {}
    for name, (_, atoms) in zip(bare, pieces, strict=True):
        numbers[name] += 1
        groups[name if times[name] == 1 else f"{name}#{numbers[name]}"] = atoms
    return groups


def _signatures(walk: Walk, solution: Solution) -> NDArray[np.uint64]:
    """A number for each atom: the same for atoms that occur equally often in the same dimensions."""
    signature = np.zeros(solution.count + 1, np.uint64)
    random = np.random.default_rng(0)
    for dim in _distinct(walk):
        row = solution.atoms[dim]
        number = random.integers(1, 2**63, dtype=np.uint64)
        counts = np.bincount(row.reshape(-1) + 1, minlength=0)[1:].astype(np.uint64)
        signature[: len(counts)] += counts * number
    signature[list(solution.frozen)] += random.integers(1, 2**63, dtype=np.uint64)
    return signature


def _distinct(walk: Walk) -> Iterator[Array]:
    """Every array of labels once."""
    ids: set[int] = set()
    dims: list[Dim] = [dim for tensor in walk.tensors.values() for dim in tensor]
    for value in walk.values.values():
        for piece in value if isinstance(value, list) else [value]:
            dims += piece or ()
    for dim in (*dims, *walk.inner.values()):
        if dim is not None and id(dim) not in ids:
            ids.add(id(dim))
            yield dim


def _reason(atoms: Array, solution: Solution) -> str:
    return next((solution.frozen[int(atom)] for atom in atoms if int(atom) in solution.frozen), "")


def _describe(
    walk: Walk, solution: Solution, groups: Mapping[str, Array], frozen: Mapping[str, str]
) -> tuple[ChannelGroup, ...]:
    owner = _owners(groups, solution)
    names = list(groups)
    members: dict[str, dict[tuple[str, int], str]] = {name: {} for name in names}
    roles = {(use.tensor, use.dim): use.role for use in walk.uses}
    for tensor, dims in walk.tensors.items():
        for dim, labels in enumerate(dims):
            if labels is not None:
                for index in np.unique(owner[solution.atoms[labels]]):
                    if index != NONE:
                        members[names[index]][tensor, dim] = roles.get((tensor, dim), "along")
    return tuple(
        ChannelGroup(
            name=name,
            size=len(atoms),
            members=tuple(Member(tensor, dim, role) for (tensor, dim), role in members[name].items()),
            kind=solution.kinds.get(int(atoms[0]), "channels"),
            frozen=frozen[name],
        )
        for name, atoms in groups.items()
    )


def _describe_branches(walk: Walk, branches: Mapping[str, Branch], ignore: Collection[str]) -> Iterator[ChannelGroup]:
    weights = {use.node: use.weight for use in walk.layers}
    for name, branch in branches.items():
        tensors = [weights[layer] for layer in branch.layers]
        ignored = any(is_ignored(tensor, ignore) for tensor in tensors)
        members = tuple(Member(tensor, 0, BRANCH) for tensor in tensors)
        yield ChannelGroup(name, 1, members, kind=BRANCH, frozen="ignored by the user" if ignored else "")


def _owners(groups: Mapping[str, Array], solution: Solution) -> Array:
    """The index of each atom's group, NONE for an atom without."""
    owner = np.full(solution.count + 1, NONE, np.int64)
    for index, atoms in enumerate(groups.values()):
        owner[atoms] = index
    return owner


def _free_owners(groups: Mapping[str, Array], frozen: Mapping[str, str], solution: Solution) -> Array:
    """The index of each atom's group, NONE for an atom whose group is frozen or that has none."""
    owner = _owners(groups, solution)
    for name, atoms in groups.items():
        if frozen[name]:
            owner[atoms] = NONE
    return owner


@dataclass(frozen=True)
class _Counting:
    """What counts of slices follow: the owner of each atom, the sizes of the groups by name, in that order."""

    owner: Array
    solution: Solution
    sizes: Sequence[tuple[str, int]]
    cache: dict[int, Counter[tuple[int, ...]]] = field(default_factory=dict)

    def extent(self, size: int, dims: Dims) -> Extent:
        """How the number of combinations of slices of some dimensions, `size` in all, follows the groups' widths."""
        combined = Counter[tuple[int, ...]]({(): 1})
        for dim in dims:
            kinds = self._kinds(dim) if dim is not None else {(): 1}
            pairs = product(combined.items(), kinds.items())
            combined = Counter[tuple[int, ...]]()
            for (left, left_count), (right, right_count) in pairs:
                combined[tuple(sorted((*left, *right)))] += left_count * right_count
        total, terms = sum(combined.values()), list[tuple[int, tuple[str, ...]]]()
        for kind, count in combined.items():
            own = [self.sizes[index] for index in kind]
            factor = count * size // (total * prod(width for _, width in own))
            terms.append((factor, tuple(name for name, _ in own)))
        return Extent(sum(factor for factor, names in terms if not names), tuple(term for term in terms if term[1]))

    def _kinds(self, dim: Array) -> Counter[tuple[int, ...]]:
        """How many slices hang on which groups."""
        if id(dim) not in self.cache:
            rows, counts = np.unique(np.sort(self.owner[self.solution.atoms[dim]], axis=1), axis=0, return_counts=True)
            kinds = Counter[tuple[int, ...]]()
            for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
                kinds[tuple(index for index in row if index != NONE)] += count
            self.cache[id(dim)] = kinds
        return self.cache[id(dim)]


def _layers(
    uses: Iterable[LayerUse], extent: Callable[[int, Dims], Extent], branches: Mapping[str, Branch]
) -> Iterator[Layer]:
    times: Counter[str] = Counter()
    for use in uses:
        times[use.weight] += 1
        turn = times[use.weight]
        name = use.weight.removesuffix(".weight") + (f"@{turn}" if turn > 1 else "")
        around = tuple(name for name, branch in branches.items() if use.node in branch.nodes or use.node == branch.add)
        cin, cout = extent(use.shape.cin, use.cin).within(around), extent(use.shape.cout, use.cout).within(around)
        space = tuple(map(extent, use.shape.size, use.space))
        space = space if any(side.groups for side in space) else ()
        yield Layer(name, use.shape, cin, cout, extent(use.shape.groups, use.groups), space)


def _notes(walk: Walk, frozen: Mapping[str, str]) -> tuple[str, ...]:
    unknown = [f"{what}: what meets it stays whole" for what in walk.unknown]
    reasons = defaultdict[str, list[str]](list)
    for name, reason in frozen.items():
        if reason:
            reasons[reason].append(name)
    frozen_notes = (
        f"{_list_some(names)} stay{'s' * (len(names) == 1)} whole: {reason}" for reason, names in reasons.items()
    )
    return (*walk.faults, *unknown, *frozen_notes)


def _list_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def groups_of(analysis: Analysis, name: str) -> list[str]:
    """The groups that may be cut of which a name is: a group's own, or that of a layer, by its output channels."""
    free = {group.name for group in analysis.groups if not group.frozen}
    if name in free:
        return [name]
    return [group for layer in analysis.layers if layer.name == name for group in sorted(layer.cout.groups & free)]


def alive_mask(analysis: Analysis, keep: Mapping[str, Sequence[int]]) -> Mask:
    """Which atoms live under a plan; the last entry, for the padding of rows, is True. Branches have no atoms."""
    alive = np.ones(analysis.solution.count + 1, np.bool_)
    for name in keep.keys() & analysis.atoms.keys():
        atoms, channels = analysis.atoms[name], keep[name]
        alive[atoms] = False
        alive[atoms[np.asarray(channels, np.int64)]] = True
    return alive
