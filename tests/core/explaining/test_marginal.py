"""The plan at a step more and a step less of its budget."""

from __future__ import annotations

import pytest
from chain_problem import FULL, make_chain

from edgeprune.core.explaining.marginal import WHOLE_NET, Neighbour, find_less, find_more, find_price
from edgeprune.core.planning.limits import Limits, count_costs
from edgeprune.core.planning.planner import choose_widths, predict_ms


def test_more_and_less_are_plans_of_their_own_budgets() -> None:
    problem = make_chain()
    cap_ms = 0.5 * predict_ms(problem, FULL)
    widths = choose_widths(problem, cap_ms).widths
    more, less = find_more(problem, widths, cap_ms), find_less(problem, widths, cap_ms)
    for neighbour in (more, less):
        other = choose_widths(problem, cap_ms * (1 + neighbour.share))
        assert {change.group: change.other_width for change in neighbour.changes} == {
            group: width for group, width in other.widths.items() if width != widths[group]
        }
        assert neighbour.changes
        assert neighbour.loss_increase == pytest.approx(other.loss_increase)
        for group, width in widths.items():
            assert neighbour.width_of(group, width) == other.widths[group]
    assert less.share < 0 < more.share
    price = find_price(more, less)
    assert price is not None
    assert price > 0


def test_a_step_that_changes_nothing_is_made_larger_and_told() -> None:
    """Widths go in steps of an eighth of the net: 5 % changes nothing here."""
    problem = make_chain(cost=lambda shape: -(-shape.cout // 32) * 1.0)
    cap_ms = predict_ms(problem, {**FULL, "a": 32}) * 1.001
    widths = choose_widths(problem, cap_ms).widths
    more = find_more(problem, widths, cap_ms)
    assert more.share == 0.2
    assert more.changes


def test_a_whole_net_gets_nothing_back() -> None:
    problem = make_chain()
    cap_ms = 1.001 * predict_ms(problem, FULL)
    assert find_more(problem, FULL, cap_ms).note == WHOLE_NET
    assert find_less(problem, FULL, cap_ms).changes


def test_a_budget_below_the_narrowest_net_is_called_so() -> None:
    problem = make_chain()
    narrow = dict.fromkeys(FULL, 8)
    less = find_less(problem, narrow, 1.01 * predict_ms(problem, narrow))
    assert less.predicted_ms is None
    assert "no widths meet" in less.note
    assert less.width_of("a", 8) is None
    assert find_price(find_more(problem, narrow, 1.01 * predict_ms(problem, narrow)), less) is None


def test_limits_beside_latency_make_the_step_too() -> None:
    problem = make_chain()
    parameters = count_costs(problem.layers, FULL).parameters // 2
    bound = make_chain(limits=Limits(parameters=parameters))
    widths = choose_widths(bound, 1e9).widths
    more, less = find_more(bound, widths, 1e9), find_less(bound, widths, 1e9)
    assert more.changes
    assert less.changes
    after = {group: less.width_of(group, width) or 0 for group, width in widths.items()}
    assert count_costs(problem.layers, after).parameters <= parameters * (1 + less.share)


def test_no_price_between_equal_plans() -> None:
    same = Neighbour(0.05, 1.0, 1.0, 2.0)
    assert find_price(same, same) is None
