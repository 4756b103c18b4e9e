"""A run against a baseline: by how much each figure may be worse, and whether it is.

For `edgeprune.stages`, which knows where the figures come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import hypot, isfinite
from typing import Any

from edgeprune.core.measuring.spread import TAIL, RatioSpread, explain_quotient
from edgeprune.core.metric import HIGHER, LOWER, Metric
from edgeprune.core.releasing.gate import (
    EVIDENCE,
    FAIL,
    INCONCLUSIVE,
    PASS,
    QUALITY,
    USUAL,
    Figure,
    GateResult,
    Strictness,
    show_number,
)
from edgeprune.core.releasing.inputs import ROUNDING, advise_inputs
from edgeprune.core.text import render_columns, wrap_line

OVER = {"best": 1, "median": 50, "p90": 90, "worst": 100}
"""Which board of a fleet decides, by its rank from the best to the worst in percent."""
WIDTH = 80
"""Of the terminal."""
UNITS = {
    "_ms": "ms", "_mj": "mJ", "_w": "W", "_mib": "MiB", "_bytes": "bytes", "_db": "dB",
}  # fmt: skip


@dataclass(frozen=True)
class RegressionLimit:
    """By how much a metric may be worse than the baseline's: a fraction of that, or `floor` in the metric's unit,
    whichever is more. `over` is which board of a fleet decides, a key of OVER; empty: that which the command names.
    """

    metric: str
    max_regression: float = 0.0
    floor: float = 0.0
    over: str = ""

    def room(self, baseline: float) -> float:
        """By how much the metric may be worse than this figure, in its unit."""
        return max(self.max_regression * abs(baseline), self.floor)

    def describe(self) -> str:
        """For people: `2 % or 0.002 ms worse at most`."""
        unit = find_unit(self.metric)
        parts = [f"{100 * self.max_regression:.4g} %"] if self.max_regression or not self.floor else []
        parts += [f"{show_number(self.floor)} {unit}".rstrip()] if self.floor else []
        return f"{' or '.join(parts)} worse at most"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, as a row of `[[baseline]]`."""
        return {name: value for name, value in asdict(self).items() if name != "over" or value}


DEFAULT_LIMITS = tuple(
    RegressionLimit(metric, fraction, floor)
    for metric, fraction, floor in (
        ("latency_p50_ms", 0.02, 0.001),
        ("latency_p90_ms", 0.03, 0.002),
        ("latency_p95_ms", 0.05, 0.005),
        ("latency_p99_ms", 0.10, 0.01),
        ("init_ms", 0.30, 5.0),
        ("first_ms", 0.30, 0.1),
        ("peak_memory_mib", 0.05, 1.0),
        ("energy_mj", 0.05, 0.01),
        ("power_w", 0.10, 0.1),
        ("sustained_slowdown", 0.0, 0.03),
        ("file_bytes", 0.02, 1024),
        ("parameters", 0.02, 256),
        ("macs", 0.02, 1000),
        ("activation_bytes", 0.02, 256),
        (QUALITY, 0.01, 0.0),
        ("parity_sqnr_db", 0.05, 1.0),
        ("instructions", 0.02, 1000),
        ("sram_bytes", 0.02, 256),
    )
)
"""What a run is held to where its target says nothing else; argued in docs/gates.md."""
DIRECTIONS = {limit.metric: LOWER for limit in DEFAULT_LIMITS} | {"parity_sqnr_db": HIGHER, QUALITY: ""}
"""Which direction is better; of the quality the recipe's metric says so."""
RATIO_METRICS = ("latency_p50_ms", "latency_p90_ms", "latency_p95_ms", "latency_p99_ms", "init_ms", "first_ms")
"""Metrics whose change is a ratio with an interval of its own."""


@dataclass(frozen=True)
class Ratio:
    """The run's figure by the baseline's, and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Regression:
    """One metric of a run held against a baseline; `low` and `high` bound the `ratio`, where there is one.

    `worse` is by how much it is worse, as a share of the baseline's figure (of one that is 0 in the metric's unit).
    """

    metric: str
    limit: RegressionLimit
    outcome: str
    value: float | None = None
    baseline: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    worse: float | None = None
    reason: str = ""

    def to_result(self, baseline: str) -> GateResult:
        """As one of the run's gates; `baseline` is its name."""
        gate = f"{self.metric} against {baseline}: {self.limit.describe()}"
        return GateResult(gate, self.outcome, self.value, self.reason)


@dataclass(frozen=True)
class Figures:
    """What both sides have, by metric, and the ratios that were measured. `metric` is the recipe's."""

    new: Mapping[str, Figure]
    old: Mapping[str, Figure]
    metric: Metric
    ratios: Mapping[str, RatioSpread]


def find_unit(metric: str) -> str:
    """The unit that a metric's name ends in; empty for a count."""
    return next((unit for ending, unit in UNITS.items() if metric.endswith(ending)), "")


def settle_limits(own: Sequence[RegressionLimit], metric: Metric, samples: int) -> tuple[RegressionLimit, ...]:
    """The default limits, with those of a target or a file in their place.

    One evaluation input more or less decides nothing of a metric in percent.
    """
    floor = 100 / samples if metric.is_percent and samples else 0.0
    by_metric = {limit.metric: limit for limit in DEFAULT_LIMITS}
    by_metric[QUALITY] = RegressionLimit(QUALITY, by_metric[QUALITY].max_regression, floor)
    return tuple({**by_metric, **{limit.metric: limit for limit in own}}.values())


def judge_regressions(
    figures: Figures,
    limits: Sequence[RegressionLimit],
    demanded: Sequence[str] = (),
    strictness: Strictness = USUAL,
) -> tuple[tuple[Regression, ...], dict[str, str]]:
    """Hold every metric that both sides have against its limit; and why others were not compared, by metric.

    What is `demanded` (a target names it) and lacks on one side is inconclusive instead.
    """
    regressions, skipped = [], dict[str, str]()
    lacks = {limit.metric: _find_lack(limit.metric, figures) for limit in limits}
    strictness = replace(strictness, gates=max(1, sum(not reason for reason in lacks.values())))
    for limit in limits:
        if not (reason := lacks[limit.metric]):
            regressions.append(_judge(limit, figures, strictness.find_shares(limit.metric)))
        elif limit.metric in demanded:
            regressions.append(Regression(limit.metric, limit, INCONCLUSIVE, reason=reason))
        else:
            skipped[limit.metric] = reason
    return tuple(regressions), skipped


def _find_lack(metric: str, figures: Figures) -> str:
    """Why a metric cannot be compared; empty where both sides have a figure, or one that should have been a number."""
    for side, by_metric in (("in the run", figures.new), ("for the baseline", figures.old)):
        figure = by_metric.get(metric)
        if figure is None or figure.value is None:
            reason = figure.problem if figure else ""
            return f"not measured {side}: {reason}" if reason else f"not measured {side}"
    return ""


def _judge(limit: RegressionLimit, figures: Figures, shares: tuple[float, float]) -> Regression:
    new, old = figures.new[limit.metric], figures.old[limit.metric]
    if new.value is None or old.value is None:
        raise ValueError(f"{limit.metric}: one side has no figure")
    reason = _find_doubt(new, "this run") or _find_doubt(old, "the baseline")
    if not isfinite(new.value) or not isfinite(old.value):
        outcome = INCONCLUSIVE if isfinite(new.value) else FAIL
        return Regression(limit.metric, limit, outcome, reason="no finite number")
    if reason:
        return Regression(limit.metric, limit, INCONCLUSIVE, new.value, old.value, reason=reason)
    sign = -1.0 if (DIRECTIONS[limit.metric] or figures.metric.better) == HIGHER else 1.0
    spread = figures.ratios.get(limit.metric)
    ratio = Ratio(spread.center, *spread.bound(TAIL)) if spread else _find_ratio(new, old)
    changes = [_bound_change(new, old, spread, share) for share in shares]
    worst, best = [(low, high) if sign > 0 else (-high, -low) for low, high in changes]
    room = limit.room(old.value) + ROUNDING * max(abs(old.value), abs(new.value))
    outcome = PASS if worst[1] <= room else FAIL if best[0] > room else INCONCLUSIVE
    reason = _describe(limit, (new.value, old.value), ratio, outcome) + _describe_basis(new.value, old.value, spread)
    if limit.metric == QUALITY and outcome == INCONCLUSIVE:
        value = sign * (new.value - old.value)
        low, high = worst if value <= room else best
        reason += advise_inputs(new.inputs, value, max(high - value, value - low), room, True)
    middle = old.value * (ratio.value - 1) if ratio else new.value - old.value
    worse = sign * middle / (abs(old.value) or 1.0)
    judged = Regression(limit.metric, limit, outcome, new.value, old.value, worse=worse, reason=reason)
    return replace(judged, ratio=ratio.value, low=ratio.low, high=ratio.high) if ratio else judged


def _find_doubt(figure: Figure, side: str) -> str:
    if figure.origin not in EVIDENCE:
        return f"{side}: {figure.origin}, not measured"
    return f"{side}: invalid run: {figure.problem}" if figure.problem else ""


def _bound_change(new: Figure, old: Figure, ratio: RatioSpread | None, share: float) -> tuple[float, float]:
    """Bounds of the difference in the metric's unit, each missed with this probability; by the ratio where one is."""
    new_value, old_value = new.value or 0.0, old.value or 0.0
    if ratio:
        low, high = ratio.bound(share)
        return old_value * (low - 1), old_value * (high - 1)
    (new_low, new_high), (old_low, old_high) = new.bound(share), old.bound(share)
    below = hypot(new_value - new_low, old_high - old_value)
    above = hypot(new_high - new_value, old_value - old_low)
    return new_value - old_value - below, new_value - old_value + above


def _find_ratio(new: Figure, old: Figure) -> Ratio | None:
    """For people: the ratio of two figures above zero that are no ratios themselves."""
    if new.value is None or old.value is None or min(new.value, old.value) <= 0:
        return None
    low, high = (1 + end / old.value for end in _bound_change(new, old, None, TAIL))
    return Ratio(new.value / old.value, low, high)


def _describe(limit: RegressionLimit, values: tuple[float, float], ratio: Ratio | None, outcome: str) -> str:
    """The figure, the baseline's, what lies between, and the limit, for people."""
    new, old = (show_number(value) for value in values)
    sides = f"{new} {find_unit(limit.metric)}".rstrip() + f" against {old}"
    words = {PASS: "within", FAIL: "not within", INCONCLUSIVE: "perhaps within"}[outcome]
    return f"{sides}: {_describe_change(ratio, values)}, {words} {limit.describe()}"


def _describe_basis(new: float, old: float, spread: RatioSpread | None) -> str:
    """By how much the two figures alone differ, and why the ratio does not, where it does not."""
    basis = explain_quotient(new / old, spread) if spread and old else ""
    return f"; the two figures alone {100 * (new / old - 1):+.1f} %: {basis}" if basis else ""


def _describe_change(ratio: Ratio | None, values: tuple[float, float]) -> str:
    """`+1.2 % [-0.3, +2.7]`, or a difference where no ratio is."""
    if ratio is None:
        return f"{values[0] - values[1]:+.4g}"
    change, low, high = (100 * (value - 1) for value in (ratio.value, ratio.low, ratio.high))
    return f"{change:+.1f} %" + (f" [{low:+.1f}, {high:+.1f}]" if high > low else "")


def render_regressions(section: Mapping[str, Any]) -> str:
    """What a report says of a baseline, for the terminal: a table in 80 columns and what is to be known of it."""
    head = ("metric", "baseline", "now", "change, interval", "limit", "")
    lines = [f"{row['outcome']}: {row['metric']}: {row['reason']}" for row in section["rows"] if row["outcome"] != PASS]
    lacks = dict.fromkeys(section["not_compared"].values())
    for reason in lacks:
        metrics = [metric for metric, own in section["not_compared"].items() if own == reason]
        lines.append(f"not compared: {', '.join(metrics)}: {reason}")
    lines += [f"note: {note}" for note in section["notes"]]
    table = render_columns([head, *map(_table_row, section["rows"])])
    return "\n".join(
        [wrap_line(section["title"], WIDTH, ""), "", table, *(wrap_line(line, WIDTH, "") for line in lines)]
    )


def _table_row(row: Mapping[str, Any]) -> tuple[str, str, str, str, str, str]:
    limit, baseline = RegressionLimit(**row["limit"]), row["baseline"]
    change = "-"
    if row["value"] is not None and baseline is not None:
        ratio = None if row["ratio"] is None else Ratio(row["ratio"], row["low"], row["high"])
        change = _describe_change(ratio, (row["value"], baseline))
    before, after = ("-" if value is None else show_number(value) for value in (baseline, row["value"]))
    return row["metric"], before, after, change, _show_room(limit, baseline), row["outcome"]


def _show_room(limit: RegressionLimit, baseline: float | None) -> str:
    """What may be worse at most: a share, or the floor where that is more."""
    is_share = baseline is None or limit.max_regression * abs(baseline) >= limit.floor
    return f"{100 * limit.max_regression:.3g} %" if is_share else show_number(limit.floor)
