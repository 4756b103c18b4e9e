"""How many evaluation inputs a gate on quality needs: told where it cannot decide, and enough once they are there."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from edgeprune.core.measuring.paired_quality import find_quality_spread
from edgeprune.core.measuring.spread import SHARES, TableSpread
from edgeprune.core.metric import TOP1
from edgeprune.core.releasing.document import quality_figures
from edgeprune.core.releasing.gate import FAIL, INCONCLUSIVE, PASS, Figure, Gate, GateResult, judge
from edgeprune.core.releasing.regression import Figures, RegressionLimit, judge_regressions
from edgeprune.recipes.load import TOP1_ACCURACY


def judge_over(inputs: int, gate: Gate, lost: float, gained: float, right: float = 0.9) -> GateResult:
    """A gate on a net over so many inputs, of which these shares only the unpruned, only the pruned net gets right."""
    place = np.arange(inputs)
    first, last, new = (round(inputs * share) for share in (lost, right, right + gained))
    before, after = place < last, (place >= first) & (place < new)
    targets, eye = np.zeros(inputs, dtype=int), np.eye(2)
    original = find_quality_spread(TOP1_ACCURACY, targets, eye[(~before).astype(int)], None)
    spread = find_quality_spread(TOP1_ACCURACY, targets, eye[(~after).astype(int)], original)
    figures = quality_figures(TOP1, 100 * after.mean(), 100 * before.mean(), spread)
    counted = {name: replace(figure, inputs=inputs) for name, figure in figures.items()}
    return judge(replace(gate, of=TOP1), counted, quality_figures(TOP1, 100 * before.mean()))


@pytest.mark.parametrize(
    ("gate", "lost", "gained", "outcome"),
    [
        (Gate("quality_drop", at_most=1.5), 0.04, 0.03, PASS),
        (Gate("quality_drop", at_most=1.5), 0.06, 0.04, FAIL),
        (Gate("quality", at_least=89.0), 0.02, 0.015, PASS),
        (Gate("accuracy_percent", at_least=90.5), 0.02, 0.01, FAIL),
    ],
)
def test_as_many_inputs_as_are_named_decide_and_far_fewer_do_not(
    gate: Gate, lost: float, gained: float, outcome: str
) -> None:
    few = judge_over(1000, gate, lost, gained)
    assert few.outcome == INCONCLUSIVE
    (named,) = re.findall(r"about ([\d,]+) evaluation inputs would, in place of 1,000", few.reason)
    needed = int(named.replace(",", ""))
    assert judge_over(needed, gate, lost, gained).outcome == outcome
    assert judge_over(int(0.6 * needed), gate, lost, gained).outcome == INCONCLUSIVE


def test_a_limit_that_even_no_loss_would_not_pass_is_named() -> None:
    gate, words = Gate("quality_drop", at_most=1.5), "with so few inputs even no loss at all would not pass"
    assert words in judge_over(1000, gate, 0.05, 0.05).reason
    assert judge_over(1000, gate, 0.05, 0.05).outcome == INCONCLUSIVE
    assert words not in judge_over(1000, gate, 0.02, 0.011).reason


def test_at_the_limit_no_number_of_inputs_decides() -> None:
    assert (
        "no number of evaluation inputs would" in judge_over(1000, Gate("quality_drop", at_most=1.0), 0.04, 0.03).reason
    )


def test_a_regression_is_told_the_same_way() -> None:
    assert (
        "evaluation inputs would, in place of 400"
        in judge_over(400, Gate("quality", max_regression=0.015), 0.03, 0.02).reason
    )


@pytest.mark.parametrize(("drop", "is_told"), [(0.8, True), (0.1, False)])
def test_a_baseline_is_told_the_same_way(drop: float, is_told: bool) -> None:
    spread = TableSpread((drop - 0.3,) * len(SHARES), (drop + 0.3,) * len(SHARES))
    worse = TableSpread(tuple(90 - high for high in spread.highs), tuple(90 - low for low in spread.lows))
    new, old = Figure(90 - drop, spread=worse, inputs=500), Figure(90.0)
    limits = [RegressionLimit("quality", 0.01)]  # 0.9 points
    (row,), _ = judge_regressions(Figures({"quality": new}, {"quality": old}, TOP1, {}), limits)
    assert ("evaluation inputs would" in row.reason) == is_told
