"""The report of a run as one HTML page that needs nothing else: verdict and figures first, then what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeprune.core.cost import INSTRUCTIONS, MS, costs_in, find_cost_unit, say_cost, show_cost
from edgeprune.core.measuring.measurement import Measurement
from edgeprune.core.metric import HIGHER, Metric, parse_metric
from edgeprune.core.planning.budget import Budget
from edgeprune.core.releasing.document import describe_conditions
from edgeprune.core.releasing.gate import FAIL, INCONCLUSIVE, PASS
from edgeprune.report.cuts import describe_cut, render_cuts
from edgeprune.report.front import render_front
from edgeprune.report.heat import describe_heat, render_heat
from edgeprune.report.layout import KeyFigure, Page, Section, render_page
from edgeprune.report.losses import render_losses
from edgeprune.report.records import (
    render_artifacts,
    render_conditions,
    render_figures,
    render_gates,
    render_notes,
    render_parity,
    render_provenance,
)
from edgeprune.report.timing import render_counts, render_timing
from edgeprune.report.words import count_of, say_interval

HEADLINES = {PASS: "Passed", FAIL: "Failed", INCONCLUSIVE: "Inconclusive: neither passed nor failed"}

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """What a run has beside report.json: both files as they were measured last, the front of other budgets, and the
    whole explanation; None where it has none.
    """

    before: Measurement
    after: Measurement
    front: Mapping[str, Any] | None = None
    explanation: Mapping[str, Any] | None = None


def render_report(report: Report, evidence: Evidence) -> str:
    """HTML of a report document (docs/report.md)."""
    with costs_in(report.get("unit", MS)):
        return _render(report, evidence)


def _render(report: Report, evidence: Evidence) -> str:
    metric, device = parse_metric(report["metric"]), report["device"]
    title = f"{report['recipe']} on {report['target']}"
    return render_page(
        Page(
            title=title,
            lead=f"{device['cpu'] or device['machine']}, {device['host']}; {report['runtime']}; {report['created']}",
            headline=_say_headline(report),
            outcome=report["verdict"],
            reasons=_say_reasons(report, evidence),
            figures=(_speedup_figure(report), _latency_figure(report), _quality_figure(report, metric)),
            sections=_make_sections(report, evidence, metric),
        )
    )


def _make_sections(report: Report, evidence: Evidence, metric: Metric) -> tuple[Section, ...]:
    explanation = evidence.explanation or report.get("explanation")
    notes = (Section("Notes", render_notes(report["notes"])),) if report["notes"] else ()
    return (
        Section("Gates", render_gates(report)),
        *notes,
        Section("Before and after", render_figures(report, metric)),
        Section("What was cut", render_cuts(report, explanation)),
        Section("What could have been chosen", render_front(report, evidence.front, metric)),
        *_make_cost_sections(report, evidence),
        Section("What was lost", render_losses(explanation)),
        Section("Files", render_artifacts(report["artifacts"], metric)),
        Section("Parity", render_parity(report["parity"])),
        Section("Conditions", render_conditions(report)),
        Section("Provenance", render_provenance(report)),
    )


def _make_cost_sections(report: Report, evidence: Evidence) -> tuple[Section, ...]:
    """What was measured of both files, and whether the board was hot; or what was counted of them."""
    pair = {"before": evidence.before, "after": evidence.after}
    if find_cost_unit() == INSTRUCTIONS:
        return (Section("Instructions", render_counts(pair)),)
    latencies = {"before": report["baseline"]["latency"], "after": report["result"]["latency"]}
    conditions = describe_conditions(evidence.before), report["conditions"]
    timing, heat = render_timing(pair, latencies), render_heat(*conditions)
    return Section("Latency", timing), Section("Was the board hot", heat)


def _say_headline(report: Report) -> str:
    outcomes = [row["outcome"] for row in report["gates"]]
    held = f"{outcomes.count(PASS)} of {count_of(len(outcomes), 'gate')} held" if outcomes else "there was no gate"
    return f"{HEADLINES[report['verdict']]}: {held}"


def _say_reasons(report: Report, evidence: Evidence) -> tuple[str, ...]:
    """Why; what was cut; was the board hot."""
    gates = [row for row in report["gates"] if row["outcome"] != PASS] or report["gates"]
    if find_cost_unit() == INSTRUCTIONS:
        heat = "Instructions were counted in QEMU: no time, no energy and no cold start is known."
    else:
        heat, _ = describe_heat([describe_conditions(evidence.before), report["conditions"]])
    return (*(_say_gate(row) for row in gates), describe_cut(report), heat)


def _say_gate(row: Mapping[str, Any]) -> str:
    value = "" if row["value"] is None else f", measured {row['value']:.5g}"
    return f"{row['gate']}: {row['outcome']}{value}. {row['reason'][:1].upper()}{row['reason'][1:]}."


def _speedup_figure(report: Report) -> KeyFigure:
    if find_cost_unit() == INSTRUCTIONS:
        detail = "those of the unpruned int8 file by those of the shipped one, counted in QEMU; no speed-up is known"
        return KeyFigure("times fewer instructions", f"{report['speedup']:.2f}", detail)
    low, high = report["speedup_interval"]
    doubtful = bool(report["baseline"]["problems"] or report["result"]["problems"])
    detail = (
        f"{_say_confidence(report)} interval {low:.3f} to {high:.3f}; median of the unpruned fp32 file over that of "
        f"the shipped one, measured in turns on {_say_device(report)}"
    )
    slower = "" if report["speedup"] >= 1 else "slower than before; "
    return KeyFigure("speed-up", f"{report['speedup']:.2f} times", _doubt(slower + detail, doubtful), doubtful)


def _latency_figure(report: Report) -> KeyFigure:
    before, after = report["baseline"]["latency"], report["result"]["latency"]
    budget = report["budget"]["latency_ms"]
    limit = "" if budget is None else f"; budget {say_cost(budget)}"
    if find_cost_unit() == INSTRUCTIONS:
        detail = f"{say_interval(after)}; {_say_file(report)}, {report['runtime']}; before {say_cost(before['p50_ms'])}"
        return KeyFigure("instructions", show_cost(after["p50_ms"]), detail + limit)
    threads = count_of(report["conditions"]["threads"], "thread")
    tail = "not told" if after["p95_ms"] is None else say_cost(after["p95_ms"])
    detail = (
        f"median, 95 % interval {say_interval(after)}; p95 {tail}; {_say_file(report)}, "
        f"{report['runtime']}, {threads}; before {say_cost(before['p50_ms'])} ({say_interval(before)}){limit}"
    )
    doubtful = bool(report["result"]["problems"])
    return KeyFigure("latency", say_cost(after["p50_ms"]), _doubt(detail, doubtful), doubtful)


def _quality_figure(report: Report, metric: Metric) -> KeyFigure:
    before, after = report["baseline"]["quality"], report["result"]["quality"]
    better = "higher is better" if metric.better == HIGHER else "lower is better"
    samples = report["result"].get("quality_samples")
    inputs = f" on {count_of(samples, 'input')}" if samples else ""
    detail = f"before {metric.describe(before)}; {better};{inputs} in the runtime on the device"
    if before is None or after is None:
        return KeyFigure(metric.name, metric.describe(after), f"no finite number; {detail}", True)
    drop = metric.drop(after, before)
    change = "the same" if drop == 0 else f"{abs(drop):.3g} {metric.drop_unit} {'worse' if drop > 0 else 'better'}"
    return KeyFigure(metric.name, metric.describe(after), f"{' '.join(change.split())}; {detail}")


def _say_device(report: Report) -> str:
    device = report["device"]
    return f"{device['cpu'] or device['machine']} ({device['host']})"


def _say_file(report: Report) -> str:
    row: Mapping[str, Any] = next((row for row in report["artifacts"] if row.get("shipped")), {})
    return f"{report['result']['artifact']}{' (' + row['precision'] + ')' if 'precision' in row else ''}"


def _say_confidence(report: Report) -> str:
    """That of intervals which gates on latency look at: more than usual where the budget asks for more."""
    budget = Budget(confidence=report["budget"].get("asked_confidence"))
    return f"{100 * budget.gate_confidence:.4g} %"


def _doubt(detail: str, doubtful: bool) -> str:
    return f"NOT VALID, decides nothing. {detail[:1].upper()}{detail[1:]}" if doubtful else detail
