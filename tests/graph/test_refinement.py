"""Dimensions in several views: what is chosen fits all of them, and what no finer view grants stays."""

from __future__ import annotations

from itertools import combinations, product
from math import prod
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.graph.closure import NONE, Array
from edgeprune.graph.labels import Dim, Labels, Mask, Solution, solve
from edgeprune.graph.refinement import Axis, find_common_reaches

VIEWS = [(2, 12), (3, 8), (4, 6), (6, 4), (8, 3), (12, 2), (2, 3, 4), (2, 2, 6), (3, 2, 2, 2), (4, 3, 2)]


def fresh(labels: Labels, size: int) -> Array:
    made = labels.fresh(size)
    assert made is not None
    return made


def alive(solution: Solution, dim: Dim, dead: set[int]) -> Mask:
    assert dim is not None
    rows = solution.atoms[dim]
    return np.asarray(~np.isin(rows, list(dead)).any(axis=1))


def free_atoms(solution: Solution, dim: Dim) -> list[int]:
    assert dim is not None
    return sorted({*solution.atoms[dim].reshape(-1).tolist()} - {NONE} - solution.frozen.keys())


def fits(mask: Mask, sizes: tuple[int, ...], axes: list[Mask]) -> bool:
    """Whether what stays is the product of what stays along the axes."""
    wanted = np.ones(sizes, np.bool_)
    for place, own in enumerate(axes):
        wanted &= own.reshape((-1,) + (1,) * (len(sizes) - place - 1))
    return bool((mask.reshape(sizes) == wanted).all())


def reaches(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(prod(sizes[place + 1 :]), prod(sizes[place:])) for place in range(len(sizes))]


def test_strides_of_which_each_divides_the_next_are_all_free() -> None:
    common = find_common_reaches([*reaches((3, 4)), *reaches((6, 2))])
    assert common == [((4, 12), True), ((2, 4), True), ((1, 2), True)]


@pytest.mark.parametrize(
    ("views", "common"),
    [
        ([(3, 4), (2, 6)], [((2, 12), False), ((1, 2), True)]),
        ([(6, 4), (4, 6)], [((12, 24), True), ((2, 12), False), ((1, 2), True)]),
        ([(2, 3), (3, 2)], [((1, 6), False)]),
        ([(6, 4), (4, 6), (3, 8)], [((2, 24), False), ((1, 2), True)]),
    ],
)
def test_between_crossing_strides_nothing_is_free(
    views: list[tuple[int, ...]], common: list[tuple[tuple[int, int], bool]]
) -> None:
    assert find_common_reaches([reach for sizes in views for reach in reaches(sizes)]) == common


@given(st.lists(st.sampled_from(VIEWS), min_size=1, max_size=5))
def test_the_common_axes_fill_the_dimension_and_every_axis_is_made_of_them(views: list[tuple[int, ...]]) -> None:
    own = [reach for sizes in views for reach in reaches(sizes)]
    common = [Axis(start, end) for (start, end), _ in find_common_reaches(own)]
    assert prod(axis.size for axis in common) == 24
    for start, end in own:
        assert prod(piece.size for piece in Axis(start, end).cut(common)) == end // start


def test_no_choice_of_most_slices_fits_crossing_views() -> None:
    """Why these stay: of six slices that are 2 x 3 and 3 x 2, what fits both views is all, or two slices at most."""
    for kept in (set(kept) for size in range(3, 6) for kept in combinations(range(6), size)):
        mask = np.array([place in kept for place in range(6)])
        blocks = [mask.reshape(sizes) for sizes in ((2, 3), (3, 2))]
        assert not all((block == block.any(0, keepdims=True) & block.any(1, keepdims=True)).all() for block in blocks)


def test_two_nested_views_have_their_common_view_to_choose_from() -> None:
    labels = Labels()
    whole = fresh(labels, 8)
    views = {sizes: labels.split(whole, sizes) for sizes in ((2, 4), (4, 2))}
    solution = solve(labels)
    atoms = free_atoms(solution, whole)
    assert len(atoms) == 2 + 2 + 2
    for chosen in product([False, True], repeat=len(atoms)):
        dead = {atom for atom, is_dead in zip(atoms, chosen, strict=True) if is_dead}
        mask = alive(solution, whole, dead)
        assert all(fits(mask, sizes, [alive(solution, dim, dead) for dim in dims]) for sizes, dims in views.items())


def test_views_of_more_axes_refine_those_of_fewer() -> None:
    labels = Labels()
    whole = fresh(labels, 24)
    for sizes in ((6, 4), (2, 3, 4), (2, 12)):
        labels.split(whole, sizes)
    assert len(free_atoms(solve(labels), whole)) == 2 + 3 + 4


def test_views_of_dimensions_that_are_tied_later_are_brought_together() -> None:
    labels = Labels()
    left, right = fresh(labels, 8), fresh(labels, 8)
    labels.split(left, (2, 4))
    labels.split(right, (4, 2))
    labels.tie(left, right, "")
    solution = solve(labels)
    assert free_atoms(solution, left) == free_atoms(solution, right)
    assert len(free_atoms(solution, left)) == 2 + 2 + 2


def test_an_axis_that_is_viewed_itself_is_refined_with_its_dimension() -> None:
    labels = Labels()
    whole = fresh(labels, 24)
    _, inner = labels.split(whole, (2, 12))
    labels.split(inner, (3, 4))
    labels.split(whole, (12, 2))
    assert len(free_atoms(solve(labels), whole)) == 2 + 3 + 2 + 2


def test_a_merged_dimension_is_refined_by_the_view_of_what_it_is_tied_to() -> None:
    labels = Labels()
    outer, inner, other = fresh(labels, 2), fresh(labels, 4), fresh(labels, 8)
    labels.tie(labels.merge((outer, inner), (2, 4)), other, "")
    labels.split(other, (4, 2))
    solution = solve(labels)
    assert len(free_atoms(solution, outer)) == 2
    assert len(free_atoms(solution, inner)) == 2 + 2


def test_places_that_are_no_channels_stay_in_the_other_view_too() -> None:
    labels = Labels()
    channels, other = fresh(labels, 3), fresh(labels, 24)
    labels.tie(labels.merge((channels, None), (3, 8)), other, "")
    own, rows, columns = labels.split(other, (3, 4, 2))
    solution = solve(labels)
    assert free_atoms(solution, own) == free_atoms(solution, channels)
    assert len(free_atoms(solution, other)) == 3
    assert free_atoms(solution, rows) == free_atoms(solution, columns) == []


def test_what_hangs_together_in_crossing_views_is_frozen_for_that() -> None:
    labels = Labels()
    whole = fresh(labels, 12)
    outer, inner = labels.split(whole, (3, 4))
    labels.split(whole, (2, 6))
    solution = solve(labels)
    assert outer is not None
    assert {solution.frozen[int(row[0])] for row in solution.atoms[outer]} == {
        "it is viewed as 3 x 4 and as 2 x 6, of which no finer view is free to choose from"
    }
    assert len(free_atoms(solution, whole)) == len(free_atoms(solution, inner)) == 2
    (even, odd) = free_atoms(solution, whole)
    assert alive(solution, whole, {odd}).tolist() == [True, False] * 6
    assert alive(solution, whole, {even}).tolist() == [False, True] * 6


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(VIEWS), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=3),
    st.randoms(use_true_random=False),
)
def test_whatever_is_chosen_fits_every_view(
    views: list[tuple[int, ...]], ties: list[tuple[int, int]], random: Random
) -> None:
    """Each view is of a dimension of its own, some of which are tied; ties of single slices stand beside."""
    labels = Labels()
    wholes = [fresh(labels, 24) for _ in views]
    axes = [labels.split(whole, sizes) for whole, sizes in zip(wholes, views, strict=True)]
    for left, right in ties:
        labels.tie(wholes[left % len(wholes)], wholes[right % len(wholes)], "")
    if random.random() < 0.3:
        labels.tie(wholes[0][:1], wholes[-1][-1:], "")
    solution = solve(labels)
    atoms = sorted({atom for whole in wholes for atom in free_atoms(solution, whole)})
    dead = {atom for atom in atoms if random.random() < 0.3}
    for whole, sizes, dims in zip(wholes, views, axes, strict=True):
        assert fits(alive(solution, whole, dead), sizes, [alive(solution, dim, dead) for dim in dims])


def test_what_a_refined_dimension_was_called_its_pieces_are() -> None:
    labels = Labels()
    whole = fresh(labels, 8)
    outer, _ = labels.split(whole, (4, 2))
    labels.call(outer, "groups")
    labels.split(whole, (2, 4))
    solution = solve(labels)
    assert {solution.kinds.get(atom, "") for atom in free_atoms(solution, outer)} == {"groups"}
    assert sorted(solution.kinds.get(atom, "") for atom in free_atoms(solution, whole)) == ["", ""] + ["groups"] * 4


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(VIEWS), min_size=1, max_size=3),
    st.lists(st.sampled_from([(6, 8), (4, 12), (3, 16), (2, 24), (2, 4, 6)]), min_size=1, max_size=2),
    st.randoms(use_true_random=False),
)
def test_parts_and_wholes_in_views_of_their_own_are_coarse_but_right(
    of_parts: list[tuple[int, ...]], of_wholes: list[tuple[int, ...]], random: Random
) -> None:
    labels = Labels()
    left, right = fresh(labels, 24), fresh(labels, 24)
    whole = np.concatenate([left, right])
    views = [(left, sizes, labels.split(left, sizes)) for sizes in of_parts]
    views += [(whole, sizes, labels.split(whole, sizes)) for sizes in of_wholes]
    solution = solve(labels)
    dead = {atom for atom in free_atoms(solution, whole) if random.random() < 0.3}
    for dim, sizes, axes in views:
        assert fits(alive(solution, dim, dead), sizes, [alive(solution, axis, dead) for axis in axes])
