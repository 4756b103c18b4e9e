"""Which tensors of a net may hold infinity: masks and open bounds do, weights and statistics never."""

from __future__ import annotations

STATISTICS = ("running_mean", "running_var")


def may_be_infinite(name: str, is_parameter: bool) -> bool:
    """Whether infinity in a stored tensor is meant: a mask of attention has it, a clamp that is open on one side."""
    return not is_parameter and not name.endswith(STATISTICS)
