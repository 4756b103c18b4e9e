"""The verdict over many boards, and boards that are unlike others of their kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.measuring.measurement import Conditions
from edgeprune.core.measuring.statistics import LatencySummary
from edgeprune.core.releasing.fleet import (
    UNLIKE_RATIO,
    BoardLatency,
    choose_deciding,
    choose_deciding_regression,
    choose_over_fleet,
    describe_state,
    find_unlike,
    judge_board,
    render_fleet,
)
from edgeprune.core.releasing.gate import FAIL, INCONCLUSIVE, PASS, Gate, GateResult, decide
from edgeprune.core.releasing.regression import Regression, RegressionLimit
from edgeprune.device.transports.lookup import parse_groups
from edgeprune.errors import TargetError

LATENCY, SPEEDUP = Gate("latency_p50_ms", at_most=10.0), Gate("speedup", at_least=2.0)


def result(outcome: str, value: float | None) -> GateResult:
    return GateResult("gate", outcome, value, "")


def board(host: str, low: float, high: float, kind: str = "rpi4", state: str = "") -> BoardLatency:
    middle = (low + high) / 2
    return BoardLatency(host, kind, LatencySummary(100, low, middle, high, high, high, 0.01, low, high), state)


def test_the_worst_board_decides_unless_another_is_named() -> None:
    boards = {"a": result(PASS, 5.0), "b": result(PASS, 7.0), "c": result(FAIL, 12.0), "d": result(INCONCLUSIVE, None)}
    assert [choose_deciding(LATENCY, boards, percentile)[0] for percentile in (1, 25, 26, 50, 51, 75, 76, 100)] == [
        *"aabb", *"ddcc",
    ]  # fmt: skip
    assert choose_deciding(SPEEDUP, {"slow": result(PASS, 2.1), "fast": result(PASS, 3.0)})[0] == "slow"


def regression(outcome: str, worse: float | None, over: str = "") -> Regression:
    return Regression("file_bytes", RegressionLimit("file_bytes", 0.02, over=over), outcome, worse=worse)


def test_the_board_that_lost_most_decides_against_a_baseline() -> None:
    rows = {
        "a": regression(PASS, 0.01),
        "b": regression(PASS, -0.5),
        "c": regression(FAIL, 0.1),
        "d": regression(PASS, None),
    }
    ranks = [choose_deciding_regression(rows, percentile)[0] for percentile in (1, 25, 26, 50, 75, 100)]
    assert ranks == ["b", "b", "a", "a", "d", "c"]
    rows = {host: regression(PASS, worse, "median") for host, worse in zip("abc", (0.1, 0.2, 0.3), strict=True)}
    assert choose_deciding_regression(rows, 100)[0] == "b"


def test_a_board_that_was_not_compared_is_undecided_in_every_metric() -> None:
    rows = choose_over_fleet({"a": [regression(PASS, 0.0)], "b": "not measured: refused"})
    assert [(host, row.outcome, row.reason) for host, row in rows] == [("b", INCONCLUSIVE, "not measured: refused")]
    assert choose_over_fleet({"a": [regression(PASS, 0.0)], "b": "refused"}, 50)[0][0] == "a"
    assert [row.outcome for _, row in choose_over_fleet({"b": "refused"})] == [INCONCLUSIVE]


def test_a_failure_is_not_hidden_by_a_board_that_does_not_answer() -> None:
    (silent,) = judge_board([LATENCY], "refused")
    assert (silent.outcome, silent.reason) == (INCONCLUSIVE, "not measured: refused")
    for outcome, host in ((PASS, "silent"), (FAIL, "other")):
        chosen = choose_deciding(LATENCY, {"silent": silent, "other": result(outcome, 1.0)})
        assert chosen[0] == host


results = st.tuples(st.sampled_from([PASS, INCONCLUSIVE, FAIL]), st.none() | st.floats(0.1, 100))


@given(st.dictionaries(st.text("abcdef", min_size=1), results, min_size=1), st.integers(1, 100), st.integers(1, 100))
def test_a_higher_percentile_is_never_kinder(rows: dict[str, tuple[str, float | None]], low: int, high: int) -> None:
    boards = {host: result(*row) for host, row in rows.items()}
    low, high = min(low, high), max(low, high)
    verdicts = [decide([choose_deciding(LATENCY, boards, percentile)[1]]) for percentile in (low, high, 100)]
    order = [PASS, INCONCLUSIVE, FAIL]
    assert sorted(verdicts, key=order.index) == verdicts
    assert verdicts[-1] == max((one.outcome for one in boards.values()), key=order.index)
    shares = sum(one.outcome == PASS for one in boards.values()) / len(boards)
    assert (verdicts[0] == PASS) == (shares * 100 >= low - 1e-9 and shares > 0)


def test_boards_of_a_kind_that_differ_by_more_than_the_noise_are_named() -> None:
    boards = [
        board("a", 10.0, 10.2, state="performance, 48 C"),
        board("b", 10.1, 10.3),
        board("slow", 12.0, 12.4, state="powersave, 71 C"),
        board("fast", 8.0, 8.4),
        board("other", 30.0, 31.0, kind="rpi5"),
    ]
    found = {one.host: one for one in find_unlike(boards)}
    assert set(found) == {"slow", "fast"}
    assert found["slow"].ratio == pytest.approx(12.2 / 10.1)
    assert found["slow"].describe() == (
        "slow is 21% slower than a: median 12.2 [12, 12.4] against 10.1 [10, 10.2] ms; "
        "powersave, 71 C against performance, 48 C"
    )
    assert found["fast"].describe().startswith("fast is 19% faster than a: ")


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (board("b", 10.3, 10.5), False),  # apart, but by less than one board from run to run
        (board("b", 10.1, 12.5), False),  # far, but the intervals overlap
        (board("b", 10.9, 11.1), True),
        (board("b", 8.9, 9.1), True),
        (board("b", 20.0, 21.0, kind="rpi5"), False),
    ],
)
def test_noise_is_no_difference(other: BoardLatency, named: bool) -> None:
    assert bool(find_unlike([board("a", 10.0, 10.2), other])) == named


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(0, 20)), max_size=8, unique_by=lambda row: row[0] + row[1] / 2))
def test_what_is_named_differs_and_the_order_does_not_matter(rows: list[tuple[float, float]]) -> None:
    boards = [board(f"b{i}", low, low + width) for i, (low, width) in enumerate(rows)]
    found = find_unlike(boards)
    assert all(max(one.ratio, 1 / one.ratio) > UNLIKE_RATIO for one in found)
    assert len(found) <= max(0, len(boards) - 1)
    assert {one.host for one in find_unlike(boards[::-1])} == {one.host for one in found}


def test_a_state_is_told_as_far_as_it_is_known() -> None:
    assert describe_state(Conditions(1)) == "state unknown"
    known = Conditions(
        1, governor="powersave", frequency_mhz=(1500.0, 600.0), temperature_c=(50.0, 81.5), throttled=("capped",)
    )
    assert describe_state(known) == "powersave, 82 C, 600 MHz, capped"


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["devices", "groups", "x"]), values))
def test_no_document_upsets_the_groups_parser(document: dict[str, object]) -> None:
    try:
        groups = parse_groups(document, "devices.toml")
    except TargetError as exc:
        said = str(exc)
    else:
        said = "devices.toml: "
        assert all(members and all(isinstance(one, str) for one in members) for members in groups.values())
    assert said.startswith("devices.toml: ")


def test_a_board_that_tells_means_has_no_percentile_and_the_reason_stands_once() -> None:
    latency = {"p50_ms": 1.0, "p95_ms": 1.5, "median_low_ms": 0.9, "median_high_ms": 1.1}
    row = {"error": "", "latency": latency, "speedup": 2.0, "state": "cool"}
    phones = [{**row, "host": host, "latency": {**latency, "p95_ms": None}} for host in ("adb:a", "adb:b")]
    boards = [*phones, {**row, "host": "pi@bench"}, {"host": "pi@off", "error": "not there"}]
    document = {"boards": boards, "unlike": [], "percentile": 100, "gates": [], "verdict": "pass"}
    lines = render_fleet(document).splitlines()
    cells = {line.split()[0]: line.split()[4] for line in lines if "[0.9, 1.1]" in line}
    assert cells == {"adb:a": "-", "adb:b": "-", "pi@bench": "1.5"}
    assert sum(line.startswith("p95 -: too few samples of single runs") for line in lines) == 1
    assert "p95 -:" not in render_fleet({**document, "boards": boards[2:]})
