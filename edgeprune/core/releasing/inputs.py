"""How many evaluation inputs would decide a quality that is too near to its limit."""

from __future__ import annotations

from math import ceil, floor, log10

ROUNDING = 1e-9
"""A value is at its limit if they differ by less than this share of it: 98.7 - 97.2 is a drop of 1.5 points."""
UNKNOWN = "; more evaluation inputs would"


def advise_inputs(inputs: int, value: float, reach: float, limit: float, is_change: bool) -> str:
    """What would decide a figure over so many inputs, of which more is worse: its interval, which goes as far as
    `reach` to its longer side, shrinks as the root of their number grows, if further inputs differ as these do.

    `is_change`: the figure is a loss against another file on the same inputs, so that 0 is none at all.
    """
    room = abs(limit - value)
    if not inputs or not reach:
        return UNKNOWN
    if room <= ROUNDING * abs(limit):
        return "; it is at its limit, so that no number of evaluation inputs would"
    needed = f"about {_round_up(inputs * (reach / room) ** 2):,} evaluation inputs would, in place of {inputs:,}"
    if is_change and value <= limit < reach:
        return f"; with so few inputs even no loss at all would not pass: {needed}"
    return f"; {needed}"


def _round_up(number: float) -> int:
    """To two digits."""
    step = int(10.0 ** max(0, floor(log10(number)) - 1))
    return ceil(number / step) * step
