"""Equalities and bindings closed: how deep they may nest, what circles do, and what two bindings share."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.graph.closure import NONE, Closure, Relations, close, expand


def label(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def atoms_of(closure: Closure, number: int) -> set[int]:
    return {*closure.atoms[closure.classes[number]].tolist()} - {NONE}


def classes_of(closure: Closure, *numbers: int) -> set[int]:
    return {int(closure.classes[number]) for number in numbers}


@pytest.mark.parametrize("depth", [1, 8, 9, 20])
def test_bindings_may_nest_as_deep_as_they_like(depth: int) -> None:
    """Label 2k + 1 is bound to 2k + 2, a part of its own, and to 2k + 3, the next whole."""
    bindings = [(label(2 * k + 1), [label(2 * k + 2), label(2 * k + 3)]) for k in range(depth)]
    closure = close(Relations(2 * depth + 2, bindings=bindings))
    assert closure.count == 2 * depth + 2
    assert atoms_of(closure, 1) == classes_of(closure, *range(2, 2 * depth + 1, 2), 2 * depth + 1)


def test_what_leads_into_a_circle_is_not_one_with_it() -> None:
    circle = [(label(1), [label(2), label(3)]), (label(2), [label(1), label(4)])]
    closure = close(Relations(7, bindings=[*circle, (label(5), [label(1), label(6)])]))
    assert classes_of(closure, 1, 2, 3, 4) == classes_of(closure, 1)
    assert atoms_of(closure, 5) == classes_of(closure, 1, 6)
    assert len(atoms_of(closure, 5)) == 2


def test_a_circle_that_is_not_joined_is_told_of() -> None:
    with pytest.raises(RuntimeError, match="run in circles"):
        expand(label(1, 2), np.array([[2, 3], [1, 4]], np.int64), 5)


def test_what_two_bindings_share_is_left_alone() -> None:
    """From `1 = 2 & 3 = 4 & 2` follows that 3 and 4 are one, and nothing about 2."""
    closure = close(Relations(5, bindings=[(label(1), [label(2), label(3)]), (label(1), [label(4), label(2)])]))
    assert classes_of(closure, 3, 4) == classes_of(closure, 3)
    assert atoms_of(closure, 1) == classes_of(closure, 2, 3)
    assert len(atoms_of(closure, 1)) == 2


def test_only_what_two_bindings_do_not_share_is_one_where_they_are_unequally_many() -> None:
    bindings = [(label(1), [label(2), label(3)]), (label(1), [label(2), label(4), label(5)])]
    closure = close(Relations(6, bindings=bindings))
    assert classes_of(closure, 3, 4, 5) == classes_of(closure, 3)
    assert atoms_of(closure, 1) == classes_of(closure, 2, 3)
    assert len(atoms_of(closure, 1)) == 2


@pytest.mark.parametrize("order", [1, -1])
def test_a_binding_that_contains_another_gives_its_surplus_away(order: int) -> None:
    bindings = [(label(1), [label(2), label(3)]), (label(1), [label(2), label(3), label(4)])][::order]
    closure = close(Relations(5, bindings=bindings))
    assert atoms_of(closure, 1) == classes_of(closure, 2, 3)
    assert atoms_of(closure, 4) < atoms_of(closure, 1)
