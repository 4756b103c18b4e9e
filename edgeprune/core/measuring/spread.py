"""How far a figure may lie from what another session would give: what gates ask, at whatever level they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, fsum, inf, log, sqrt
from typing import Protocol as Seam

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
"""The share on each side of the intervals that are shown."""
SESSION_ERRORS = {50: 0.016, 95: 0.026, 100: 0.034}
"""How far sessions of one file on one board lie apart, by the percentile up to which it holds: standard deviation of
the logarithm of the latency. With it the intervals of `benchmarks/gate_errors.py` hold."""
WIDEST = 300.0
"""No logarithm is said to be further off: its exponential is a number still."""
RATIO_ERROR = 0.002
"""The same of the ratio of two files that took turns; with it the intervals of `benchmarks/gate_errors.py` hold."""
TRIMMED = 0.2
"""The share of processes left out at each end of a ratio: one in ten is disturbed in one of the files only."""


class Spread(Seam):
    """What is known of a figure beside its value."""

    def bound(self, share: float) -> tuple[float, float]:
        """Below and above these lies the truth with a probability of `share` each, at most (0 to 0.5)."""
        ...


class RatioSpread(Spread, Seam):
    """What is known of a ratio, which lies about its center."""

    @property
    def center(self) -> float:
        """The ratio itself."""
        ...


@dataclass(frozen=True)
class StudentSpread:
    """A positive figure whose logarithm is known with a standard error.

    `freedom`: degrees of freedom of Student's t; infinite is a normal distribution.
    """

    center: float
    error: float
    freedom: float = inf
    shift: float = 0.0
    """Added to it: -1 makes a change of a ratio."""
    basis: str = ""
    """Of a ratio what it rests on, where that is not the quotient of the two figures as they stand."""

    def bound(self, share: float) -> tuple[float, float]:
        """The one-sided bounds, each missed with a probability of `share`."""
        from scipy.special import ndtri, stdtrit

        reach = self.error * float(-ndtri(share) if self.freedom == inf else -stdtrit(self.freedom, share))
        factor = exp(min(reach, WIDEST))
        return self.center / factor + self.shift, self.center * factor + self.shift

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
        """The figure with the interval that holds the truth with this probability."""
        return self.center + self.shift, *self.bound((1 - confidence) / 2)


def explain_quotient(quotient: float, spread: Spread) -> str:
    """What a ratio rests on, where the quotient of the two figures told beside it is outside its interval; else empty.

    The quotient is shifted as the spread is.
    """
    low, high = spread.bound(TAIL)
    return "" if low <= quotient <= high else str(getattr(spread, "basis", ""))


def find_session_error(percent: float = 50.0) -> float:
    """How far sessions lie apart in this percentile (0 to 100) of a latency, as a standard deviation of logarithms."""
    return next(error for most, error in SESSION_ERRORS.items() if percent <= most)


def spread_over_processes(values: Sequence[float], session_error: float) -> StudentSpread:
    """The geometric mean of what two processes or more say of a positive figure, with its spread.

    `session_error` is the standard deviation of the logarithm from session to session, as known from elsewhere.

    Raises:
        ValueError: fewer than two processes.
    """
    if len(values) < 2:
        raise ValueError(f"a spread needs two processes or more, found {len(values)}")
    logs = [log(value) for value in values]
    within = _sum_squares(logs) / len(logs) / (len(logs) - 1)
    return _add_session(fsum(logs) / len(logs), within, len(logs) - 1, session_error)


def ratio_over_processes(above: Mapping[int, float], below: Mapping[int, float]) -> StudentSpread:
    """The ratio of two figures that took turns in processes: the trimmed geometric mean over those that have both.

    Its error is by the Winsorized deviation (Yuen, Biometrika 61, 1974), so that a process in which something befell
    one of the files widens nothing. Of fewer than five processes none is left out.

    Raises:
        ValueError: fewer than two processes have both.
    """
    logs = sorted(log(above[process] / below[process]) for process in above if process in below)
    cut = int(TRIMMED * len(logs))
    kept = logs[cut : len(logs) - cut]
    if len(kept) < 2:
        raise ValueError(f"a spread needs two processes or more, found {len(kept)}")
    winsorized = [kept[0]] * cut + kept + [kept[-1]] * cut
    within = _sum_squares(winsorized) / len(kept) / (len(kept) - 1)
    basis = f"the ratio leaves out the {cut} lowest and the {cut} highest of {len(logs)} processes" if cut else ""
    return replace(_add_session(fsum(kept) / len(kept), within, len(kept) - 1, RATIO_ERROR), basis=basis)


def _sum_squares(values: Sequence[float]) -> float:
    """Of how far each lies from the mean."""
    middle = fsum(values) / len(values)
    return fsum((value - middle) ** 2 for value in values)


def _add_session(middle: float, within: float, freedom: int, session_error: float) -> StudentSpread:
    """The spread of a logarithm: what processes tell of it, and what sessions add, taken as known.

    Degrees of freedom by Satterthwaite (Biometrics Bulletin 2, 1946).
    """
    total = within + session_error**2
    return StudentSpread(exp(middle), sqrt(total), inf if within == 0 else freedom * (total / within) ** 2)


SHARES = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2)
"""Shares at which a table of bounds is kept."""


@dataclass(frozen=True)
class TableSpread:
    """Bounds at each of SHARES, where no formula tells them; between them they go as a normal distribution's do."""

    lows: tuple[float, ...]
    highs: tuple[float, ...]

    def bound(self, share: float) -> tuple[float, float]:
        """The one-sided bounds; beyond the table those at its end."""
        import numpy as np
        from scipy.special import ndtri

        places, place = -ndtri(np.array(SHARES))[::-1], -float(ndtri(share))
        low, high = (float(np.interp(place, places, values[::-1])) for values in (self.lows, self.highs))
        return low, high

    def holds(self, value: float) -> bool:
        """Whether a value is within the widest bounds."""
        return self.lows[0] <= value <= self.highs[0]

    def scale(self, factor: float) -> TableSpread:
        """The spread of a figure that is so many times this one; `factor` is positive."""
        return TableSpread(tuple(factor * low for low in self.lows), tuple(factor * high for high in self.highs))
