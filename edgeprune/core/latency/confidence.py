"""How much below a budget to plan, so that the net meets it with a given probability."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, isfinite, log

from scipy.special import ndtri, stdtrit

from edgeprune.errors import PlanError

ESTIMATE_COVERAGE = 0.9
"""Probability that the interval of an estimated latency holds the measured one."""


@dataclass(frozen=True)
class Spread:
    """How far measured latencies lie from predicted ones: the standard deviation of the logarithm of their ratio.

    `freedom` is the number of degrees of freedom that it was learned from, infinite where it is taken as known.
    """

    sigma: float
    freedom: float = inf

    def margin(self, confidence: float) -> float:
        """The factor above the prediction that the measured latency stays below with this probability.

        By Student's t distribution of the logarithm, as few nets tell their own spread badly.

        Raises:
            PlanError: a confidence that is not at least 1/2 and below 1.
        """
        if not 0.5 <= confidence < 1:
            raise PlanError(f"confidence: {confidence!r}; expected at least 0.5 and below 1, such as 0.95")
        reach = stdtrit(self.freedom, confidence) if isfinite(self.freedom) else ndtri(confidence)
        return exp(self.sigma * float(reach))


def spread_of_interval(latency_ms: float, high_ms: float, coverage: float = ESTIMATE_COVERAGE) -> Spread:
    """The spread behind a central interval of that coverage, by its upper end."""
    return Spread(log(high_ms / latency_ms) / float(ndtri((1 + coverage) / 2)))


def safe_budget_ms(budget_ms: float, spread: Spread, confidence: float) -> float:
    """What to plan for, so that the measured latency is within `budget_ms` with this probability.

    Raises:
        PlanError: a confidence that is not at least 1/2 and below 1.
    """
    return budget_ms / spread.margin(confidence)
