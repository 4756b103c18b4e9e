"""A against B: two artifacts that took turns in several processes, their ratio with interval, and equivalence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, inf, log, log1p
from typing import Any

import numpy as np

from edgeprune.core.measuring.spread import StudentSpread, explain_quotient, ratio_over_processes
from edgeprune.errors import UsageError

MARGIN = 0.02
ALPHA = 0.05
LEAST_PROCESSES = 8
"""Fewer processes tell too little of how much they differ."""
EQUIVALENT, FASTER, SLOWER, INCONCLUSIVE = "equivalent", "faster", "slower", "inconclusive"


@dataclass(frozen=True)
class Comparison:
    """How B's latency relates to A's: `ratio` is B / A, the geometric mean over the processes that timed both.

    `low` and `high` bound it with 95 % confidence; `p_equivalent` is the p-value of the test that it lies outside of
    1 / (1 + margin) to 1 + margin.
    """

    first_ms: float
    second_ms: float
    ratio: float
    low: float
    high: float
    margin: float
    p_equivalent: float
    processes: int
    basis: str = ""
    """What the ratio rests on, where its interval does not hold that of `first_ms` and `second_ms`; else empty."""

    @property
    def verdict(self) -> str:
        """What may be said of B: "equivalent" to A, "faster", "slower", or "inconclusive"."""
        if self.p_equivalent < ALPHA:
            return EQUIVALENT
        if self.high < 1:
            return FASTER
        return SLOWER if self.low > 1 else INCONCLUSIVE

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the verdict."""
        return {**asdict(self), "verdict": self.verdict}


def compare_processes(
    first_ms: Mapping[int, float], second_ms: Mapping[int, float], margin: float = MARGIN
) -> Comparison:
    """Compare what two artifacts took, in ms at the common speed of the board, in each process that timed both.

    Raises:
        UsageError: too few processes timed both, or a margin that is not above 0 and below 1.
    """
    processes = sorted(first_ms.keys() & second_ms.keys())
    if len(processes) < LEAST_PROCESSES:
        raise UsageError(
            f"a comparison needs {LEAST_PROCESSES} processes that timed both at least; found {len(processes)}"
        )
    if not 0 < margin < 1:
        raise UsageError(f"margin: {margin!r}; expected a fraction above 0 and below 1, as 0.02")
    spread = ratio_over_processes(
        *({number: taken_ms[number] for number in processes} for taken_ms in (second_ms, first_ms))
    )
    ratio, low, high = spread.interval()
    first, second = (geometric_mean([taken_ms[number] for number in processes]) for taken_ms in (first_ms, second_ms))
    return Comparison(
        first_ms=first,
        second_ms=second,
        ratio=ratio,
        low=low,
        high=high,
        margin=margin,
        p_equivalent=equivalence_p(spread, margin),
        processes=len(processes),
        basis=explain_quotient(second / first, spread),
    )


def geometric_mean(values: Sequence[float]) -> float:
    """The mean of positive values by their logarithms."""
    return exp(float(np.mean(np.log(values))))


def equivalence_p(ratio: StudentSpread, margin: float) -> float:
    """The p-value of two one-sided tests that a ratio lies within 1 / (1 + margin) to 1 + margin.

    Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987, 657-680.
    """
    from scipy.special import ndtr, stdtr

    places = (abs(log(ratio.center)) - log1p(margin)) / ratio.error
    return float(ndtr(places) if ratio.freedom == inf else stdtr(ratio.freedom, places))


def render_comparison(names: tuple[str, str], comparison: Comparison, problems: Sequence[str] = ()) -> str:
    """The comparison, for people; `problems` say why a run is not valid, of which nothing follows."""
    first, second = names
    change, percent = 100 * (comparison.ratio - 1), f"{100 * comparison.margin:g} %"
    verdicts = {
        EQUIVALENT: f"{second} and {first} are equivalent within {percent}",
        FASTER: f"{second} is faster than {first}",
        SLOWER: f"{second} is slower than {first}",
        INCONCLUSIVE: f"inconclusive: neither a difference nor equivalence within {percent} is shown",
    }
    return "\n".join(
        [
            f"A {first}: {comparison.first_ms:.4g} ms",
            f"B {second}: {comparison.second_ms:.4g} ms",
            f"B / A: {comparison.ratio:.4f} ({change:+.2f} %), 95 % interval {comparison.low:.4f} to "
            f"{comparison.high:.4f}, {comparison.processes} processes that took turns",
            *([_describe_basis(comparison)] if comparison.basis else []),
            f"equivalence within {percent}: p = {comparison.p_equivalent:.3g} (two one-sided tests)",
            *(f"not valid: {problem}" for problem in problems),
            "inconclusive: nothing follows from a run that is not valid" if problems else verdicts[comparison.verdict],
        ]
    )


def _describe_basis(comparison: Comparison) -> str:
    change = 100 * (comparison.second_ms / comparison.first_ms - 1)
    return f"the two figures alone: {change:+.2f} %; {comparison.basis}"
