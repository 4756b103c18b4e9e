"""When files are measured once more."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from device_models import QUICK
from measured_run import make_measurement

from edgeprune.core.releasing.gate import LOOKS
from edgeprune.stages.sessions import measure_until_decided

VALID = make_measurement("a", "0" * 64, 1.0, processes=2)
DISTURBED = replace(VALID, problems=("others took 1.02 cores",))


@pytest.mark.parametrize(
    ("measurement", "decided_after", "allows_busy", "sessions"),
    [
        (VALID, 1, False, 1),
        (VALID, 2, False, 2),
        (VALID, 9, False, LOOKS),
        (DISTURBED, 1, False, LOOKS),
        (DISTURBED, 9, True, 1),
    ],
)
def test_it_is_measured_on_while_undecided_or_disturbed(
    measurement: Any, decided_after: int, allows_busy: bool, sessions: int
) -> None:
    job: Any = SimpleNamespace(allows_busy=allows_busy, target=SimpleNamespace(protocol=QUICK))
    looks = []

    def is_undecided(pooled: Any) -> bool:
        looks.append(len(pooled["a"].samples_ms) // len(measurement.samples_ms))
        return looks[-1] < decided_after

    pooled, count = measure_until_decided(job, lambda: {"a": measurement}, is_undecided)
    assert count == sessions
    assert pooled["a"].valid == measurement.valid
    assert looks == (list(range(1, sessions + 1)) if measurement.valid else [])
