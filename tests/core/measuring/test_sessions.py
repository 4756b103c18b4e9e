"""Measuring on: which sessions count, and when there is nothing more to learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
from measured_run import make_measurement

from edgeprune.core.measuring.measurement import Measurement, Protocol
from edgeprune.core.measuring.pooling import pool_sessions
from edgeprune.core.measuring.windows import Window

PROTOCOL = Protocol(min_samples=10, min_duration_s=0.0)


def make_session(p50_ms: float, *problems: str) -> dict[str, Measurement]:
    plain = make_measurement("b", "f" * 64, p50_ms, problems)
    windows = tuple(Window(process, float(process), p50_ms, 1, 1.0) for process in range(4))
    measurement = replace(plain, samples_ms=(p50_ms,) * 4, windows=windows)
    return {"a": replace(measurement, artifact="a"), "b": measurement}


def test_sessions_in_which_the_board_was_not_their_own_are_left_out() -> None:
    sessions = [make_session(9.0, "others took 1.02 cores"), make_session(1.0), make_session(1.1)]
    pooled = pool_sessions(sessions, replace(PROTOCOL, min_samples=8))
    assert pooled["b"].problems == ()
    assert sorted(pooled["b"].samples_by_process) == list(range(8))
    assert max(pooled["b"].samples_ms) == 1.1
    (alone,) = {pool_sessions(sessions[:2], PROTOCOL)["b"].samples_ms}
    assert alone == (1.0,) * 4


def test_where_no_session_was_valid_the_last_one_tells_why() -> None:
    sessions = [make_session(9.0, "throttled"), make_session(8.0, "others took 1.02 cores")]
    assert pool_sessions(sessions, PROTOCOL)["b"].problems == ("others took 1.02 cores",)


@pytest.mark.parametrize("invalid", ["a", "b"])
def test_a_session_is_valid_where_both_of_its_runs_are(invalid: str) -> None:
    spoiled = make_session(9.0)
    spoiled[invalid] = replace(spoiled[invalid], problems=("throttled",))
    assert pool_sessions([make_session(1.0), spoiled], PROTOCOL)["a"].samples_ms == (1.0,) * 4
