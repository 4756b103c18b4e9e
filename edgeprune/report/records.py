"""What a report rests on: every file, the parity chain, conditions, and where all of it comes from."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from edgeprune.core.cost import INSTRUCTIONS, find_cost_unit, median_cost, show_cost
from edgeprune.core.measuring.tails import note_tails
from edgeprune.core.metric import Metric
from edgeprune.core.summary import describe_choice, figures_rows
from edgeprune.report.layout import paragraph
from edgeprune.report.tables import Cell, Column, Table, render_table
from edgeprune.report.words import BEFORE_AFTER, say_plainly

CONDITIONS_ELSEWHERE = frozenset(
    {"temperature_c", "frequency_mhz", "throttled", "too_warm_c", "governor", "arithmetic_us", "load_average", "notes"}
)
"""What the section on heat shows."""
NOT_SHOWN = frozenset({"cpu_flags"})

IN_LIMITS = {True: ("yes", "pass"), False: ("no", "fail"), None: ("not known", "")}

Rows = Sequence[Mapping[str, Any]]


def render_figures(report: Mapping[str, Any], metric: Metric) -> str:
    """Every figure of the unpruned file beside that of what ships."""
    rows = [(name.strip(), cell(report["baseline"]), cell(report["result"])) for name, cell in figures_rows(metric)]
    columns = (Column("", text=True), *(Column(name) for name in BEFORE_AFTER))
    return render_table(Table(columns, rows, sorts=False))


def render_gates(report: Mapping[str, Any]) -> str:
    """Every gate with its outcome, what was measured, and why."""
    if not report["gates"]:
        return paragraph("No gate was asked for, and no budget: nothing was judged.")
    columns = (
        Column("gate", text=True),
        Column("outcome", text=True),
        Column("measured"),
        Column("why", text=True, wide=True),
    )
    rows = [
        (
            row["gate"],
            Cell(row["outcome"], kind=row["outcome"]),
            "-" if row["value"] is None else Cell(f"{row['value']:.5g}", row["value"]),
            row["reason"],
        )
        for row in report["gates"]
    ]
    return paragraph(f"Judged by {report['judged_by']}.") + render_table(Table(columns, rows))


def render_artifacts(rows: Rows, metric: Metric) -> str:
    """Every exported file, the one that ships marked."""
    is_counted = find_cost_unit() == INSTRUCTIONS
    columns = (
        Column("file", text=True),
        Column(metric.name),
        Column(median_cost()),
        *(() if is_counted else (Column("p95 ms"),)),
        Column("bytes"),
        Column("choice", text=True),
        Column("scheme", text=True, wide=True),
        Column("sha256", text=True),
    )
    cells = [
        (
            row["path"].removeprefix("artifacts/"),
            Cell(metric.describe(row.get("quality")), row.get("quality")),
            *(_latency_cell(row, name) for name in (("p50_ms",) if is_counted else ("p50_ms", "p95_ms"))),
            Cell(f"{row['bytes']:,}", row["bytes"]),
            describe_choice(row),
            row["scheme"],
            row["sha256"][:16],
        )
        for row in rows
    ]
    ships = frozenset(place for place, row in enumerate(rows) if row.get("shipped"))
    notes = "".join(paragraph(f"{note}.", "soft") for note in note_tails(rows))
    return render_table(Table(columns, cells, marked=ships)) + notes


def _latency_cell(row: Mapping[str, Any], name: str) -> str | Cell:
    latency = row.get("latency")
    return Cell(show_cost(latency[name]), latency[name]) if latency and latency.get(name) is not None else "-"


def render_parity(rows: Rows) -> str:
    """Each link of the chain from torch to what runs on the device, with its limits."""
    if not rows:
        return paragraph("No file was compared with the net that it was made from.")
    columns = (
        Column("link", text=True),
        Column("within its limits", text=True),
        Column("largest error"),
        Column("SQNR dB"),
        Column("same top-1"),
        Column("needed", text=True),
    )
    cells = [_parity_cells(row) for row in rows]
    wrong = [row for row in rows if row.get("ok") is False]
    text = f"{len(rows) - len(wrong)} of {len(rows)} links are within their limits."
    collapses = "".join(paragraph(f"{row['link']}: {row['collapse']}", "bad") for row in wrong if row.get("collapse"))
    return paragraph(text, "bad" if wrong else "") + collapses + render_table(Table(columns, cells))


def _parity_cells(row: Mapping[str, Any]) -> tuple[str | Cell, ...]:
    agreement, error, sqnr_db = row.get("top1_agreement"), row["max_error"], row["sqnr_db"]
    words = IN_LIMITS[row.get("ok")]
    return (
        row["link"],
        Cell(words[0], kind=words[1]),
        Cell(f"{error:.2e}", error),
        Cell(f"{sqnr_db:.1f}", sqnr_db),
        "-" if agreement is None else Cell(f"{agreement:.2%}", agreement),
        str(row.get("tolerance", "")),
    )


def render_conditions(report: Mapping[str, Any]) -> str:
    """Under what the shipped file was measured, and on what."""
    conditions = {name: value for name, value in report["conditions"].items() if name not in CONDITIONS_ELSEWHERE}
    device = {name: value for name, value in report["device"].items() if name not in NOT_SHOWN}
    return _render_pairs({**conditions, **{f"device {name}": value for name, value in device.items()}})


def _render_pairs(values: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in values.items() if value not in (None, "", [], (), {})}
    rows = [(name.replace("_", " "), say_plainly(value)) for name, value in shown.items()]
    return render_table(Table((Column("", text=True), Column("value", text=True, wide=True)), rows, sorts=False))


def render_provenance(report: Mapping[str, Any]) -> str:
    """What made the files, of what, and how to make them again."""
    provenance = report.get("provenance") or {}
    request = provenance.get("request") or {}
    result: Mapping[str, Any] = next((row for row in report["artifacts"] if row.get("shipped")), {})
    values = {
        "edgeprune": report["edgeprune"],
        "python": provenance.get("python"),
        "libraries": provenance.get("libraries"),
        "runtime on the device": report["runtime"],
        "written": report["created"],
        "run directory": provenance.get("run"),
        "shipped file": result.get("path"),
        "shipped file sha256": result.get("sha256"),
        "recipe sha256": provenance.get("recipe_sha256"),
        "traced model sha256": provenance.get("model_sha256") or report["plan"].get("model_sha256"),
        "plan sha256": provenance.get("plan_sha256"),
        "history": provenance.get("history"),
    }
    command = f"<p>Asked for with: <code>{escape(write_command(request))}</code></p>" if request else ""
    return command + _render_pairs(values)


def write_command(request: Mapping[str, Any]) -> str:
    """The command line that asks for the same, for a shell."""
    words = ["edgeprune", "deploy"]
    for name, value in request.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value not in (None, False):
            words += [option, str(value)]
    return shlex.join(words)


def render_notes(notes: Sequence[str]) -> str:
    """What a reader must know."""
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"
