import numpy as np
import pytest

from edgeprune.core.latency.confidence import Spread, safe_budget_ms, spread_of_interval
from edgeprune.core.latency.correction import Correction
from edgeprune.errors import PlanError


@pytest.mark.parametrize("nets", [6, 12, 40])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_budget_holds_as_often_as_promised(nets: int, confidence: float) -> None:
    """The spread of so many nets about their mean is what is known, and the budget is for a further one."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.04, (20000, nets))
    sigmas = noise.std(axis=1, ddof=1) * np.sqrt(1 + 1 / nets)
    planned = np.array([safe_budget_ms(10.0, Spread(float(one), nets - 1), confidence) for one in sigmas])
    off = random.normal(0, 0.04, 20000) - noise.mean(axis=1)
    assert np.mean(planned * np.exp(off) <= 10.0) == pytest.approx(confidence, abs=0.01)


def test_interval_of_an_estimate_gives_its_own_upper_end_back() -> None:
    """The upper end of a 90 % interval is passed by one in twenty."""
    spread = spread_of_interval(2.0, 3.0)
    assert 2.0 * spread.margin(0.95) == pytest.approx(3.0)
    assert safe_budget_ms(3.0, spread, 0.95) == pytest.approx(2.0)


def test_more_confidence_and_fewer_nets_leave_more_room() -> None:
    sure = [Spread(0.03, nets).margin(0.95) for nets in (2, 9, 97)]
    assert sure == sorted(sure, reverse=True)
    assert Spread(0.05).margin(0.99) > Spread(0.05).margin(0.9) > Spread(0.05).margin(0.5) == 1.0


def test_an_unknown_error_promises_nothing() -> None:
    with pytest.raises(PlanError, match="3 measured nets"):
        _ = Correction(variants=3, error=0.02).spread


@pytest.mark.parametrize("confidence", [0.3, 1.0, 95.0, float("nan")])
def test_a_confidence_that_cannot_be_is_refused(confidence: float) -> None:
    with pytest.raises(PlanError, match=r"at least 0\.5 and below 1"):
        safe_budget_ms(10.0, Spread(0.05), confidence)
