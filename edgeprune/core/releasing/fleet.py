"""One artifact on many boards: the verdict over all of them, and boards that are unlike others of their kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.core.measuring.measurement import Conditions
from edgeprune.core.measuring.statistics import LatencySummary
from edgeprune.core.measuring.tails import note_tails
from edgeprune.core.releasing.gate import FAIL, INCONCLUSIVE, PASS, Gate, GateResult
from edgeprune.core.releasing.regression import DEFAULT_LIMITS, OVER, Regression, RegressionLimit
from edgeprune.core.text import render_columns

WORST = 100
UNLIKE_RATIO = 1.08
"""Boards of a kind whose medians differ by more are named. The median of one file on one machine moved by up to 8 %
from run to run where this was written, so that a smaller ratio is no property of a board, however narrow its interval:
an interval tells what one run holds, not what the next one will."""


@dataclass(frozen=True)
class BoardLatency:
    """How fast a board of some kind (its fingerprint) was, in which state."""

    host: str
    kind: str
    latency: LatencySummary
    state: str


@dataclass(frozen=True)
class Unlike:
    """A board that differs from the `middle` one of its kind; `ratio` is its median over that one's."""

    host: str
    middle: str
    ratio: float
    reason: str

    def describe(self) -> str:
        """For people."""
        share = abs(self.ratio - 1)
        return (
            f"{self.host} is {share:.0%} {'slower' if self.ratio > 1 else 'faster'} than {self.middle}: {self.reason}"
        )


def judge_board(gates: Sequence[Gate], error: str) -> tuple[GateResult, ...]:
    """What gates say of a board that could not be measured."""
    return tuple(GateResult(gate.describe(), INCONCLUSIVE, None, f"not measured: {error}") for gate in gates)


def choose_deciding(gate: Gate, results: Mapping[str, GateResult], percentile: int = WORST) -> tuple[str, GateResult]:
    """The board at a percentile, by nearest rank, from the best to the worst; and what the gate says of it.

    Boards that pass come first, then those that are inconclusive or were not measured, then those that fail; among
    these the better value first. So the 100th decides by the worst board, and boards that do not answer never help.
    """
    order = sorted(results.items(), key=lambda item: (_severity(item[1]), _badness(gate, item[1].value), item[0]))
    return order[max(1, -(-percentile * len(order) // 100)) - 1]


def choose_deciding_regression(rows: Mapping[str, Regression], percentile: int = WORST) -> tuple[str, Regression]:
    """The board at a percentile, as :func:`choose_deciding` has it, by how much a metric is worse than its baseline's.

    The limit's own `over` goes before the percentile.
    """
    order = sorted(rows.items(), key=lambda item: (_severity(item[1]), *_worse(item[1]), item[0]))
    own = OVER.get(order[-1][1].limit.over, percentile)
    return order[max(1, -(-own * len(order) // 100)) - 1]


def _worse(row: Regression) -> tuple[bool, float]:
    return row.worse is None, row.worse or 0.0


def choose_over_fleet(
    boards: Mapping[str, Sequence[Regression] | str], percentile: int = WORST
) -> list[tuple[str, Regression]]:
    """Which board decides of each metric, and what is said of it; of a board that was not compared the reason is given.

    A board that was not compared is inconclusive in every metric; a metric that a board has not does not count there.
    """
    compared = {host: rows for host, rows in boards.items() if not isinstance(rows, str)}
    limits = {row.metric: row.limit for rows in compared.values() for row in rows}
    by_metric: dict[str, dict[str, Regression]] = {}
    for host, rows in boards.items():
        for row in _lack_all(rows, limits) if isinstance(rows, str) else rows:
            by_metric.setdefault(row.metric, {})[host] = row
    return [choose_deciding_regression(rows, percentile) for rows in by_metric.values()]


def _lack_all(reason: str, limits: Mapping[str, RegressionLimit]) -> list[Regression]:
    """What is said of a board that was not compared; in the first metric where no board was."""
    lacking = limits or {DEFAULT_LIMITS[0].metric: DEFAULT_LIMITS[0]}
    return [Regression(metric, limit, INCONCLUSIVE, reason=reason) for metric, limit in lacking.items()]


def _severity(result: GateResult | Regression) -> int:
    return (PASS, INCONCLUSIVE, FAIL).index(result.outcome)


def _badness(gate: Gate, value: float | None) -> float:
    if value is None:
        return float("inf")
    return value if gate.is_lower_better else -value


def find_unlike(boards: Sequence[BoardLatency]) -> list[Unlike]:
    """Boards that differ from the middle one of their kind by more than the noise.

    That is: the intervals of the two medians do not overlap, and the medians differ by more than `UNLIKE_RATIO`.
    """
    unlike = []
    for kind in dict.fromkeys(board.kind for board in boards):
        alike = sorted((board for board in boards if board.kind == kind), key=lambda board: board.latency.p50_ms)
        middle = alike[(len(alike) - 1) // 2]
        unlike += [_compare(board, middle) for board in alike if _differ(board.latency, middle.latency)]
    return unlike


def _differ(first: LatencySummary, second: LatencySummary) -> bool:
    apart = first.median_low_ms > second.median_high_ms or second.median_low_ms > first.median_high_ms
    return apart and max(first.p50_ms, second.p50_ms) > UNLIKE_RATIO * min(first.p50_ms, second.p50_ms)


def _compare(board: BoardLatency, middle: BoardLatency) -> Unlike:
    first, second = board.latency, middle.latency
    reason = (
        f"median {first.p50_ms:.4g} [{first.median_low_ms:.4g}, {first.median_high_ms:.4g}] against "
        f"{second.p50_ms:.4g} [{second.median_low_ms:.4g}, {second.median_high_ms:.4g}] ms"
    )
    states = f"; {board.state} against {middle.state}" if board.state != middle.state else ""
    return Unlike(board.host, middle.host, first.p50_ms / second.p50_ms, reason + states)


def describe_state(conditions: Conditions) -> str:
    """What of a board's state may explain its speed."""
    parts = [conditions.governor] if conditions.governor else []
    parts += [f"{conditions.temperature_c[-1]:.0f} C"] if conditions.temperature_c else []
    parts += [f"{conditions.frequency_mhz[-1]:.0f} MHz"] if conditions.frequency_mhz else []
    return ", ".join([*parts, *conditions.throttled]) or "state unknown"


def render_fleet(document: Mapping[str, Any]) -> str:
    """The terminal's table of a fleet document, with what is said below it."""
    boards = [_row(row) for row in document["boards"]]
    lines = [render_columns([("board", "p50 ms", "95 % interval", "p95 ms", "speed-up", "state"), *boards])]
    lines += note_tails(document["boards"])
    lines += [f"{row['host']}: not measured: {row['error']}" for row in document["boards"] if row["error"]]
    lines += [f"{row['host']}: invalid run: {text}" for row in document["boards"] for text in row.get("problems", ())]
    lines += ["", *document["unlike"]] if document["unlike"] else []
    rank = "the worst board" if document["percentile"] == WORST else f"the board at percentile {document['percentile']}"
    lines += ["", f"by {rank}:"]
    lines += [f"  {row['outcome']:12} {row['gate']}: {row['reason']} ({row['host']})" for row in document["gates"]]
    if against := document.get("against"):
        lines += ["", f"against baseline {against['name']}, measured in turns with its file on every board:"]
        lines += [f"  {row['outcome']:12} {row['metric']}: {row['reason']} ({row['host']})" for row in against["rows"]]
    return "\n".join([*lines, f"verdict: {document['verdict']}"])


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    if row["error"]:
        return (row["host"], "-", "-", "-", "-", "not measured")
    latency, speedup = row["latency"], row["speedup"]
    interval = f"[{latency['median_low_ms']:.4g}, {latency['median_high_ms']:.4g}]"
    tail = "-" if latency["p95_ms"] is None else f"{latency['p95_ms']:.4g}"
    figures = (f"{latency['p50_ms']:.4g}", interval, tail, f"{speedup:.3g}")
    return (row["host"], *figures, row["state"])
