"""The verdict in Markdown, short enough for a comment on a change."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.core.cost import INSTRUCTIONS, MS, costs_in, find_cost_unit, show_cost
from edgeprune.core.measuring.measurement import Conditions
from edgeprune.core.metric import parse_metric
from edgeprune.core.releasing.gate import FAIL, INCONCLUSIVE, PASS
from edgeprune.core.summary import name_next, say_range
from edgeprune.core.text import make_printable

NO_GATE = "no gate was asked for, so nothing can pass; add [[gates]] to the target, or give --gates FILE"
MARKS = {PASS: "✅", FAIL: "❌", INCONCLUSIVE: "⚠️"}
ORDER = (FAIL, INCONCLUSIVE, PASS)
FLEET_HEAD = ("board", "latency p50", "95 % interval", "speed-up", "state")
MARKER = "<!-- edgeprune -->"
"""Shown nowhere; by it a CI server's job finds the comment to edit."""
MOST_GATES = 20
"""Of those that fail or cannot be told."""
FOLDED = 5
"""More gates that pass are folded away."""
MOST_LETTERS = 300
"""Of a reason; the whole one is in the report."""
SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~])")


def render_markdown(report: Mapping[str, Any], directory: Path) -> str:
    """Verdict, the figures that matter first with interval and conditions, gates with reasons, and what to do next.

    In the Markdown of GitHub and GitLab; whatever comes from files is escaped.
    """
    with costs_in(report.get("unit", MS)):
        return _render(report, directory)


def _render(report: Mapping[str, Any], directory: Path) -> str:
    is_counted = find_cost_unit() == INSTRUCTIONS
    rows = sorted(report["gates"], key=lambda row: ORDER.index(row["outcome"]))
    verdict = report["verdict"]
    parts = [
        f"### {MARKS[verdict]} {verdict}: {escape(report['recipe'])} on {escape(report['target'])}",
        _table(("", "unpruned", "shipped", "range over inputs" if is_counted else "95 % interval"), _figures(report)),
        f"{escape(describe_conditions(report))}.",
        *_standing(report.get("against")),
        *(_gates(rows) if rows else [f"{escape(NO_GATE)}."]),
        f"Next: {advise(report, directory)}\n{MARKER}",
    ]
    return "\n\n".join(parts) + "\n"


def render_fleet_markdown(document: Mapping[str, Any], recipe: str, directory: Path) -> str:
    """The same of a fleet: each board, then the gates, each with the board that decides."""
    verdict, hosts = document["verdict"], ",".join(board["host"] for board in document["boards"])
    against = document["against"] or {"name": "", "rows": []}
    gates = [{**row, "gate": f"{row['gate']} ({row['host']})"} for row in document["gates"]]
    gates += [{**row, "gate": f"{row['metric']} against {against['name']} ({row['host']})"} for row in against["rows"]]
    rows = sorted(gates, key=lambda row: ORDER.index(row["outcome"]))
    again = f"edgeprune fleet --run {shlex.quote(str(directory))} --hosts {shlex.quote(hosts)}"
    advice = {
        PASS: _code(f"edgeprune release push --run {shlex.quote(str(directory))} --hosts {shlex.quote(hosts)}"),
        FAIL: "the whole verdict, a board each, is in `fleet.json`.",
        INCONCLUSIVE: f"mend or leave out what was not measured, then {_code(again)}",
    }
    parts = [
        f"### {MARKS[verdict]} {verdict}: {escape(recipe)} on {len(document['boards'])} boards of "
        f"{escape(document['target'])}",
        _table(FLEET_HEAD, map(_board, document["boards"])),
        *(f"{escape(text)}." for text in document["unlike"]),
        *(_gates(rows) if rows else [f"{escape(NO_GATE)}."]),
        f"Next: {advice[verdict]}\n{MARKER}",
    ]
    return "\n\n".join(parts) + "\n"


def _board(row: Mapping[str, Any]) -> Sequence[str]:
    """A board's figures; why it has none, or why they may not be believed."""
    if row["error"]:
        return (row["host"], "-", "-", "-", f"not measured: {row['error']}"[:MOST_LETTERS])
    latency = row["latency"]
    interval = f"{latency['median_low_ms']:.4g} to {latency['median_high_ms']:.4g} ms"
    state = f"NOT VALID: {'; '.join(row['problems'])}" if row["problems"] else row["state"]
    return (row["host"], f"{latency['p50_ms']:.4g} ms", interval, f"{row['speedup']:.2f}", state[:MOST_LETTERS])


def _standing(against: Mapping[str, Any] | None) -> list[str]:
    """Which baseline it was held against, and how."""
    if not against:
        return []
    title = against["title"].rstrip(":.")
    return [f"{escape(title[:1].upper() + title[1:])}."]


def _gates(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tables of the gates, those that do not pass first; many that pass are folded."""
    head, passed = ("gate", "outcome", "reason"), [row for row in rows if row["outcome"] == PASS]
    others = [row for row in rows if row["outcome"] != PASS]
    if len(passed) <= FOLDED:
        others, passed = [*others, *passed], []
    parts = [_table(head, map(_gate, others[:MOST_GATES]))] if others else []
    if len(others) > MOST_GATES:
        parts.append(f"{len(others) - MOST_GATES} more gates are in the report.")
    if passed:
        shown = _table(head, map(_gate, passed[:MOST_GATES]))
        parts.append(f"<details><summary>{len(passed)} gates pass</summary>\n\n{shown}\n\n</details>")
    return parts


def escape(text: str) -> str:
    """A text that Markdown and HTML show as it is, in one line."""
    line = make_printable(" ".join(str(text).split())).replace("&", "&amp;")
    return SPECIAL.sub(r"\\\1", line).replace("\\<", "&lt;").replace("\\>", "&gt;")


def describe_conditions(report: Mapping[str, Any]) -> str:
    """What the figures were measured on, how, under which conditions, and whether they may be believed."""
    result, device = report["result"], report["device"]
    precision = next((row["precision"] for row in report["artifacts"] if row.get("shipped")), "")
    if find_cost_unit() == INSTRUCTIONS:
        parts = [f"Counted in QEMU ({device['machine']}, {device['cpu']}), no time", report["runtime"], precision]
        parts.append(f"median of {result['latency']['count']:,} inputs")
    else:
        statistic = f"median of {result['latency']['count']:,} inferences"
        parts = [f"Measured in turns on {device['host']} ({device['cpu']})", report["runtime"], precision, statistic]
        parts.append(Conditions(**report["conditions"]).describe())
    doubts = list(dict.fromkeys([*report["baseline"]["problems"], *result["problems"]]))
    parts.append(f"NOT VALID: {'; '.join(doubts)}" if doubts else "the run is valid")
    return ", ".join(part for part in parts if part)


def advise(report: Mapping[str, Any], directory: Path) -> str:
    """What to do next, by the verdict and why it is so."""
    run = f"--run {shlex.quote(str(directory))}"
    if report["verdict"] == PASS:
        return _code(name_next(report, directory))
    if report["verdict"] == FAIL:
        return f"{_code(f'edgeprune explain {run}')} says what was cut and why; the whole report is `report.html`."
    if not report["gates"]:
        return f"add a gate, then {_code(f'edgeprune gate {run} --gates FILE')}"
    if report["baseline"]["problems"] or report["result"]["problems"]:
        return f"measure again on a quiet, cool board: {_code(f'edgeprune deploy {run} --from measure')}"
    against = report.get("against")
    if against and not against["sessions"]:
        name = shlex.quote(against["name"])
        again = _code(f"edgeprune gate {run} --baseline {name} --interleave")
        return f"measure the baseline's file beside this one, which tells finer: {again}"
    again = _code(f"edgeprune deploy {run} --from confirm")
    return f"an interval holds a limit: measure again ({again}), longer by the target's protocol, or move the limit."


def _figures(report: Mapping[str, Any]) -> list[Sequence[str]]:
    """Speed-up and latency; the quality; energy, where there is a figure."""
    before, after, metric = report["baseline"], report["result"], parse_metric(report["metric"])
    latency, (low, high) = after["latency"], report["speedup_interval"]
    costs: list[Sequence[str]] = [
        ("speed-up", "1", f"{report['speedup']:.2f}", f"{low:.2f} to {high:.2f}"),
        (
            "latency p50",
            f"{before['latency']['p50_ms']:.4g} ms",
            f"{latency['p50_ms']:.4g} ms",
            f"{latency['median_low_ms']:.4g} to {latency['median_high_ms']:.4g} ms",
        ),
    ]
    if find_cost_unit() == INSTRUCTIONS:
        figures = [show_cost(side["latency"]["p50_ms"]) for side in (before, after)]
        costs = [
            ("times fewer instructions", "1", f"{report['speedup']:.2f}", ""),
            ("instructions", *figures, say_range(latency)),
        ]
    rows: list[Sequence[str]] = [
        *costs,
        (
            f"{metric.name} ({after['quality_samples']} inputs)",
            metric.describe(before["quality"]),
            metric.describe(after["quality"]),
            "",
        ),
    ]
    if (energy := after.get("energy") or {}).get("energy_mj") is not None:
        spent = (before.get("energy") or {}).get("energy_mj")
        ends = f"± {energy['uncertainty_mj']:.2g} mJ"
        shown = "-" if spent is None else f"{spent:.4g} mJ"
        rows.append(("energy above idle", shown, f"{energy['energy_mj']:.4g} mJ", ends))
    return rows


def _gate(row: Mapping[str, Any]) -> Sequence[str]:
    reason = row["reason"] if len(row["reason"]) <= MOST_LETTERS else f"{row['reason'][:MOST_LETTERS]}..."
    return (row["gate"], f"{MARKS[row['outcome']]} {row['outcome']}", reason)


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _code(command: str) -> str:
    """A command as code: backticks in it would end it."""
    return f"`{make_printable(command).replace('`', '?')}`"
