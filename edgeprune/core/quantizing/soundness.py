"""Which tensors of a net may hold infinity: masks and open bounds do, weights and statistics never."""

from __future__ import annotations

STATISTICS = ("running_mean", "running_var")


def is_sound(name: str, is_parameter: bool, has_nan: bool, has_infinity: bool) -> bool:
    """Whether what a stored tensor holds may be meant: no NaN, and infinity only in a mask or a bound that is open."""
    is_weight = is_parameter or name.endswith(STATISTICS)
    return not has_nan and not (has_infinity and is_weight)
