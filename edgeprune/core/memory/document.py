"""What `edgeprune fit` tells of a file: one document, and its text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.core.memory.arena import Buffer, round_up
from edgeprune.core.memory.fit import FileNeeds, Fit, judge_fit
from edgeprune.core.memory.size import MemorySize
from edgeprune.core.memory.timeline import Timeline
from edgeprune.core.text import make_printable, render_columns

NOT_COUNTED = (
    "What is left has to hold what is not counted: the code of TensorFlow Lite Micro and its operators (flash), the "
    "stack and the program's own data (SRAM)."
)


def describe_fit(
    file: str, needs: FileNeeds, memories: Mapping[str, MemorySize], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Everything that is known of a file's memory, and how it fits each of some memories by name of the target."""
    timeline, arena = needs.timeline, needs.arena
    return {
        "file": file,
        "file_bytes": needs.file_bytes,
        "arena": {
            "total_bytes": arena.total_bytes,
            "activation_bytes": arena.activation_bytes,
            "persistent_bytes": arena.persistent_bytes,
            "planned_bytes": timeline.arena.peak_bytes,
            "counted_by": arena.counted_by,
            "counter": arena.counter,
        },
        "peak": _describe_step(timeline, timeline.arena.peak_step) if timeline.steps else None,
        "steps": [_describe_step(timeline, step) for step in range(len(timeline.steps))],
        "operators": [{"op": op, "count": count} for op, count in Counter(s.op for s in timeline.steps).items()],
        "tensors": [_describe_buffer(timeline, buffer) for buffer in timeline.buffers],
        "targets": [_describe_target(name, size, judge_fit(needs, size)) for name, size in memories.items()],
        "notes": [*_compare_counts(needs), *notes, NOT_COUNTED],
    }


def _describe_step(timeline: Timeline, step: int) -> dict[str, Any]:
    return {
        "step": step,
        "op": timeline.steps[step].op,
        "alive_bytes": timeline.arena.alive_bytes[step],
        "tensors": [buffer.name for buffer in timeline.list_alive(step)],
    }


def _describe_buffer(timeline: Timeline, buffer: Buffer) -> dict[str, Any]:
    activation = timeline.tensors.get(buffer.name)
    return {
        "name": buffer.name,
        "label": timeline.labels[buffer.name],
        "type": activation.type if activation else None,
        "shape": list(activation.shape) if activation else None,
        "bytes": buffer.size_bytes,
        "offset_bytes": timeline.arena.offsets[buffer.name],
        "first_step": buffer.first,
        "last_step": buffer.last,
    }


def _describe_target(name: str, size: MemorySize, fit: Fit) -> dict[str, Any]:
    return {
        "name": name,
        "verdict": fit.verdict,
        "reason": fit.reason or None,
        "sram_bytes": size.sram_bytes,
        "sram_left_bytes": fit.sram_left_bytes,
        "flash_bytes": size.flash_bytes,
        "flash_left_bytes": fit.flash_left_bytes,
    }


def _compare_counts(needs: FileNeeds) -> list[str]:
    """Where the interpreter takes more or less for activations than the plan here has."""
    planned = needs.timeline.arena.peak_bytes
    if planned == needs.arena.activation_bytes:
        return []
    return [
        f"The interpreter takes {needs.arena.activation_bytes:,} bytes for activations where {planned:,} are planned "
        "here: an operator asks for a buffer that is not known here."
    ]


def render_fit(document: Mapping[str, Any]) -> str:
    """The document as text."""
    return make_printable_lines(
        [*_render_arena(document), "", *_render_peak(document), "", *_render_targets(document), "", *document["notes"]]
    )


def make_printable_lines(lines: Sequence[str]) -> str:
    """Lines in one text; names in them come out of a file, and steer no terminal."""
    return "\n".join(make_printable(line) for text in lines for line in text.split("\n"))


def _render_arena(document: Mapping[str, Any]) -> list[str]:
    arena, parts = document["arena"], [f"{document['arena']['activation_bytes']:,} for activations"]
    kept = arena["persistent_bytes"]
    parts.append("what the interpreter keeps is not counted" if kept is None else f"{kept:,} kept by the interpreter")
    return [
        f"{document['file']}: {document['file_bytes']:,} bytes of flash for the file",
        f"arena: {arena['total_bytes']:,} bytes, {arena['counted_by']}; {arena['counter']}",
        f"  {', '.join(parts)}",
    ]


def _render_peak(document: Mapping[str, Any]) -> list[str]:
    peak, tensors = document["peak"], {row["name"]: row for row in document["tensors"]}
    if peak is None:
        return ["no operators"]
    rows = [("alive at the peak", "type", "shape", "bytes")]
    for name in peak["tensors"]:
        row = tensors[name]
        shape = "x".join(map(str, row["shape"])) if row["shape"] is not None else ""
        rows.append((row["label"], row["type"] or "scratch", shape, f"{round_up(row['bytes']):,}"))
    gaps = document["arena"]["planned_bytes"] - peak["alive_bytes"]
    if gaps > 0:
        rows.append(("gaps between tensors", "", "", f"{gaps:,}"))
    return [f"peak: step {peak['step']} ({peak['op']}), {peak['alive_bytes']:,} bytes alive", render_columns(rows)]


def _render_targets(document: Mapping[str, Any]) -> list[str]:
    rows = [("target", "verdict", "SRAM", "left", "flash", "left")]
    for row in document["targets"]:
        figures = (f"{row[key]:,}" for key in ("sram_bytes", "sram_left_bytes", "flash_bytes", "flash_left_bytes"))
        rows.append((row["name"], row["verdict"], *figures))
    reasons = [f"{row['name']}: {row['reason']}" for row in document["targets"] if row["reason"]]
    return [render_columns(rows), *reasons]
