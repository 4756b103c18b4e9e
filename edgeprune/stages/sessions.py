"""Files measured in turns, and on while what was measured decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgeprune.core.measuring.measurement import Measurement
from edgeprune.core.measuring.pooling import pool_sessions
from edgeprune.core.releasing.gate import LOOKS
from edgeprune.stages.job import Job

Measurements = Mapping[str, Measurement]


def measure_until_decided(
    job: Job, measure: Callable[[], Measurements], is_undecided: Callable[[Measurements], bool]
) -> tuple[Measurements, int]:
    """Sessions of one `measure` each, LOOKS at most, pooled by name; and how many there were.

    Another follows where the board was not its own, though it ought to be quiet, or where what is pooled is undecided.
    """
    sessions: list[Measurements] = []
    while True:
        sessions.append(measure())
        pooled = pool_sessions(sessions, job.target.protocol)
        is_valid = all(measurement.valid for measurement in pooled.values())
        is_open = is_undecided(pooled) if is_valid else not job.allows_busy
        if not is_open or len(sessions) == LOOKS:
            return pooled, len(sessions)
