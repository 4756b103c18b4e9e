"""The report as one HTML page that needs nothing else: figures, distributions, what was cut and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from edgeprune.core.metric import Metric, parse_metric
from edgeprune.core.summary import describe_choice, describe_width, doubt, figures_rows

STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --paper: #fff; --soft: #6b7a89; --line: #dde3e9;
  --before: #94a3b4; --after: #0f7b6c; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --paper: #151b21; --soft: #93a1af; --line: #2c3640;
  --before: #6d7d8d; --after: #3bb7a3; --bad: #f2887f; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
p.lead { color: var(--soft); margin-top: 0; } .verdict { font-weight: 700; }
.pass { color: var(--after); } .fail { color: var(--bad); } .inconclusive { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 600; }
td.text, th.text { text-align: left; } .scroll { overflow-x: auto; } code { font-size: .9em; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
"""


def render_page(report: Mapping[str, Any], samples: Mapping[str, Sequence[float]]) -> str:
    """HTML of a report document; `samples` holds the latency samples in ms of "before" and "after"."""
    verdict, device, metric = escape(report["verdict"]), report["device"], parse_metric(report["metric"])
    doubtful = doubt((report["baseline"], report["result"]))
    parts = [
        f"<h1>{escape(report['recipe'])} on {escape(report['target'])}</h1>",
        f"<p class=lead>{escape(device['cpu'])}, {escape(device['host'])} · {escape(report['runtime'])} · "
        f"{escape(report['created'])}</p>",
        f"<p>Verdict <span class='verdict {verdict}'>{verdict}</span> by {escape(report['judged_by'])}; "
        f"speed-up <b>{report['speedup']:.2f}{doubtful}</b> "
        f"(95 % interval {report['speedup_interval'][0]:.2f} to {report['speedup_interval'][1]:.2f}), "
        "both artifacts measured in turns on that device.</p>",
        _section("Before and after", _result_table(report, metric)),
        _section("Latency, every sample", _distribution(samples)),
        _section(
            "Gates",
            _table(("gate", "outcome", "why"), [(g["gate"], g["outcome"], g["reason"]) for g in report["gates"]]),
        ),
        _section("What was cut, and why", _plan(report["plan"])),
        _section("Artifacts", _artifacts(report["artifacts"], metric)),
        _section("Parity", _parity(report["parity"])),
        _section("Conditions", _pairs({**report["conditions"], **{f"device {k}": v for k, v in device.items()}})),
    ]
    if report["notes"]:
        parts.append(_section("Notes", "".join(f"<p>{escape(note)}</p>" for note in report["notes"])))
    title = f"{escape(report['recipe'])} on {escape(report['target'])}: {verdict}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{STYLE}</style>{''.join(parts)}</html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2><div class=scroll>{body}</div>"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], text: int = 0) -> str:
    """A table; the last `text` columns hold prose."""
    kinds = ["" if column < len(head) - text else " class=text" for column in range(len(head))]
    cells = [f"<th{kind}>{escape(name)}</th>" for name, kind in zip(head, kinds, strict=True)]
    lines = [
        "<tr>" + "".join(f"<td{kind}>{escape(str(cell))}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    ]
    return f"<table><tr>{''.join(cells)}</tr>{''.join(lines)}</table>"


def _result_table(report: Mapping[str, Any], metric: Metric) -> str:
    rows = [(name.strip(), cell(report["baseline"]), cell(report["result"])) for name, cell in figures_rows(metric)]
    return _table(("", "before", "after"), rows)


def _plan(plan: Mapping[str, Any]) -> str:
    width, row = 640, 24
    bars = []
    for index, group in enumerate(plan["groups"]):
        share = 0.0 if group.get("gone_with") else len(group["keep"]) / group["size"]
        top = index * row
        bars.append(
            f"<text x=0 y={top + 15}>{escape(group['group'])}</text>"
            f"<rect x=200 y={top + 4} width=360 height=14 fill='var(--line)'/>"
            f"<rect x=200 y={top + 4} width={360 * share:.1f} height=14 fill='var(--after)'/>"
            f"<text x=570 y={top + 15}>{describe_width(group)}</text>"
        )
    picture = f"<svg viewBox='0 0 {width} {row * len(plan['groups'])}' role=img>{''.join(bars)}</svg>"
    rows = [(g["group"], describe_width(g), f"{g['loss_increase']:.4f}", g["reason"]) for g in plan["groups"]]
    return picture + _table(("group", "channels", "loss rise", "why"), rows, text=1)


def _artifacts(rows: Sequence[Mapping[str, Any]], metric: Metric) -> str:
    cells = [
        (
            row["path"] + (f" ({choice})" if (choice := describe_choice(row)) else ""),
            metric.describe(row.get("quality")),
            f"{row['latency']['p50_ms']:.4g}" if row.get("latency") else "-",
            f"{row['latency']['p95_ms']:.4g}" if row.get("latency") else "-",
            f"{row['bytes']:,}",
            row["scheme"],
            row["sha256"][:16],
        )
        for row in rows
    ]
    return _table(("file", metric.name, "p50 ms", "p95 ms", "bytes", "scheme", "sha256"), cells, text=2)


def _parity(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        (
            row["link"],
            f"{row['max_error']:.2e}",
            f"{row['sqnr_db']:.1f}",
            f"{row['top1_agreement']:.2%}" if row["top1_agreement"] is not None else "-",
        )
        for row in rows
    ]
    return _table(("link", "largest error", "SQNR dB", "same top-1"), cells)


def _pairs(values: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in values.items() if value not in (None, "", [], ())}
    return _table(("", "value"), [(name, _plain(value)) for name, value in shown.items()], text=1)


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(dict.fromkeys(map(_plain, value)))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _distribution(samples: Mapping[str, Sequence[float]]) -> str:
    """Histograms of the samples of both files on one axis; what lies far beyond the medians is counted in words."""
    width, height, margin, bins = 640, 150, 20, 120
    span = width - 2 * margin
    top = max(2.0 * float(np.median(values)) for values in samples.values())
    edges = np.linspace(0, top, bins + 1)
    marks, beyond = [], []
    for row, (name, values) in enumerate(samples.items()):
        counts, _ = np.histogram(values, edges)
        heights = counts / max(1, counts.max()) * (height - 40)
        bars = "".join(
            f"<rect x={margin + place * span / bins:.1f} y={height - tall:.1f} "
            f"width={span / bins:.1f} height={tall:.1f} />"
            for place, tall in enumerate(heights)
            if tall > 0
        )
        median = float(np.median(values))
        marks.append(f"<g fill='var(--{name})' fill-opacity=.75>{bars}</g>")
        marks.append(
            f"<text x={margin + median / top * span:.1f} y={12 + 16 * row} text-anchor=middle>"
            f"{name} {median:.3g} ms</text>"
        )
        above = int(np.sum(np.asarray(values) > top))
        beyond.append(f"{name}: {len(values):,} samples, {above:,} above {top:.3g} ms, slowest {max(values):.3g} ms")
    ticks = "".join(
        f"<text x={margin + share * span:.1f} y={height + 16} text-anchor=middle>{share * top:.3g}</text>"
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    axis = f"<line x1={margin} x2={width - margin} y1={height} y2={height} stroke='var(--line)'/>"
    picture = f"<svg viewBox='0 0 {width} {height + 24}' role=img>{''.join(marks)}{axis}{ticks}</svg>"
    return f"{picture}<p class=lead>{'; '.join(beyond)}</p>"
