"""The common speed of a board taken off its windows, on sessions whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.core.measuring.windows import SteadyLatency, Window, fit_common_speed, keep_undisturbed


@dataclass(frozen=True)
class Board:
    """How a board of the tests varies: its speed over a second, between processes, and from window to window."""

    walk: float = 0.0
    process: float = 0.0
    noise: float = 0.002
    burst: float = 0.0
    """How much slower it is in bursts of half a second, a third of the time."""


def take_session(
    latency_ms: Mapping[str, float], board: Board, seed: int, processes: int = 4, rounds: int = 15
) -> dict[str, list[Window]]:
    """Windows of files that take turns in random order, a window every 8 ms."""
    random, at_s, speed = np.random.default_rng(seed), 0.0, 0.0
    bursts = random.random(10_000) < 1 / 3
    session: dict[str, list[Window]] = {name: [] for name in latency_ms}
    for process in range(processes):
        layout = {name: board.process * random.standard_normal() for name in latency_ms}
        for _ in range(rounds):
            for name in random.permutation(list(latency_ms)):
                at_s += 0.008
                speed += board.walk * np.sqrt(0.008) * random.standard_normal()
                slowing = speed + layout[name] + board.burst * bursts[int(2 * at_s)]
                p50_ms = latency_ms[name] * exp(slowing + board.noise * random.standard_normal())
                session[name].append(Window(process, at_s, p50_ms))
        at_s += 1.0
    return session


FILES = {f"net{number}": 0.05 * 1.2**number for number in range(12)}


def ratios(steady: Mapping[str, SteadyLatency]) -> np.ndarray:
    """Of the latencies to the truth, in logarithms, freed of what is common to all."""
    logs = np.array([log(steady[name].latency_ms / FILES[name]) for name in FILES])
    return logs - logs.mean()


@pytest.mark.parametrize("board", [Board(walk=0.03), Board(walk=0.01, burst=0.2), Board(noise=0.01)])
def test_ratios_come_out_right_though_the_board_changes_its_speed(board: Board) -> None:
    errors, plain = [], []
    for seed in range(10):
        session = take_session(FILES, board, seed)
        errors.append(ratios(fit_common_speed(session)))
        medians = np.array(
            [log(np.median([window.p50_ms for window in session[name]]) / FILES[name]) for name in FILES]
        )
        plain.append(medians - medians.mean())
    assert np.std(errors) < 0.004
    assert np.abs(errors).max() < 0.012
    assert np.std(errors) < 1.1 * np.std(plain)


def test_a_slow_change_of_speed_does_not_favour_what_ran_early() -> None:
    """Two halves of the session with a file each and one in both: the board is 20 % slower in the second half."""
    early = [Window(0, 0.1 * at, 1.0) for at in range(50)]
    both = [Window(at // 50, 0.1 * at, 2.0 * (1.2 if at >= 50 else 1.0)) for at in range(100)]
    late = [Window(1, 5.0 + 0.1 * at, 1.2) for at in range(50)]
    steady = fit_common_speed({"early": early, "both": both, "late": late})
    assert steady["late"].latency_ms / steady["early"].latency_ms == pytest.approx(1.0, rel=0.01)


def test_the_level_is_that_of_the_session() -> None:
    """What all windows have in common is latency, not speed; a file alone keeps its own mean."""
    session = take_session({"net": 2.0}, Board(walk=0.01), 3)
    logs = [log(window.p50_ms) for window in session["net"]]
    assert fit_common_speed(session)["net"].latency_ms == pytest.approx(exp(float(np.mean(logs))), rel=0.003)


def test_disturbed_windows_are_left_out_while_others_remain() -> None:
    calm = [Window(0, 0.1 * at, 1.0, waited_share=0.01) for at in range(6)]
    hit = [Window(0, 0.05 + 0.1 * at, 1.5, waited_share=0.3) for at in range(12)]
    assert keep_undisturbed([*calm, *hit]) == tuple(calm)
    assert fit_common_speed({"net": [*calm, *hit]})["net"].latency_ms == pytest.approx(1.0, rel=1e-3)
    assert keep_undisturbed([calm[0], *hit]) == (calm[0], *hit)
    assert not Window(0, 0.0, 1.0).is_disturbed
    assert not replace(calm[0], waited_share=0.05).is_disturbed
    assert replace(calm[0], waited_share=0.051).is_disturbed


def test_the_interval_of_a_ratio_holds_the_truth_as_often_as_it_says() -> None:
    """Processes differ by 2 % for each file, as they do on real machines."""
    held, widths = 0, []
    for seed in range(200):
        steady = fit_common_speed(take_session({"a": 1.0, "b": 0.8}, Board(walk=0.02, process=0.02), seed, 6, 6))
        ratio, low, high = steady["b"].ratio_to(steady["a"]).interval()
        assert low < ratio < high
        held += low <= 0.8 <= high
        widths.append(high / low - 1)
    assert 0.91 <= held / 200 <= 0.985
    assert 0.03 < np.median(widths) < 0.09


def test_a_ratio_is_of_the_processes_that_timed_both() -> None:
    first = SteadyLatency(1.0, tuple(Window(process, 0.0, 1.0) for process in (0, 1, 2)))
    second = SteadyLatency(2.0, tuple(Window(process, 0.0, 2.0 + process) for process in (1, 2, 9)))
    ratio, low, high = second.ratio_to(first).interval()
    assert ratio == pytest.approx((3.0 * 4.0) ** 0.5)
    assert low < ratio < high
    with pytest.raises(ValueError, match="two processes or more"):
        SteadyLatency(1.0, (Window(7, 0.0, 1.0),)).ratio_to(first)


def test_a_file_without_windows_is_refused() -> None:
    with pytest.raises(ValueError, match="every file needs windows"):
        fit_common_speed({"a": [Window(0, 0.0, 1.0)], "b": []})
    with pytest.raises(ValueError, match="every file needs windows"):
        fit_common_speed({})


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0, 1e4), st.floats(1e-4, 1e4), st.integers(0, 4)),
        min_size=1,
        max_size=40,
    ),
    st.floats(1e-3, 1e3),
)
def test_any_windows_give_finite_latencies_that_scale_with_the_unit(
    rows: list[tuple[str, float, float, int]], factor: float
) -> None:
    session: dict[str, list[Window]] = {}
    for name, at_s, p50_ms, process in rows:
        session.setdefault(name, []).append(Window(process, at_s, p50_ms))
    steady = fit_common_speed(session)
    scaled = fit_common_speed(
        {
            name: [replace(window, p50_ms=factor * window.p50_ms) for window in windows]
            for name, windows in session.items()
        }
    )
    least, most = min(row[2] for row in rows), max(row[2] for row in rows)
    for name in session:
        assert least / 1.01 <= steady[name].latency_ms <= most * 1.01 or len(session) > 1
        assert scaled[name].latency_ms == pytest.approx(factor * steady[name].latency_ms, rel=0.02)
