"""Several sessions of the same files on one board, as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from edgeprune.core.measuring.measurement import Conditions, Measurement, Protocol
from edgeprune.core.measuring.validity import find_problems


def pool_sessions(sessions: Sequence[Mapping[str, Measurement]], protocol: Protocol) -> Mapping[str, Measurement]:
    """The measurements of those sessions in which all are valid, as one; of the last session where there is none."""
    valid = [session for session in sessions if all(measurement.valid for measurement in session.values())]
    if len(valid) < 2:
        return (valid or sessions)[-1]
    pooled = {name: reduce(pool_measurements, (session[name] for session in valid)) for name in valid[0]}
    return {
        name: replace(measurement, problems=find_problems(measurement, protocol))
        for name, measurement in pooled.items()
    }


def pool_measurements(first: Measurement, second: Measurement) -> Measurement:
    """Two measurements of one artifact on one board as one: the windows and the conditions of both."""
    before = max((window.process for window in first.windows), default=-1) + 1
    later = tuple(replace(window, process=window.process + before) for window in second.windows)
    return replace(
        first,
        samples_ms=first.samples_ms + second.samples_ms,
        cold_starts_ms=first.cold_starts_ms + second.cold_starts_ms,
        windows=first.windows + later,
        warmup_runs=first.warmup_runs + second.warmup_runs,
        conditions=_pool_conditions(first.conditions, second.conditions),
        problems=(),
    )


def _pool_conditions(first: Conditions, second: Conditions) -> Conditions:
    """Conditions of both, the worse where only one figure can stand."""
    lists = ("frequency_mhz", "temperature_c", "load_average", "arithmetic_us")
    pooled: dict[str, Any] = {name: getattr(first, name) + getattr(second, name) for name in lists}
    for name in ("others_cores", "stolen_cores", "stalled_share", "too_warm_c"):
        figures = [value for value in (getattr(first, name), getattr(second, name)) if value is not None]
        pooled[name] = max(figures, default=None)
    for name in ("throttled", "notes"):
        pooled[name] = tuple(dict.fromkeys(getattr(first, name) + getattr(second, name)))
    return replace(first, **pooled)
