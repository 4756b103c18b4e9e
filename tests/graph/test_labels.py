"""Relations between labels and their closure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.graph.labels import NONE, Array, Labels, solve
from edgeprune.graph.operators.views import match_sizes


def fresh(labels: Labels, size: int) -> Array:
    made = labels.fresh(size)
    assert made is not None
    return made


def atoms_of(labels: Labels, dim: Array) -> list[frozenset[int]]:
    return [frozenset(int(atom) for atom in row if atom != NONE) for row in solve(labels).atoms[dim]]


def test_tied_slices_share_their_atom() -> None:
    labels = Labels()
    left, right = fresh(labels, 4), fresh(labels, 4)
    labels.tie(left, right[::-1], "")
    assert atoms_of(labels, left) == atoms_of(labels, right)[::-1]
    assert len(set(atoms_of(labels, left))) == 4


def test_a_dimension_that_is_not_tracked_freezes_its_partner() -> None:
    labels = Labels()
    dim = fresh(labels, 3)
    labels.tie(dim, None, "the reason")
    solution = solve(labels)
    assert {solution.frozen[int(atom)] for atom in solution.atoms[dim].reshape(-1)} == {"the reason"}


def test_dimensions_of_different_size_freeze_each_other() -> None:
    labels = Labels()
    left, right = fresh(labels, 3), fresh(labels, 2)
    labels.tie(left, right, "sizes")
    assert len(solve(labels).frozen) == 1 + 5


def test_merge_then_split_gives_the_same_dimensions_back() -> None:
    labels = Labels()
    dims = [fresh(labels, 3), None, fresh(labels, 4)]
    back = labels.split(labels.merge(dims, (3, 2, 4)), (3, 2, 4))
    assert back[1] is None
    assert [one.tolist() for one in back if one is not None] == [one.tolist() for one in dims if one is not None]


def test_a_single_slice_that_is_merged_in_decides_over_all() -> None:
    labels = Labels()
    picked, dim = fresh(labels, 3), fresh(labels, 4)
    merged = labels.merge((picked[:1], dim), (1, 4))
    assert merged is not None
    assert atoms_of(labels, merged) == [atoms_of(labels, picked)[0] | atom for atom in atoms_of(labels, dim)]


def test_a_split_dimension_is_the_product_of_its_parts() -> None:
    labels = Labels()
    whole = fresh(labels, 6)
    outer, inner = labels.split(whole, (2, 3))
    assert outer is not None
    assert inner is not None
    parts = [a | b for a in atoms_of(labels, outer) for b in atoms_of(labels, inner)]
    assert atoms_of(labels, whole) == parts


def test_the_same_split_twice_finds_the_same_parts() -> None:
    labels = Labels()
    whole = fresh(labels, 6)
    first, second = labels.split(whole, (2, 3)), labels.split(whole, (2, 3))
    for one, other in zip(first, second, strict=True):
        assert one is not None
        assert other is not None
        assert atoms_of(labels, one) == atoms_of(labels, other)


def test_different_splits_of_one_dimension_agree_on_what_both_allow() -> None:
    labels = Labels()
    whole = fresh(labels, 8)
    labels.split(whole, (2, 4))
    labels.split(whole, (4, 2))
    atoms = solve(labels).atoms
    for shape in ((2, 4), (4, 2)):
        rows = atoms[whole].reshape(*shape, -1)
        alive = np.ones(int(atoms.max()) + 2, np.bool_)
        alive[rows[0, 0]] = False
        alive[NONE] = True
        mask = alive[rows].all(axis=-1)
        assert (mask == mask.any(axis=1, keepdims=True) & mask.any(axis=0, keepdims=True)).all()


def test_a_frozen_whole_freezes_its_parts_and_frozen_parts_vanish() -> None:
    labels = Labels()
    whole = fresh(labels, 6)
    outer, inner = labels.split(whole, (2, 3))
    labels.freeze(outer, "heads")
    assert atoms_of(labels, whole[:3]) == atoms_of(labels, whole[3:])
    labels.freeze(whole, "all")
    solution = solve(labels)
    assert inner is not None
    assert all(int(atom) in solution.frozen for atom in solution.atoms[inner].reshape(-1) if atom != NONE)


def test_a_slice_tied_to_its_own_part_collapses_instead_of_running_in_circles() -> None:
    labels = Labels()
    whole = fresh(labels, 4)
    outer, _ = labels.split(whole, (2, 2))
    labels.tie(outer, whole[:2], "")
    first, *others = atoms_of(labels, whole)
    assert len(first) == 1
    assert [len(one) for one in others] == [2, 2, 2]
    assert len(set(others)) == 1
    assert first < others[0]
    assert atoms_of(labels, outer) == [first, others[0]]


@pytest.mark.parametrize("length", [2, 3])
def test_slices_that_are_parts_of_one_another_in_a_circle_are_one(length: int) -> None:
    labels = Labels()
    ring, beside = [[fresh(labels, 2) for _ in range(length)] for _ in range(2)]
    for place, (whole, other) in enumerate(zip(ring, beside, strict=True)):
        labels.bind(whole, [ring[place - 1], other])
    wanted = atoms_of(labels, ring[0])
    assert [len(one) for one in wanted] == [1, 1]
    assert len(set(wanted)) == 2
    assert all(atoms_of(labels, dim) == wanted for dim in (*ring, *beside))


def test_a_whole_made_of_frozen_parts_is_frozen_for_the_reason_of_a_part() -> None:
    labels = Labels()
    whole, free = fresh(labels, 6), fresh(labels, 6)
    for dim, reason in zip(labels.split(whole, (2, 3)), ("outside", "inside"), strict=True):
        labels.freeze(dim, reason)
    labels.split(free, (2, 3))
    solution = solve(labels)
    assert {solution.frozen[int(row[0])] for row in solution.atoms[whole]} <= {"outside", "inside"}
    assert not solution.frozen.keys() & set(solution.atoms[free].reshape(-1).tolist())


def test_freezing_a_whole_of_few_parts_leaves_those_of_many_alone() -> None:
    labels = Labels()
    few, many = fresh(labels, 4), fresh(labels, 8)
    parts = [dim for dim in labels.split(few, (2, 2)) if dim is not None]
    labels.split(many, (2, 2, 2))
    labels.freeze(few, "why")
    solution = solve(labels)
    assert NONE not in solution.frozen
    assert {solution.frozen[int(atom)] for dim in parts for atom in solution.atoms[dim][:, 0]} == {"why"}
    assert not any(atom in solution.frozen for one in atoms_of(labels, many) for atom in one)


def test_what_a_part_of_a_product_hangs_on_as_a_whole_stays() -> None:
    """The columns of the first head, viewed as two dimensions: these live as long as that head."""
    labels = Labels()
    heads, columns = fresh(labels, 3), fresh(labels, 4)
    merged = labels.merge((heads, columns), (3, 4))
    assert merged is not None
    labels.split(merged[:4], (2, 2))
    solution = solve(labels)
    assert [bool(one & solution.frozen.keys()) for one in atoms_of(labels, heads)] == [True, False, False]
    assert solution.frozen[int(solution.atoms[heads[0], 0])] == "the whole dimension hangs on it"


def test_a_whole_is_frozen_only_where_all_of_its_parts_are() -> None:
    labels = Labels()
    whole = fresh(labels, 4)
    outer, inner = labels.split(whole, (2, 2))
    assert outer is not None
    assert inner is not None
    labels.freeze(outer[:1], "outside")
    labels.freeze(inner[:1], "inside")
    solution = solve(labels)
    assert [bool(set(one) & solution.frozen.keys()) for one in atoms_of(labels, whole)] == [True, False, False, False]


def test_frozen_parts_of_parts_freeze_the_whole() -> None:
    labels = Labels()
    whole = fresh(labels, 8)
    outer, inner = labels.split(whole, (4, 2))
    for dim in (*labels.split(outer, (2, 2)), inner):
        labels.freeze(dim, "why")
    assert all(int(atom) in solve(labels).frozen for atom in solve(labels).atoms[whole][:, 0])


@pytest.mark.parametrize("sizes", [(2, 3), (3, 2), (1, 3), (2, 4)])
def test_a_slice_with_unequal_numbers_of_parts_is_one_with_all_of_them(sizes: tuple[int, int]) -> None:
    """`whole = a & b = c & d & e` is more than atoms can say, so that all live and die together."""
    labels = Labels()
    whole = fresh(labels, 3)
    parts = [[fresh(labels, 3) for _ in range(size)] for size in sizes]
    for one in parts:
        labels.bind(whole, one)
    atoms = atoms_of(labels, whole)
    if min(sizes) > 1:
        assert [len(one) for one in atoms] == [1, 1, 1]
        assert all(atoms_of(labels, part) == atoms for one in parts for part in one)
    else:
        assert [len(one) for one in atoms] == [sizes[1]] * 3
        assert [
            frozenset.union(*one) for one in zip(*(atoms_of(labels, part) for part in parts[1]), strict=True)
        ] == atoms
    assert len(set(atoms)) == 3


def test_slices_with_the_same_number_of_parts_have_these_in_common() -> None:
    labels = Labels()
    whole = fresh(labels, 3)
    pairs = [[fresh(labels, 3) for _ in range(2)] for _ in range(2)]
    for one in pairs:
        labels.bind(whole, one)
    for left, right in zip(*pairs, strict=True):
        assert atoms_of(labels, left) == atoms_of(labels, right)
    assert [len(one) for one in atoms_of(labels, whole)] == [2, 2, 2]


@given(
    st.lists(st.tuples(st.integers(0, 23), st.integers(0, 23)), max_size=12),
    st.lists(st.sampled_from([(2, 12), (3, 8), (4, 6), (6, 4), (12, 2)]), max_size=4),
)
def test_every_bound_slice_has_one_set_of_unbound_atoms(
    pairs: list[tuple[int, int]], splits: list[tuple[int, int]]
) -> None:
    labels = Labels()
    whole = fresh(labels, 24)
    made = [labels.split(whole, sizes) for sizes in splits]
    for left, right in pairs:
        labels.tie(whole[left : left + 1], whole[right : right + 1], "")
    solution = solve(labels)
    frozen = solution.frozen.keys()
    for sizes, (outer, inner) in zip(splits, made, strict=True):
        assert outer is not None
        assert inner is not None
        rows = [[{*row} - {NONE} - frozen for row in solution.atoms[dim].tolist()] for dim in (outer, inner, whole)]
        assert rows[2] == [a | b for a in rows[0] for b in rows[1]], sizes
    for left, right in pairs:
        assert set(solution.atoms[whole[left]]) == set(solution.atoms[whole[right]])


@pytest.mark.parametrize(
    ("old", "new", "runs"),
    [
        ((2, 6, 4), (2, 24), [([0], [0]), ([1, 2], [1])]),
        ((2, 1, 6), (2, 3, 2, 1), [([0], [0]), ([2], [1, 2])]),
        ((4, 6), (8, 3), [([0, 1], [0, 1])]),
        ((5,), (1, 5), [([0], [1])]),
    ],
)
def test_match_sizes(old: tuple[int, ...], new: tuple[int, ...], runs: list[tuple[list[int], list[int]]]) -> None:
    assert match_sizes(old, new) == runs


def test_the_parts_of_merged_labels_are_given_only_where_all_are_merged_ones() -> None:
    labels = Labels()
    left, right = fresh(labels, 3), fresh(labels, 3)
    both = labels.both([left, right])
    beyond = np.append(both, labels.count)
    assert [part.tolist() for part in labels.parts(both)] == [left.tolist(), right.tolist()]
    assert [part.tolist() for part in labels.parts(both[1:])] == [left[1:].tolist(), right[1:].tolist()]
    assert [part.tolist() for part in labels.parts(beyond)] == [beyond.tolist()]
