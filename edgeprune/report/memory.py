"""The memory of a net over its steps as a page: where each tensor lies in the arena, and which targets hold it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.core.memory.arena import round_up
from edgeprune.core.memory.fit import FITS, TOO_BIG
from edgeprune.report.charts import ACCENT, AFTER, INK, Chart, colour_by, number_axis, render_chart, tooltip
from edgeprune.report.layout import KeyFigure, Page, Section, paragraph, render_page
from edgeprune.report.tables import Cell, Column, Table, render_table

AT_PEAK, ELSEWHERE = "alive at the peak", "other steps"
COLOURS = {AT_PEAK: ACCENT, ELSEWHERE: AFTER}
KINDS = {FITS: "pass", TOO_BIG: "fail"}
MAP_HEIGHT = 360
"""Of the picture, in px."""

Document = Mapping[str, Any]


def render_memory_page(document: Document) -> str:
    """HTML of what `edgeprune fit` tells (docs/json.md)."""
    name, arena = Path(document["file"]).name, document["arena"]
    holding = [row["name"] for row in document["targets"] if row["verdict"] == FITS]
    return render_page(
        Page(
            title=f"Memory of {name}",
            lead=f"arena {arena['counted_by']}, {arena['counter']}; batch 1",
            headline=f"fits {len(holding)} of {len(document['targets'])} targets",
            figures=_key_figures(document),
            sections=(
                Section("Arena over the steps", render_chart(draw_arena(document))),
                Section("Steps", render_table(_steps_table(document))),
                Section("Targets", render_table(_targets_table(document))),
                Section("Notes", "".join(map(paragraph, document["notes"]))),
            ),
        )
    )


def _key_figures(document: Document) -> tuple[KeyFigure, ...]:
    arena, peak, kept = document["arena"], document["peak"], document["arena"]["persistent_bytes"]
    beside = "what the interpreter keeps is not counted" if kept is None else f"{kept:,} kept by the interpreter"
    figures = (
        KeyFigure("arena", f"{arena['total_bytes']:,} B", f"{arena['activation_bytes']:,} for activations, {beside}"),
        KeyFigure("flash", f"{document['file_bytes']:,} B", "of the file; the code that runs it is not counted"),
    )
    if peak is None:
        return figures
    return (*figures, KeyFigure("peak", f"step {peak['step']}", f"{peak['op']}, {peak['alive_bytes']:,} bytes alive"))


def draw_arena(document: Document) -> Chart:
    """Each tensor as a box: its steps by its place in the arena; a line for what is alive."""
    boxes = [_draw_box(row, document["peak"]) for row in document["tensors"]]
    sums = [{"step": row["step"], "kib": row["alive_bytes"] / 1024} for row in document["steps"]]
    sums += [{**sums[-1], "step": len(sums)}] if sums else []
    steps = number_axis("first", "step", zero=True, axis={"format": "d", "tickMinStep": 1})
    place = number_axis("bottom_kib", "place in the arena, KiB", zero=True, lines=True)
    layers = [
        {
            "data": {"values": boxes},
            "mark": {"type": "rect", "stroke": INK, "strokeWidth": 0.5, "opacity": 0.75},
            "encoding": {
                "x": steps,
                "x2": {"field": "end"},
                "y": place,
                "y2": {"field": "top_kib"},
                "color": colour_by("state", COLOURS),
                "tooltip": tooltip(name="tensor", shape="shape", bytes="bytes", steps="steps"),
            },
        },
        {
            "data": {"values": sums},
            "mark": {"type": "line", "interpolate": "step-after", "stroke": INK, "strokeDash": [4, 3]},
            "encoding": {"x": {**steps, "field": "step"}, "y": {**place, "field": "kib"}},
        },
    ]
    columns = (Column("tensor", text=True), Column("steps"), Column("place, bytes"), Column("bytes"))
    rows = [
        (
            row["label"],
            f"{row['first_step']} to {row['last_step']}",
            Cell(f"{row['offset_bytes']:,}", row["offset_bytes"]),
            Cell(f"{row['bytes']:,}", row["bytes"]),
        )
        for row in document["tensors"]
    ]
    planned, count = document["arena"]["planned_bytes"], len(document["steps"])
    peak = document["peak"]
    where = f"; most at step {peak['step']} ({peak['op']})" if peak else ""
    return Chart(
        {"layer": layers, "height": MAP_HEIGHT},
        f"Where {len(boxes)} tensors lie in an arena of {planned:,} bytes over {count} steps{where}",
        Table(columns, rows),
        "Each box is a tensor: as wide as the steps in which it is alive, as high as its bytes. The dashed line is "
        "what is alive in a step; where boxes reach above it, gaps lie between them.",
    )


def _draw_box(row: Document, peak: Document | None) -> dict[str, Any]:
    is_at_peak = peak is not None and row["first_step"] <= peak["step"] <= row["last_step"]
    top = row["offset_bytes"] + round_up(row["bytes"])
    return {
        "name": row["label"],
        "shape": "x".join(map(str, row["shape"])) if row["shape"] is not None else "scratch",
        "bytes": row["bytes"],
        "steps": f"{row['first_step']} to {row['last_step']}",
        "first": row["first_step"],
        "end": row["last_step"] + 1,
        "bottom_kib": row["offset_bytes"] / 1024,
        "top_kib": top / 1024,
        "state": AT_PEAK if is_at_peak else ELSEWHERE,
    }


def _steps_table(document: Document) -> Table:
    columns = (Column("step"), Column("operator", text=True), Column("bytes alive"), Column("tensors", text=True))
    peak = document["peak"]["step"] if document["peak"] else None
    labels = {row["name"]: row["label"] for row in document["tensors"]}
    rows = [
        (
            str(row["step"]),
            row["op"],
            Cell(f"{row['alive_bytes']:,}", row["alive_bytes"]),
            ", ".join(labels[name] for name in row["tensors"]),
        )
        for row in document["steps"]
    ]
    return Table(columns, rows, marked=frozenset() if peak is None else frozenset({peak}))


def _targets_table(document: Document) -> Table:
    columns = (
        Column("target", text=True),
        Column("verdict", text=True),
        Column("SRAM"),
        Column("SRAM left"),
        Column("flash"),
        Column("flash left"),
        Column("reason", text=True),
    )
    keys = ("sram_bytes", "sram_left_bytes", "flash_bytes", "flash_left_bytes")
    rows = [
        (
            row["name"],
            Cell(row["verdict"], kind=KINDS.get(row["verdict"], "")),
            *(Cell(f"{row[key]:,}", row[key]) for key in keys),
            row["reason"] or "",
        )
        for row in document["targets"]
    ]
    return Table(columns, rows)
