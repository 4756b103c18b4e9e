"""Texts for the terminal, made from a report document: the table of before and after, and the plan."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.core.cost import INSTRUCTIONS, find_cost_unit, say_cost, say_ratio, show_cost
from edgeprune.core.measuring.tails import note_tails
from edgeprune.core.metric import HIGHER, Metric, parse_metric
from edgeprune.core.planning.plan import BRANCH
from edgeprune.core.releasing.regression import render_regressions
from edgeprune.core.text import render_columns

Row = tuple[str, Callable[[Mapping[str, Any]], str]]


def _figure(value: float | None, pattern: str, nothing: str = "-") -> str:
    return nothing if value is None else pattern.format(value)


def _cost(value: float | None) -> str:
    return f"- {find_cost_unit()}" if value is None else say_cost(value)


def figures_rows(metric: Metric) -> tuple[Row, ...]:
    """What is told of one file, a line each."""
    better = "" if metric.better == HIGHER else ", lower is better"
    return (
        ("artifact", lambda row: str(row["artifact"])),
        (f"{metric.name} (in the runtime{better})", lambda row: metric.describe(row["quality"])),
        *((*COUNTED, *SIZED) if find_cost_unit() == INSTRUCTIONS else (*TIMED, *SIZED, *CLOCKED)),
        ("run", lambda row: describe_run(row["problems"])),
    )


def _energy(row: Mapping[str, Any]) -> str:
    energy = row.get("energy") or {}
    if energy.get("energy_mj") is None:
        return str(row["power"])
    return f"{energy['energy_mj']:.4g} ± {energy['uncertainty_mj']:.2g} mJ ({row['power']})"


def _size(row: Mapping[str, Any]) -> str:
    return f"{row['file_bytes'] / 1024:.1f} KiB"


def _inputs(row: Mapping[str, Any]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in row.get("inputs", {}).values()) or "not told"


def _processor(row: Mapping[str, Any]) -> str:
    processor = row.get("processor") or {}
    if processor.get("waited_share") is None:
        return "not told"
    return f"{100 * (1 - processor['waited_share']):.1f} % ({processor['disturbed_windows']} of {processor['windows']})"


TIMED: tuple[Row, ...] = (
    ("latency p50", lambda row: f"{row['latency']['p50_ms']:.4g} ms"),
    (
        "  95 % interval of p50",
        lambda row: f"{row['latency']['median_low_ms']:.4g} to {row['latency']['median_high_ms']:.4g} ms",
    ),
    ("latency p95", lambda row: _figure(row["latency"]["p95_ms"], "{:.4g} ms", "not told")),
    ("spread (MAD)", lambda row: f"{row['latency']['mad_ms']:.2g} ms"),
    ("predicted latency", lambda row: _figure(row.get("predicted_ms"), "{:.4g} ms")),
    ("first run / load", lambda row: f"{row['first_ms']:.3g} / {row['init_ms']:.3g} ms"),
)
"""What a board that times tells of a file."""
COUNTED: tuple[Row, ...] = (
    ("instructions (median over inputs)", lambda row: f"{row['latency']['p50_ms']:,.0f}"),
    ("  range over inputs", lambda row: say_range(row["latency"])),
    ("predicted instructions", lambda row: _figure(row.get("predicted_ms"), "{:,.0f}")),
)
"""What a board that counts tells of a file; nothing varies but with the input, so there is no interval."""
SIZED: tuple[Row, ...] = (
    ("file size", _size),
    ("parameters", lambda row: f"{row['parameters']:,}"),
    ("multiply-accumulates", lambda row: f"{row['macs']:,}"),
    ("largest activations", lambda row: f"{row['activation_bytes'] / 1024:.1f} KiB"),
)
CLOCKED: tuple[Row, ...] = (
    ("peak memory", lambda row: _figure(row["peak_memory_mib"], "{:.1f} MiB")),
    ("energy above idle", _energy),
    ("input sizes", _inputs),
    ("had a core (windows disturbed)", _processor),
)


def say_range(latency: Mapping[str, Any]) -> str:
    """The least and the most instructions over the inputs that were counted, or the one number that there is."""
    low, high = f"{latency['min_ms']:,.0f}", f"{latency['max_ms']:,.0f}"
    return low if low == high else f"{low} to {high}"


def describe_run(problems: Sequence[str]) -> str:
    """Whether the run behind figures may be believed."""
    return "NOT VALID" if problems else "valid"


def render_result(report: Mapping[str, Any]) -> str:
    """The table that ends a deployment: the unpruned fp32 artifact beside the shipped one."""
    columns, metric = _columns(report), parse_metric(report["metric"])
    rows = figures_rows(metric)
    table = [("", "before", "after"), *((name, *(cell(column) for column in columns)) for name, cell in rows)]
    lines = [
        render_columns(table),
        "",
        _say_ratio(report, doubt(columns)),
        "",
        render_artifacts(report["artifacts"], metric),
        "",
        *([f"judged by {report['judged_by']}"] if report["gates"] else []),
        *(f"gate {row['outcome']:<12} {row['gate']}: {row['reason']}" for row in own_gates(report)),
        *(["", render_regressions(report["against"]), ""] if report.get("against") else []),
        *(f"note: {note}" for note in report["notes"]),
        f"verdict: {report['verdict']}",
    ]
    return "\n".join(lines)


def _say_ratio(report: Mapping[str, Any], doubt: str) -> str:
    """By how much the shipped file is faster, or takes fewer instructions, and where that was found."""
    device, ratio = report["device"], report["speedup"]
    if find_cost_unit() == INSTRUCTIONS:
        return (
            f"{say_ratio(ratio)}, counted in QEMU ({device['machine']}, {device['cpu']}), no time; {report['runtime']}"
        )
    low, high = report["speedup_interval"]
    return (
        f"speed-up {ratio:.2f}{doubt} (95 % interval {low:.2f} to {high:.2f}), measured in turns on {device['host']}: "
        f"{device['cpu']}, {report['runtime']}, {report['conditions']['threads']} thread(s)"
    )


def name_next(report: Mapping[str, Any], directory: Path) -> str:
    """The command that follows a run that passed: a release, or a project where no board was there to release to."""
    if report.get("unit") != INSTRUCTIONS:
        return f"edgeprune release push --run {shlex.quote(str(directory))} --activate"
    file, core = directory / report["result"]["artifact"], report["device"]["cpu"]
    form = "tflm --output net-tflm" if report["target_runtime"] == "tflm" else f"c --core {core} --output net-c"
    return f"edgeprune export {shlex.quote(str(file))} --format {form}"


def own_gates(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The gates of the run itself, which a report has before those against a baseline."""
    rows, against = report["gates"], report.get("against")
    return list(rows[: len(rows) - len(against["rows"])] if against else rows)


def doubt(columns: Sequence[Mapping[str, Any]]) -> str:
    """What is said behind a ratio of figures, where a run behind it is not valid."""
    return ", NOT VALID" if any(column["problems"] for column in columns) else ""


def render_artifacts(rows: Sequence[Mapping[str, Any]], metric: Metric) -> str:
    """Every exported file with what was measured of it, which one ships, and which is the fastest that is valid."""
    is_counted = find_cost_unit() == INSTRUCTIONS
    costs = ("instructions",) if is_counted else ("p50 ms", "p95 ms")
    table: list[tuple[str, ...]] = [("file", metric.name, *costs, "KiB", "choice")]
    for row in rows:
        latency = row.get("latency")
        table.append(
            (
                row["path"],
                metric.describe(row.get("quality")),
                show_cost(latency["p50_ms"]) if latency else "-",
                *(() if is_counted else (_figure(latency["p95_ms"], "{:.4g}") if latency else "-",)),
                f"{row['bytes'] / 1024:.1f}",
                describe_choice(row),
            )
        )
    return "\n".join([render_columns(table), *note_tails(rows)])


def describe_choice(row: Mapping[str, Any]) -> str:
    """Whether a report's artifact ships, is the fastest of those that may be believed, is inaccurate or wrong."""
    words = {"shipped": row.get("shipped"), "fastest": row.get("fastest"), "inaccurate": row.get("accurate") is False}
    doubtful = "not valid at first, measured again" if row.get("confirmed") else "not valid"
    words |= {"refused": row.get("refused"), doubtful: row.get("problems")}
    return ", ".join(word for word, true in words.items() if true)


def render_plan(plan: Mapping[str, Any]) -> str:
    """What was cut and why, a group a line."""
    table = [("group", "channels", "loss rise", "why")]
    for row in plan["groups"]:
        table.append((row["group"], describe_width(row), f"{row['loss_increase']:.4f}", row["reason"]))
    head = (
        f"predicted {_cost(plan['predicted_ms'])} for a budget of {_cost(plan['budget_ms'])}, "
        f"loss rise {plan['loss_increase']:.4f} before fine-tuning, proven within {plan['gap']:.2%} of the optimum"
    )
    return "\n".join([head, render_columns(table), *plan["notes"]])


def render_front(document: Mapping[str, Any]) -> str:
    """The least loss rise at several budgets, a budget a line."""
    slowest = max(point["latency_ms"] for point in document["front"])
    rows = [(find_cost_unit(), "of the whole net", "loss rise")]
    rows += [
        (show_cost(point["latency_ms"]), f"{point['latency_ms'] / slowest:.0%}", f"{point['loss_increase']:.4f}")
        for point in document["front"]
    ]
    return f"least loss rise by budget, before fine-tuning, {document['origin']}\n{render_columns(rows)}"


def describe_width(row: Mapping[str, Any]) -> str:
    """What is left of a plan's group, for people."""
    if row.get("gone_with"):
        return f"0 of {row['size']}"
    if row["kind"] == BRANCH:
        return "kept" if row["keep"] else "cut"
    return f"{len(row['keep'])} of {row['size']}"


def _columns(report: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return report["baseline"], report["result"]
