"""The loop of plan and measurement, against boards that differ from what is predicted of them."""

from __future__ import annotations

import itertools
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.core.latency.correction import Correction, MeasuredNet
from edgeprune.core.latency.layers import Extent, Layer, LayerShape
from edgeprune.core.latency.table import LatencyPoint, LatencyTable, TableKey, describe_net
from edgeprune.core.planning.candidates import probe_shapes
from edgeprune.core.planning.loop import (
    ACCEPTED,
    TRIES,
    Goal,
    Trial,
    choose_fitting,
    fit_to_budget,
    recreate_goal,
    say_next,
)
from edgeprune.core.planning.planner import Choice, Problem, choose_widths, predict_ms
from edgeprune.errors import InfeasibleBudget

KEY = TableKey("device", "onnxruntime", "1.0", "fp32", 1)
WIDTHS = tuple(range(8, 65, 8))
NAMES = ("a", "b", "c")


def extent(*groups: str, constant: int = 0) -> Extent:
    return Extent(constant, tuple((1, (group,)) for group in groups))


def make_problem() -> Problem:
    """A chain of four layers whose latency grows with both channel counts."""
    ends = [extent(constant=3), *(extent(name) for name in NAMES), extent(constant=10)]
    shape = LayerShape("conv", 64, 64, (3, 3), (1, 1), 1, (8, 8), (1, 1))
    layers = tuple(Layer(f"l{i}", shape, cin, cout) for i, (cin, cout) in enumerate(itertools.pairwise(ends)))
    offered = dict.fromkeys(NAMES, WIDTHS)
    points = [LatencyPoint(one, 0.01 + one.cin * one.cout / 5e4, 0, 0) for one in sorted(probe_shapes(layers, offered))]
    loss = {
        name: {width: rate * (64 - width) ** 1.5 for width in WIDTHS}
        for name, rate in zip(NAMES, (1, 2, 3), strict=True)
    }
    return Problem(layers, loss, LatencyTable(KEY, tuple(points)))


class Board:
    """Takes what the layers add up to, times a factor, and up to a few per cent more or less for each net."""

    def __init__(self, problem: Problem, factor: float, noise: float, seed: int) -> None:
        self.problem, self.factor, self.noise, self.seed = problem, factor, noise, seed
        self.seen: list[dict[str, int]] = []

    def take_ms(self, widths: dict[str, int]) -> float:
        own = crc32(repr((self.seed, sorted(widths.items()))).encode()) / 2**32
        exact = predict_ms(Problem(self.problem.layers, self.problem.loss, self.problem.table), widths)
        return self.factor * exact * (1 + self.noise * (2 * own - 1))

    def measure(self, choice: Choice) -> float:
        assert choice.widths not in self.seen
        self.seen.append(choice.widths)
        return self.take_ms(choice.widths)

    def nets(self) -> list[MeasuredNet]:
        every = [dict(zip(NAMES, one, strict=True)) for one in itertools.product(WIDTHS[::3], repeat=3)]
        return [describe_net(self.problem.table, self.problem.layers, one, self.take_ms(one)) for one in every]


@settings(max_examples=40, deadline=None)
@given(st.floats(0.35, 0.9), st.floats(0.8, 1.25), st.floats(0, 0.04), st.integers(0, 1000))
def test_a_net_within_the_budget_is_found_whatever_the_board_does(
    share: float, factor: float, noise: float, seed: int
) -> None:
    problem = make_problem()
    board = Board(problem, factor, noise, seed)
    budget_ms = share * board.take_ms(dict.fromkeys(NAMES, 64))
    tried = fit_to_budget(problem, board.nets(), Goal(budget_ms), board.measure)
    best = choose_fitting(tried)
    assert 1 <= len(tried) <= TRIES
    assert best.fits
    assert best.measured_ms == board.take_ms(best.choice.widths) <= ACCEPTED[1] * budget_ms
    assert best.share > 0.8
    assert all(one.choice.loss_increase >= best.choice.loss_increase for one in tried if one.fits)


def test_most_budgets_are_hit_closely() -> None:
    problem, shares, tries = make_problem(), [], []
    for seed, share in enumerate([0.35, 0.45, 0.55, 0.65, 0.75, 0.85] * 5):
        board = Board(problem, 1.1, 0.02, seed)
        tried = fit_to_budget(
            problem, board.nets(), Goal(share * board.take_ms(dict.fromkeys(NAMES, 64))), board.measure
        )
        shares.append(choose_fitting(tried).share)
        tries.append(len(tried))
    assert sum(share >= 0.93 for share in shares) >= 0.95 * len(shares)
    assert sum(tries) / len(tries) < 4


def test_a_budget_below_all_nets_is_refused_before_anything_is_measured() -> None:
    problem = make_problem()
    board = Board(problem, 1.0, 0.0, 0)
    with pytest.raises(InfeasibleBudget):
        fit_to_budget(problem, board.nets(), Goal(0.01), board.measure)
    assert board.seen == []


def test_a_board_slower_than_predicted_everywhere_ends_with_its_fastest_net() -> None:
    problem = make_problem()
    board = Board(problem, 3.0, 0.0, 0)
    narrowest = predict_ms(problem, dict.fromkeys(NAMES, 8))
    tried = fit_to_budget(problem, [], Goal(1.2 * narrowest), board.measure)
    assert not choose_fitting(tried).fits
    assert choose_fitting(tried).share == min(one.share for one in tried)


def test_a_corrected_problem_is_not_the_users() -> None:
    """The problem that is given stays as it was."""
    problem = make_problem()
    board = Board(problem, 1.2, 0.03, 7)
    fit_to_budget(problem, board.nets(), Goal(0.5 * board.take_ms(dict.fromkeys(NAMES, 64))), board.measure)
    assert problem.correction == Correction()


@pytest.mark.parametrize(("share", "fits"), [(ACCEPTED[0], True), (0.985, True), (0.986, False), (1.0, False)])
def test_a_net_fits_with_room_for_what_another_session_differs_by(share: float, fits: bool) -> None:
    assert Trial(Choice({}, 0.0, 1.0, 0.0), share, share).fits == fits


def test_a_board_that_never_comes_near_is_given_up_after_some_tries() -> None:
    problem, measured = make_problem(), itertools.count(1)
    board = Board(problem, 1.0, 0.0, 1)
    full_ms = board.take_ms(dict.fromkeys(NAMES, 64))
    tried = fit_to_budget(problem, board.nets(), Goal(0.5 * full_ms), lambda choice: full_ms * (1 + 0 * next(measured)))
    assert len(tried) <= TRIES == 8
    assert next(measured) == len(tried) + 1


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.86, "room is left: looking for a plan of less loss"), (0.96, ""), (1.2, "too slow: planning again")],
)
def test_what_follows_from_a_try_is_said(share: float, said: str) -> None:
    assert say_next(share).endswith(said)
    assert bool(say_next(share)) == bool(said)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_what_each_plan_was_made_by_can_be_had_again(factor: float) -> None:
    problem = make_problem()
    board = Board(problem, factor, 0.03, 1)
    nets, goal = board.nets(), Goal(0.6 * board.take_ms(dict.fromkeys(NAMES, 64)))
    trials = fit_to_budget(problem, nets, goal, board.measure)
    for number, trial in enumerate(trials):
        corrected, cap_ms = recreate_goal(problem, nets, goal, trials[:number])
        again = choose_widths(corrected, cap_ms, [before.choice.widths for before in trials[:number]])
        assert again == trial.choice
    assert len(trials) > 1
