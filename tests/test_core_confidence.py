import numpy as np
import pytest

from edgeprune.core.confidence import Spread, safe_budget_ms, spread_of_errors, spread_of_interval
from edgeprune.errors import PlanError


@pytest.mark.parametrize(("nets", "room"), [(8, 0.08), (12, 0.04), (40, 0.015)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_budget_holds_as_often_as_promised(nets: int, room: float, confidence: float) -> None:
    """Nets fitted as a correction is, each error by leaving one out, and a further net that nobody has measured.

    Of few nets each that is left out is missed by more than a new one, so their promise is kept with room to spare.
    """
    random = np.random.default_rng(0)
    prices = np.linspace(0.2, 1.0, nets)
    rows = np.stack([np.ones(nets), 0.1 / prices, random.uniform(0.8, 1.2, nets)], axis=1)
    fit = np.linalg.pinv(rows)
    noise = random.normal(0, 0.04, (5000, nets))
    left_out = (noise - noise @ (rows @ fit).T) / (1 - np.diag(rows @ fit))
    errors = np.abs(left_out).mean(axis=1)
    planned = np.array([safe_budget_ms(10.0, spread_of_errors(float(error), nets), confidence) for error in errors])
    off = random.normal(0, 0.04, 5000) - noise @ fit.T @ np.array([1.0, 0.2, 1.0])
    assert confidence - 0.01 < np.mean(planned * np.exp(off) <= 10.0) < confidence + room


def test_interval_of_an_estimate_gives_its_own_upper_end_back() -> None:
    """The upper end of a 90 % interval is passed by one in twenty."""
    spread = spread_of_interval(2.0, 3.0)
    assert 2.0 * spread.margin(0.95) == pytest.approx(3.0)
    assert safe_budget_ms(3.0, spread, 0.95) == pytest.approx(2.0)


def test_more_confidence_and_fewer_nets_leave_more_room() -> None:
    sure = [spread_of_errors(0.03, nets).margin(0.95) for nets in (5, 12, 100)]
    assert sure == sorted(sure, reverse=True)
    assert Spread(0.05).margin(0.99) > Spread(0.05).margin(0.9) > Spread(0.05).margin(0.5) == 1.0


@pytest.mark.parametrize(("error", "nets"), [(None, 12), (0.02, 3)])
def test_an_unknown_error_promises_nothing(error: float | None, nets: int) -> None:
    with pytest.raises(PlanError, match=f"{nets} measured nets"):
        spread_of_errors(error, nets)


@pytest.mark.parametrize("confidence", [0.3, 1.0, 95.0, float("nan")])
def test_a_confidence_that_cannot_be_is_refused(confidence: float) -> None:
    with pytest.raises(PlanError, match=r"at least 0\.5 and below 1"):
        safe_budget_ms(10.0, Spread(0.05), confidence)
